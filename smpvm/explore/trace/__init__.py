"""What an execution did: schedules, happens-before, which steps depend on each other."""
