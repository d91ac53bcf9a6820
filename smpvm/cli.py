"""The command line: commands only, no logic.  Every error is one line and an exit code."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from smpvm import __version__
from smpvm.config import ConfigError
from smpvm.exits import BROKEN, CLEAN, INCONCLUSIVE, USAGE


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, message="smpvm %(version)s")
def cli() -> None:
    """An executable, checkable model of DragonFly BSD's SMP page-out machinery."""


@cli.command()
@click.option("--seconds", type=click.FloatRange(0.1, 1e6), default=20.0, show_default=True)
@click.option("--profile", default="default", show_default=True, help="See `smpvm profiles`.")
@click.option("--cpus", type=int, help="CPUs of the machine.")
@click.option("--pages", type=int, help="Physical pages.")
@click.option("--swap-pages", type=int, help="Swap space, in pages.")
@click.option("--pq-l2-size", type=int, help="Page colours, a power of two up to 256.")
@click.option("--spin-pool", type=int, help="Spinlocks that pages hash to.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--set", "sysctls", multiple=True, metavar="SYSCTL=VALUE", help="May be repeated.")
@click.option("--trace", "traces", multiple=True, metavar="FILE[,FILE...]", help="Replay these.")
@click.option("--repair", "repairs", multiple=True, metavar="NAME|all", help="See `repairs`.")
@click.option("--check", "checks", default="default", metavar="all|none|NAME,...")
@click.option(
    "--no-benign",
    "benign",
    flag_value=False,
    default=True,
    help="Report also the races and waits that the source declares as meant.",
)
@click.option("--history", is_flag=True, help="Keep each page's last events for stale-data.")
@click.option("--coverage/--no-coverage", default=True, help="Show the table by C function.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document instead of text.")
@click.option("--log", "log_file", type=click.Path(path_type=Path), help="Write a log there.")
@click.option("--run-dir", type=click.Path(path_type=Path), help="Keep run.json and findings.")
@click.option("--from", "start", type=click.Path(path_type=Path), help="Go on from a snapshot.")
@click.option("--snapshot", type=click.Path(path_type=Path), help="Keep the memory at the end.")
def stress(**options: Any) -> int:
    """Run processes on a machine that pages, on real threads, and check that nothing is lost."""
    from smpvm.commands.stress import command

    return command(options)


@cli.command()
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), metavar="FILE")
@click.option("--window", type=click.IntRange(1, 4096), default=32, show_default=True)
@click.option("--limit", type=click.IntRange(1, 50_000_000), default=200_000, show_default=True)
@click.option(
    "--follow/--no-follow",
    default=True,
    show_default=True,
    help="Record the programs that COMMAND starts, too: one file for each process.",
)
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def record(output: Path, window: int, limit: int, follow: bool, command: tuple[str, ...]) -> int:
    """Run COMMAND under valgrind's lackey and keep its page references in FILE.

    References to the last --window pages are dropped, and at most --limit of each process are
    kept.  The processes that COMMAND starts go to FILE-2, FILE-3, ... (before the suffix).
    """
    from smpvm.commands.record import command as run

    return run(output, command, window=window, limit=limit, follow=follow, echo=click.echo)


@cli.command()
def repairs() -> int:
    """List the repairs of the kernel's own defects."""
    from smpvm.repairs.catalogue import REPAIRS

    for repair in REPAIRS.values():
        click.echo(f"{repair.name:<24} {repair.where:<44} {repair.title}")
    return CLEAN


@cli.command()
def profiles() -> int:
    """List the profiles of `smpvm stress`."""
    from smpvm.workload.profiles import PROFILES

    for profile in PROFILES.values():
        click.echo(f"{profile.name:<12} {profile.title}")
    return CLEAN


@cli.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
def snapshot(files: tuple[Path, ...]) -> int:
    """Check snapshots, and say what is in them (`smpvm stress --snapshot FILE` takes one)."""
    from smpvm.state.snapshot import describe
    from smpvm.workload.resume import read

    for file in files:
        click.echo(f"{file}: {describe(read(file))}")
    return CLEAN


@cli.command()
@click.option("--function", "functions", multiple=True, metavar="NAME", help="Only its vectors.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document instead of text.")
@click.argument(
    "files", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="FILE..."
)
def conform(files: tuple[Path, ...], functions: tuple[str, ...], as_json: bool) -> int:
    """Compare the model with vectors recorded from the kernel's own C, call by call."""
    from smpvm.commands.conform import command

    return command(files, functions=functions, as_json=as_json, echo=click.echo)


@cli.command("c")
@click.argument("name", required=False)
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def c_index(name: str | None, as_json: bool) -> int:
    """Say which method of the model is the C function NAME, or which C function a method is.

    Without NAME: the whole index, in Markdown.
    """
    from smpvm.commands.c import command

    return command(name, as_json=as_json, echo=click.echo)


@cli.command()
@click.argument("path", type=click.Path(path_type=Path), metavar="FILE|RUN")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def show(path: Path, as_json: bool) -> int:
    """Show the finding in FILE, or every finding of the run directory RUN."""
    from smpvm.report.findings import show_command

    click.echo(show_command(path, as_json))
    return CLEAN


