"""The command line: options and dispatch, no logic.  Every error is one line and an exit code."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from smpvm import __version__
from smpvm.commands.flags import (
    FILE,
    Seconds,
    Whole,
    baseline_option,
    carrier_option,
    check_option,
    hang_option,
    json_option,
    known_option,
    limit_option,
    memory_option,
    missing,
    repair_option,
    run_dir_option,
    seed_option,
    spurious_option,
    wakeup_order_option,
)
from smpvm.config import ConfigError
from smpvm.exits import BROKEN, CLEAN, INCONCLUSIVE, USAGE
from smpvm.report.output import complain, printing


@click.group(
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, message="smpvm %(version)s")
@click.pass_context
def cli(ctx: click.Context) -> None:
    """An executable, checkable model of DragonFly BSD's SMP page-out machinery."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


@cli.command(short_help="Run processes on a machine that pages; check every word.")
@click.option(
    "--seconds",
    type=Seconds(0.1, 1e6),
    default=20.0,
    show_default=True,
    help="How long the processes run, in host seconds; stopping and checking come after that.",
)
@click.option(
    "--profile",
    default="default",
    show_default=True,
    help="The machine and its mix of processes (see `smpvm profiles`).",
)
@click.option("--cpus", type=Whole(), help="Number of CPUs.  [default: the profile's]")
@click.option("--pages", type=Whole(), help="Physical memory, in pages.  [default: the profile's]")
@click.option("--swap-pages", type=Whole(), help="Swap space, in pages.  [default: the profile's]")
@click.option(
    "--pq-l2-size",
    type=Whole(),
    help="Number of page colours, a power of two up to 256.  [default: the profile's]",
)
@click.option(
    "--spin-pool",
    type=Whole(),
    help="Number of spinlocks that pages hash to; 1 makes all pages share one.  "
    "[default: the profile's]",
)
@seed_option
@click.option(
    "--set",
    "sysctls",
    multiple=True,
    metavar="SYSCTL=VALUE",
    help="Set a sysctl of the page-out code; may be repeated.",
)
@click.option(
    "--trace",
    "traces",
    multiple=True,
    metavar="FILE[,FILE...]",
    help="Replay these recordings instead of the profile's; may be repeated.",
)
@repair_option("all: every repair there is.")
@check_option("default")
@baseline_option
@known_option
@click.option(
    "--history", is_flag=True, help="Keep the last events of each page, to explain stale data."
)
@click.option(
    "--coverage/--no-coverage",
    default=True,
    show_default=True,
    help="Show how often each C function and branch of vm_pageout.c ran.",
)
@json_option
@click.option(
    "--log", "log_file", type=FILE, metavar="FILE", help="Write every lock event to FILE."
)
@run_dir_option
@click.option(
    "--from",
    "start",
    type=FILE,
    metavar="FILE",
    help="Start from the memory in a snapshot instead of an empty machine.",
)
@click.option(
    "--snapshot", type=FILE, metavar="FILE", help="Write the memory at the end of the run to FILE."
)
def stress(**options: Any) -> int:
    """Run processes on a machine that pages, on real threads, and check every word they wrote."""
    from smpvm.commands.stress import command

    return command(options)


@cli.command(short_help="Record the page references of a program.")
@click.option(
    "-o", "--output", required=True, type=FILE, metavar="FILE", help="Write the recording to FILE."
)
@click.option(
    "--window",
    type=Whole(1, 4096),
    default=32,
    show_default=True,
    help="Drop references to the last N distinct pages.",
    metavar="N",
)
@click.option(
    "--limit",
    type=Whole(1, 50_000_000),
    default=200_000,
    show_default=True,
    help="Stop after N references of each process.",
    metavar="N",
)
@click.option(
    "--follow/--no-follow",
    default=True,
    show_default=True,
    help="Record the programs that COMMAND starts, too: one file for each process.",
)
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def record(output: Path, window: int, limit: int, follow: bool, command: tuple[str, ...]) -> int:
    """Run COMMAND under valgrind's lackey and write its page references to a file.

    The file is for `smpvm stress --trace`.  The processes that COMMAND starts go to FILE-2,
    FILE-3, ... (before the suffix).
    """
    from smpvm.commands.record import command as run

    return run(output, command, window=window, limit=limit, follow=follow, echo=print)


