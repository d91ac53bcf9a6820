"""Analysis of executions: schedules, happens-before, dependence of steps."""