@cli.command()
@click.argument("run", type=click.Path(path_type=Path), metavar="RUN|LOG")
@click.option("--stacks", is_flag=True, help="Where each undocumented edge was first seen.")
@click.option("--dot", "dot_file", type=click.Path(path_type=Path), metavar="FILE")
@click.option("--svg", "svg_file", type=click.Path(path_type=Path), metavar="FILE")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def locks(
    run: Path, stacks: bool, dot_file: Path | None, svg_file: Path | None, as_json: bool
) -> int:
    """The lock order that RUN (a run directory, or a log of `stress --log`) saw.

    Against the documented order; then the most contended locks, and hold and wait times.
    """
    from smpvm.report import lockgraph
    from smpvm.report.locklog import read_log

    log = read_log(run)
    for path, draw in ((dot_file, lockgraph.dot), (svg_file, lockgraph.svg)):
        if path is not None:
            write(path, draw(log.edges))
    if as_json:
        click.echo(json.dumps(lockgraph.lock_json(log), indent=1))
    else:
        click.echo(lockgraph.lock_report(log, stacks=stacks))
    return CLEAN


def write(path: Path, text: str) -> None:
    """Write a file that the user asked for.  Raises ConfigError."""
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as why:
        raise ConfigError(f"{path}: {why.strerror or why}") from None


benign_option = click.option(
    "--no-benign",
    "benign",
    flag_value=False,
    default=True,
    help="Report also the races and waits that the source declares as meant.",
)

check_option = click.option(
    "--check",
    "checks",
    default="all",
    metavar="all|none|NAME,...",
    help="What to look for: order, waitfor, wakeup, race, marker.",
)


@cli.command()
@click.argument("scenario", metavar="SCENARIO|all")
@click.option(
    "--strategy",
    default="portfolio",
    show_default=True,
    help="random, pct, pos, bounded, all, dpor, roundrobin, portfolio (the random ones in turn).",
)
@click.option("--schedules", type=click.IntRange(1), help="Executions, at most.")
@click.option(
    "--seconds",
    type=click.FloatRange(0.01),
    help="Host seconds, at most; shrinking may take as long again.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of what is random.")
@click.option(
    "--depth",
    type=int,
    help="PCT: the depth of the bugs sought, 1 to 10 (3; in the portfolio 2 and 3).",
)
@click.option("--bound", type=int, help="bounded: preemptions, at most, 0 to 100 (2).")
@click.option(
    "--granularity",
    type=click.Choice(["access", "sync"]),
    default="access",
    show_default=True,
    help="Switch at every access of a shared field, or at locks, sleeps and atomics only.",
)
@click.option(
    "--carrier",
    type=click.Choice(["auto", "greenlet", "thread"]),
    default="auto",
    show_default=True,
    help="What kernel threads run on; auto: greenlets, if they are installed.",
)
@click.option(
    "--jobs",
    type=click.IntRange(1, 256),
    default=1,
    show_default=True,
    help="Processes; each has a share of its own, so the digest is not that of one job.",
)
@click.option("--stop-on-first", is_flag=True, help="End with the first finding.")
@click.option("--shrink/--no-shrink", default=True, help="Shrink each finding's schedule.")
@click.option(
    "--repair",
    "repairs",
    multiple=True,
    metavar="NAME|all",
    help="Mend a defect of the kernel (all: those of the scenario); see smpvm repairs.",
)
@check_option
@benign_option
@click.option("--run-dir", type=click.Path(path_type=Path), help="Keep the findings there.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document instead of text.")
def explore(**options: Any) -> int:
    """Run SCENARIO (a name, path/file.py:Name, or all) under many schedules."""
    from smpvm.commands.explore import explore as run
    from smpvm.explore.strategy.portfolio import make_strategy

    try:
        make_strategy(options["strategy"], depth=options["depth"], bound=options["bound"])
    except ValueError as why:
        raise click.UsageError(str(why)) from None
    return run(options, click.echo)


@cli.command()
@click.argument("file", required=False, type=click.Path(path_type=Path))
@click.option("--schedule", help="A schedule's text, instead of a finding.")
@click.option(
    "--scenario",
    metavar="FILE.py[:NAME]",
    help="Run this scenario file, wherever it is and whatever it has become since.",
)
@click.option("--lanes", is_flag=True, help="Show the interleaving, one column a thread.")
@click.option(
    "--break",
    "break_at",
    type=click.IntRange(0),
    help="Drop into pdb at this step.  (q goes on to the end.)",
)
@click.option("--carrier", type=click.Choice(["auto", "greenlet", "thread"]), default="auto")
@check_option
@benign_option
@click.option("--json", "as_json", is_flag=True, help="One JSON document instead of text.")
def replay(**options: Any) -> int:
    """Run the schedule of a finding again, step for step."""
    from smpvm.commands.explore import replay as run

    if (options["file"] is None) == (options["schedule"] is None):
        raise click.UsageError("replay: give a finding's FILE or --schedule")
    if options["break_at"] is not None and options["as_json"]:
        raise click.UsageError("replay: --break is for people, --json is not")
    return run(options, click.echo)


def complain(text: str) -> None:
    """One line on standard error."""
    print(f"smpvm: {' '.join(text.split())}", file=sys.stderr)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    try:
        code = cli.main(args=argv, prog_name="smpvm", standalone_mode=False)
        sys.stdout.flush()
    except (click.ClickException, ConfigError) as why:
        complain(why.format_message() if isinstance(why, click.ClickException) else str(why))
        return USAGE
    except (click.Abort, KeyboardInterrupt):
        return INCONCLUSIVE
    except BrokenPipeError:
        sys.stderr.close()
        return CLEAN
    except ValueError as why:
        # TraceError, FindingError and their like: a file or an option that cannot be.
        if type(why) is ValueError:
            return _broken(why)
        complain(str(why))
        return USAGE
    except Exception as why:
        return _broken(why)
    return code if isinstance(code, int) else CLEAN


def _broken(why: BaseException) -> int:
    import traceback

    where = traceback.extract_tb(why.__traceback__)[-1]
    complain(f"internal error: {type(why).__name__}: {why} ({where.filename}:{where.lineno})")
    return BROKEN


if __name__ == "__main__":
    sys.exit(main())