@cli.command(short_help="List the repairs of kernel defects.")
def repairs() -> int:
    """List the repairs: for each, the C function it repairs and what it does."""
    from smpvm.repairs.catalogue import REPAIRS

    for repair in REPAIRS.values():
        print(f"{repair.name:<24} {repair.where:<44} {repair.title}")
    return CLEAN


@cli.command(short_help="List the profiles of `smpvm stress`.")
def profiles() -> int:
    """List the profiles of `smpvm stress`: each a machine and a mix of processes."""
    from smpvm.workload.profiles import PROFILES

    for profile in PROFILES.values():
        print(f"{profile.name:<12} {profile.title}")
    return CLEAN


@cli.command(short_help="List the built-in scenarios of `smpvm explore`.")
def scenarios() -> int:
    """List the built-in scenarios, each with its title."""
    import smpvm.scenarios
    from smpvm.explore.registry import builtin

    for name, scenario in builtin(smpvm.scenarios).items():
        print(f"{name:<20} {scenario.title}")
    return CLEAN


@cli.command(short_help="Check snapshots and describe them.")
@click.argument("files", nargs=-1, required=True, type=FILE, metavar="FILE...")
def snapshot(files: tuple[Path, ...]) -> int:
    """Check snapshots and describe them (`smpvm stress --snapshot FILE` writes one)."""
    from smpvm.state.snapshot import describe
    from smpvm.workload.resume import read

    for file in files:
        print(f"{file}: {describe(read(file))}")
    return CLEAN


@cli.command(short_help="Compare the model with vectors of the kernel's C.")
@click.option(
    "--function",
    "functions",
    multiple=True,
    metavar="NAME",
    help="Run only the vectors of this C function; may be repeated.",
)
@json_option
@click.argument("files", nargs=-1, required=True, type=FILE, metavar="FILE...")
def conform(files: tuple[Path, ...], functions: tuple[str, ...], as_json: bool) -> int:
    """Compare the model with vectors recorded from the kernel's own C, call by call."""
    from smpvm.commands.conform import command

    return command(files, functions=functions, as_json=as_json, echo=print)


@cli.command("c", short_help="Find the model's method for a C function, or the reverse.")
@click.argument("name", required=False)
@json_option
def c_index(name: str | None, as_json: bool) -> int:
    """Say which method of the model is the C function NAME, or which C function a method is.

    Without NAME: the whole index, in Markdown.
    """
    from smpvm.commands.c import command

    return command(name, as_json=as_json, echo=print)


@cli.command(short_help="Show a finding, or all findings of a run.")
@click.argument("path", type=FILE, metavar="FILE|RUN")
@json_option
def show(path: Path, as_json: bool) -> int:
    """Show the finding in FILE, or every finding of the run directory RUN."""
    from smpvm.report.findings import show_command

    print(show_command(path, as_json))
    return CLEAN


@cli.command(short_help="Show the lock order and lock times of a run.")
@click.argument("run", type=FILE, metavar="RUN|LOG")
@click.option("--stacks", is_flag=True, help="Show where each undocumented edge was first seen.")
@click.option(
    "--dot", "dot_file", type=FILE, metavar="FILE", help="Write the graph to FILE, for Graphviz."
)
@click.option("--svg", "svg_file", type=FILE, metavar="FILE", help="Draw the graph in FILE.")
@json_option
def locks(
    run: Path, stacks: bool, dot_file: Path | None, svg_file: Path | None, as_json: bool
) -> int:
    """Compare the lock order of a run with the documented one; show contention and lock times.

    RUN is a run directory, LOG a log of `smpvm stress --log`.
    """
    from smpvm.report import lockgraph
    from smpvm.report.locklog import read_log

    log = read_log(run)
    for path, draw in ((dot_file, lockgraph.dot), (svg_file, lockgraph.svg)):
        if path is not None:
            write(path, draw(log.edges))
    if as_json:
        print(json.dumps(lockgraph.lock_json(log), indent=1))
    else:
        print(lockgraph.lock_report(log, stacks=stacks))
    return CLEAN


def write(path: Path, text: str) -> None:
    """Write a file that the user asked for.  Raises ConfigError."""
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as why:
        raise ConfigError(f"{path}: {why.strerror or why}") from None


@cli.command(short_help="Run a scenario under many schedules.")
@click.argument("scenario", metavar="SCENARIO|all")
@click.option(
    "--strategy",
    default="portfolio",
    show_default=True,
    metavar="NAME",
    help="random, pct, pos, surw, bounded, all, dpor, roundrobin, or portfolio (dpor, random, pct, "
    "pos and surw in turn).  bounded, all and dpor end by themselves, with a proof.",
)
@click.option(
    "--schedules",
    type=Whole(1),
    metavar="N",
    help="Run at most N executions.  [default: 1000, or no limit if --seconds is given or the "
    "strategy ends by itself]",
)
@click.option(
    "--seconds",
    type=Seconds(0.01),
    help="Search for at most this many host seconds, all scenarios together; shrinking may take "
    "as long again.",
)
@seed_option
@click.option(
    "--depth",
    type=Whole(),
    help="For pct: the depth of the bugs to look for, 1 to 10.  [default: 3; in portfolio 2 and 3]",
)
@click.option(
    "--bound",
    type=Whole(),
    help="For bounded and dpor: at most this many preemptions, 0 to 100.  [default: bounded 2, "
    "dpor all]",
)
@click.option(
    "--granularity",
    type=click.Choice(["access", "sync"]),
    default="access",
    show_default=True,
    help="Where threads may switch: at every access of a shared field, or only at locks, sleeps "
    "and atomics.",
)
@memory_option("sc")
@spurious_option(0)
@wakeup_order_option
@carrier_option
@click.option(
    "--jobs",
    type=Whole(1, 256),
    default=1,
    show_default=True,
    help="Worker processes; the digest differs from that of --jobs 1.",
)
@hang_option
@click.option("--stop-on-first", is_flag=True, help="Stop at the first finding.")
@click.option(
    "--shrink/--no-shrink",
    default=True,
    show_default=True,
    help="Look for a shorter schedule that shows each finding.",
)
@repair_option("all: every repair that the scenario lists.")
@check_option("all")
@baseline_option
@known_option
@limit_option
@run_dir_option
@json_option
def explore(**options: Any) -> int:
    """Run a scenario under many schedules and report what goes wrong.

    SCENARIO is the name of a built-in scenario, FILE.py or FILE.py:Class for your own, or all for
    every built-in one.  NAME?size=VALUE sets a size of the scenario.
    """
    from smpvm.commands.explore import explore as run
    from smpvm.explore.strategy.portfolio import make_strategy

    try:
        make_strategy(options["strategy"], depth=options["depth"], bound=options["bound"])
    except ValueError as why:
        raise click.UsageError(str(why)) from None
    return run(options, print)


@cli.command(short_help="Run the schedule of a finding again, step by step.")
@click.argument("file", required=False, type=FILE)
@click.option(
    "--schedule", metavar="TEXT", help="Run this schedule (s1/...) instead of a finding's."
)
@click.option(
    "--scenario",
    metavar="FILE.py[:NAME]",
    help="Run this scenario file, wherever it is and even if it has changed since.",
)
@click.option("--lanes", is_flag=True, help="Show every step, one column for each thread.")
@click.option(
    "--break",
    "break_at",
    type=Whole(0),
    metavar="STEP",
    help="Enter pdb at this step, in the thread that takes it; q runs on to the end.",
)
@memory_option(None)
@spurious_option(None)
@wakeup_order_option
@carrier_option
@hang_option
@check_option("all")
@limit_option
@json_option
def replay(**options: Any) -> int:
    """Run the schedule of the finding in FILE again, step by step.

    The exit code is 1 if the finding is reproduced, and 3 if it is not.
    """
    from smpvm.commands.replay import replay as run

    if (options["file"] is None) == (options["schedule"] is None):
        raise click.UsageError("replay: give either the FILE of a finding or --schedule")
    if options["break_at"] is not None and options["as_json"]:
        raise click.UsageError("replay: --break is interactive; it cannot be combined with --json")
    return run(options, print)


@cli.command(short_help="Generate small programs and look for what goes wrong in them.")
@click.option(
    "--seconds",
    type=Seconds(0.01),
    help="Search for at most this many host seconds; shrinking may take as long again.  "
    "[default: 60, without --programs]",
)
@click.option("--programs", type=Whole(1), help="Run at most this many programs.")
@seed_option
@click.option(
    "--jobs",
    type=Whole(1, 256),
    default=1,
    show_default=True,
    help="Worker processes; only one job does the same again for the same seed.",
)
@click.option(
    "--corpus",
    type=FILE,
    metavar="DIR",
    help="Keep the programs that showed something new in DIR; go on with those that are there.",
)
@click.option(
    "--cover",
    metavar="FILE.c:LINE",
    help="Aim at this line of the C, and end when a program has run it.",
)
@click.option(
    "--feedback/--no-feedback",
    default=True,
    show_default=True,
    help="Change and cross the programs that showed something new.",
)
@click.option(
    "--pairs/--no-pairs",
    default=True,
    show_default=True,
    help="Work through the table of all pairs of operations.",
)
@click.option("--prove", is_flag=True, help="Prove cells of that table by DPOR where it is short.")
@click.option("--stop-on-first", is_flag=True, help="Stop at the first finding.")
@click.option(
    "--shrink/--no-shrink",
    default=True,
    show_default=True,
    help="Look for a smaller program and a shorter schedule that show each finding.",
)
@click.option("--lanes", is_flag=True, help="Show the last steps of each finding in lanes.")
@click.option(
    "--save", type=FILE, metavar="FILE.py", help="Write the programs of the findings to a file."
)
@repair_option("all: every repair there is.")
@check_option("all")
@hang_option
@run_dir_option
@json_option
def fuzz(**options: Any) -> int:
    """Generate small programs of real operations, and explore them.

    A finding says its program as one line of text; smpvm explore 'fuzz:TEXT' explores it further.
    """
    from smpvm.commands.fuzz import fuzz as run

    return run(options, print)


@cli.command(short_help="Say what of the C scenarios, a corpus or a run reach, and what not.")
@click.argument("what", nargs=-1, metavar="[SCENARIO|all|CORPUS|RUN]...")
@click.option(
    "--schedules",
    type=Whole(1),
    default=4,
    show_default=True,
    help="Executions of each scenario or program.",
)
@seed_option
@repair_option("all: every repair there is.")
@json_option
def coverage(**options: Any) -> int:
    """Run some schedules of each scenario (default: all), and say what they reach.

    C functions, lines of the model, branches of vm_pageout.c, interactions of threads.  CORPUS is
    the directory of fuzz --corpus, RUN one of explore or fuzz --run-dir.
    """
    from smpvm.commands.coverage import coverage as run

    return run(options, print)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code.  Standard output and error cannot make it fail."""
    with printing():
        return _main(argv)


def _main(argv: Sequence[str] | None) -> int:
    try:
        code = cli.main(args=argv, prog_name="smpvm", standalone_mode=False)
    except (click.ClickException, ConfigError) as why:
        complain(why.format_message() if isinstance(why, click.ClickException) else str(why))
        return USAGE
    except (click.Abort, KeyboardInterrupt):
        complain("interrupted")
        return INCONCLUSIVE
    except ModuleNotFoundError as why:
        if why.name is None or why.name.partition(".")[0] == "smpvm":
            return _broken(why)
        complain(missing(why.name))
        return USAGE
    except ValueError as why:
        # TraceError, FindingError and their like: a file or an option that cannot be used.
        if type(why) is ValueError:
            return _broken(why)
        complain(str(why))
        return USAGE
    except OSError as why:  # no room for temporary files, no more processes, ...
        complain(f"{why.filename}: {why.strerror}" if why.filename else str(why))
        return BROKEN
    except Exception as why:
        return _broken(why)
    return code if isinstance(code, int) else CLEAN


def _broken(why: BaseException) -> int:
    import traceback

    where = traceback.extract_tb(why.__traceback__)[-1]
    complain(f"internal error: {type(why).__name__}: {why} ({where.filename}:{where.lineno})")
    return BROKEN
