"""One execution of a scenario: a new machine on a new carrier, observed and checked."""

from __future__ import annotations

import gc
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, Final

from smpvm.check.accepted import Declared
from smpvm.check.finding import Failure, Finding, FindingLog, Site, site_of
from smpvm.check.stacks import HOME, raised_at
from smpvm.check.suite import CHECKS, CheckSuite
from smpvm.config import ConfigError
from smpvm.explore.registry import ScenarioError, spec_of
from smpvm.explore.scenario import Refused, ScenarioClass
from smpvm.explore.strategy.base import SerialCarrier, Strategy
from smpvm.explore.strategy.roundrobin import Fair
from smpvm.explore.trace.schedule import Namer, Schedule, runs_of
from smpvm.explore.watchdog import Watch, unwatched
from smpvm.host.carrier import ACQUIRE, ACQUIRE_SHARED, Stopped
from smpvm.host.choices import Choices
from smpvm.host.serialthread import AWAIT, RESUME, Ending
from smpvm.host.tso import buffered
from smpvm.kern.cname import FLOOR
from smpvm.kern.kernel import Kernel
from smpvm.kern.order import Ordered
from smpvm.kern.probe import Probe
from smpvm.kern.stall import who_waits
from smpvm.text import nameless, plural

FRAMES: Final = FLOOR


@dataclass(frozen=True)
class Settings:
    """How executions are run."""

    granularity: str = "access"
    spurious: int = 0
    """How many sleeps of an execution may end without a wakeup."""
    wakeup_order: str = ""
    """Whom wakeup_one wakes: ``c``, as the C; "", as the scenario has it."""
    memory: str = "sc"
    """Which stores others see: ``sc``, each at once; ``tso``, through x86's store buffers."""
    carrier: str = "auto"
    limit: int = 200_000
    """Steps after which the fair suffix begins; an execution twice as long is a livelock."""
    checks: frozenset[str] = frozenset(CHECKS)
    repairs: tuple[str, ...] = ()
    benign: bool = True
    """Are races and waits that the source declares as intended only counted, not reported?"""
    baseline: frozenset[str] = frozenset()
    """Fingerprints of findings that a baseline has: they are not reported."""
    digest: bool = True
    watch: Watch = unwatched
    """Told which part of an execution runs the scenario's code; it has no influence."""


@dataclass
class Outcome:
    """The result of one execution."""

    carrier: SerialCarrier
    findings: list[Finding]
    kernel: Kernel
    digest: bytes = b""
    stuck: Ending = Ending.ENDED
    runs: list[tuple[int, int, str]] = field(default_factory=list)
    benign: dict[Declared, int] = field(default_factory=dict)
    not_judged: list[str] = field(default_factory=list)
    """What no checker can judge."""
    found_at: dict[str, int] = field(default_factory=dict)
    """Fingerprint → the last step before it was found."""

    @property
    def steps(self) -> int:
        """The number of steps taken."""
        return len(self.carrier.log)

    def forget(self) -> None:
        """Drop the execution, which will not be used again.

        A machine is full of reference cycles; those of its kernel are broken here, so that a small
        machine is freed at once and the garbage collector need not traverse it.
        """
        self.carrier.forget()
        self.kernel.forget()

    def find(self, mark: str) -> Finding | None:
        """The finding with that fingerprint."""
        return next((f for f in self.findings if f.fingerprint == mark), None)


class Execution:
    """Builds, runs and checks one execution.  Used once."""

    def __init__(
        self,
        scenario: ScenarioClass,
        strategy: Strategy,
        scheduler: Any,
        settings: Settings,
        observers: Sequence[Probe] = (),
        carrier_class: type[SerialCarrier] = SerialCarrier,
        n: int = 0,
    ) -> None:
        self.scenario = scenario
        self.strategy = strategy
        self.settings = settings
        if settings.memory == "tso":
            if settings.granularity != "access":
                raise ConfigError("memory tso: only at granularity access")
            carrier_class = buffered(carrier_class)
        self.carrier = carrier_class(
            scheduler,
            access_points=settings.granularity == "access",
            switcher=settings.carrier,
            limit=settings.limit,
            fair=Fair() if strategy.fair_after else None,
        )
        self.carrier.choices = Choices(seed=f"{getattr(strategy, 'seed', 0)}/{n}")
        self.carrier.choices.budget = settings.spurious
        strategy.attach(self.carrier)
        self.found_at: dict[str, int] = {}
        self.log = FindingLog(
            on_new=_noticer(self.found_at, self.carrier),
            repairs=settings.repairs,
            baseline=settings.baseline,
        )
        self.suite = CheckSuite(settings.checks, self.log, benign=settings.benign)
        self.observers = (*observers, *self.suite.observers)

    def run(self) -> Outcome:
        """Set up, run to the end, and check.  Raises ScenarioError."""
        carrier = self.carrier
        k = self.k = Kernel(carrier, self.observers, spin_pool=self.scenario.spin_pool)
        order = self.settings.wakeup_order or getattr(self.scenario, "wakeup_order", "")
        if order != "c":
            k.sleep.pick = carrier.pick
        if self.settings.spurious:
            k.sleep.early = carrier.ends_early
        carrier.on_block = k.probe.lock_block
        carrier.on_idle = self.suite.idle
        carrier.on_stuck = self._stuck
        carrier.on_rest = self.suite.at_rest
        body = None
        watch = self.settings.watch
        try:
            watch("set-up", carrier)
            body = self._made(k)
            watch("thread", carrier)
            if body is not None:
                carrier.join()
        finally:
            if not carrier.stopping:
                carrier.unwind()
            watch("check", carrier)
        if carrier.pruned_at is None:
            self._judge(body)
        watch("")
        self.suite.finish()
        outcome = Outcome(carrier, self._counted(), k, stuck=carrier.stuck, found_at=self.found_at)
        if self.settings.digest:
            outcome.digest = self._digest(outcome)
        if outcome.findings:
            outcome.runs = runs_of(carrier.log)
        outcome.benign = self.suite.accepted.counts()
        outcome.not_judged = self.suite.not_judged()
        return outcome

    def _counted(self) -> list[Finding]:
        """The findings; of an execution that was pruned those before."""
        findings, pruned = self.log.findings, self.carrier.pruned_at
        if pruned is None:
            return findings
        if self.carrier.stuck is not Ending.CUT:
            self.carrier.stuck = Ending.PRUNED
        return [f for f in findings if self.found_at[f.fingerprint] < pruned]

    def _made(self, k: Kernel) -> Any:
        """The scenario, set up; None if it assumes what is not so.  Raises ScenarioError."""
        try:
            return self.scenario(k, self.settings.repairs)
        except ConfigError:
            raise
        except KeyboardInterrupt:
            raise
        except BaseException as why:
            if self.carrier.pruned_at is not None:
                return None
            raise self._mistake("set-up", why) from why

    def _mistake(self, what: str, why: BaseException) -> ScenarioError:
        return ScenarioError(f"scenario {spec_of(self.scenario)!r}: {self._blame(what, why)}")

    def _blame(self, what: str, why: BaseException) -> str:
        """One line: what went wrong, and where in the scenario."""
        frames = list(traceback.walk_tb(why.__traceback__))
        own = [(f, line) for f, line in frames if not f.f_code.co_filename.startswith(HOME)]
        told = f"{type(why).__name__}: {first_line(why)}".rstrip(": ")
        if isinstance(why, Stopped):
            told = "it blocks, and no thread will ever wake it"
        if isinstance(why, Refused):
            told = first_line(why)
            if not own:
                return f"{what}: {told}"
        frame, line = (own or frames)[-1]
        return f"{what}: {told} ({frame.f_code.co_filename}:{line})"

    # -- checking

    def _judge(self, body: Any) -> None:
        """Add failures of threads and of ``check``.  Raises ScenarioError for misuse of the API."""
        k, carrier = self.k, self.carrier
        for td, error in [*k.errors, *carrier.errors]:
            if isinstance(error, Refused):
                raise self._mistake(f"thread {td.name!r}", error) from error
            kind = type(error).__name__
            failed = kind == "AssertionError"
            text = first_line(error) or ("assertion failed" if failed else "")
            words = text if failed else f"{kind}: {text}".rstrip(": ")
            site = site_of(td, "fails", raised_at(error))
            self._add(getattr(error, "kind", "assertion"), Failure.raised(error, words), site)
        # A panic is a finding already (check/panics).
        if not (k.errors or carrier.errors or k.panics or carrier.stuck):
            try:
                failures = body.failures()  # sets failure_kind
                for text in failures:
                    self._add(getattr(body, "failure_kind", "assertion"), text)
            except KeyboardInterrupt:
                raise
            except Refused as why:
                raise self._mistake("check", why) from why
            except BaseException as why:
                if carrier.pruned_at is not None:
                    return
                # It may fail in this interleaving only, so it is a finding, as in a thread.
                self._add("assertion", Failure.raised(why, self._blame("check", why)))

    def _add(self, kind: str, text: str, *sites: Site) -> None:
        """Add a finding.  A text that is no ``Failure`` is itself the identity, without numbers."""
        identity = text.identity if isinstance(text, Failure) else (nameless(text),)
        identity = (self.scenario.name, *identity)
        self.log.add(Finding(kind, str(text), sites=list(sites), identity=identity))

    def _stuck(self) -> None:
        """No thread can run, or the threads run without end."""
        carrier = self.carrier
        if carrier.pruned_at is not None:
            return
        self.suite.stalled()
        known = {"deadlock", "lost-wakeup", "masked-lost-wakeup", "recursion"}
        if known & set(self.log.kinds()):
            return
        live = [s for s in carrier.threads if not s.done and not s.daemon]
        lines = who_waits(self.k)
        if starved := self._starved():
            kind, what = "starvation", starved
        elif carrier.stuck is Ending.LIVELOCK:
            kind, what = "livelock", "threads run forever under a fair scheduler"
        elif all(s.op[1] == AWAIT for s in live):
            kind = "livelock"
            what = "every live thread spins in a loop that no thread can end"
        elif any(s.ready is not None and isinstance(s.op[2], Ordered) for s in live):
            kind, what = "deadlock", "threads wait for locks that no thread will release"
        else:
            kind, what = "stall", "threads sleep, and no thread is left to wake them"
        if carrier.stuck is Ending.LIVELOCK:
            lines = [tireless(carrier), *lines]
        sites = [site_of(s.td, f"is at {s.op[1]}") for s in live]
        # Where endless threads are when the execution is abandoned is arbitrary.
        endless = carrier.stuck is Ending.LIVELOCK
        ops = sorted(s.td.name if endless else f"{s.td.name} {s.op[1]}" for s in live)
        identity = (self.scenario.name, *map(nameless, ops))
        self.log.add(Finding(kind, what, sites=sites, evidence=lines, identity=identity))

    def _starved(self) -> str:
        """A thread that never ran in an endless fair suffix while others took its lock; or ""."""
        carrier = self.carrier
        if carrier.stuck is not Ending.LIVELOCK or carrier.steps_before_fair is None:
            return ""
        suffix = carrier.log[carrier.steps_before_fair :]
        ran = {tid for tid, *_ in suffix}
        taken = [obj for _, kind, obj, _ in suffix if kind in (ACQUIRE, ACQUIRE_SHARED)]
        for s in carrier.threads:
            if s.done or s.daemon or s.tid in ran or s.ready is None:
                continue
            if any(obj is s.op[2] for obj in taken):
                return f"{s.td.name} waits for {s.op[2]}, which other threads keep taking forever"
        return ""

    def _digest(self, outcome: Outcome) -> bytes:
        """A hash over every step in order, how the execution ended, and what was found."""
        step = Namer().step
        hasher = blake2b(digest_size=16)
        hasher.update(b"".join(map(step, self.carrier.log)))
        marks = sorted(f.fingerprint for f in outcome.findings)
        hasher.update(f"{outcome.stuck} {' '.join(marks)}".encode())
        return hasher.digest()


def _noticer(found_at: dict[str, int], carrier: SerialCarrier) -> Callable[[Finding], None]:
    """Notes in *found_at* how far the execution had come at each finding.

    Not a method of the execution: that would make a reference cycle.
    """

    def noticed(finding: Finding) -> None:
        found_at[finding.fingerprint] = len(carrier.log) - 1

    return noticed


def execute(
    scenario: ScenarioClass,
    strategy: Strategy,
    settings: Settings,
    n: int = 0,
    observers: Sequence[Probe] = (),
    carrier_class: type[SerialCarrier] = SerialCarrier,
) -> Outcome | None:
    """Run the strategy's execution *n*; None if it has nothing left to try."""
    scheduler = strategy.start(n)
    if scheduler is None:
        return None
    execution = Execution(scenario, strategy, scheduler, settings, observers, carrier_class, n)
    outcome = execution.run()
    strategy.done(outcome.carrier)
    outcome.stuck = outcome.carrier.stuck  # the strategy may know that it has run it before
    return outcome


def tireless(carrier: SerialCarrier) -> str:
    """For an execution that was too long: which thread kept running, and what to do about it."""
    steps: Counter[str] = Counter()
    waited = {at for at, op in enumerate(carrier.log) if op[1] in (AWAIT, RESUME)}
    names = {s.tid: s.td.name for s in carrier.threads}
    for at in range(len(carrier.log) - 1, -1, -1):
        tid = carrier.log[at][0]
        if at in waited:
            names.pop(tid, None)
        elif tid in names:
            steps[names[tid]] += 1
    if not steps:
        return f"{plural(len(carrier.log), 'step')} without an end"
    name, n = steps.most_common(1)[0]
    return (
        f"{name} took {plural(n, 'step')} without waiting: a loop that waits for other threads "
        "must call relax(what it read); a loop that is just long needs a higher --steps"
    )


def first_line(why: BaseException) -> str:
    """The first line of an exception's text, without what tools add below (values, addresses)."""
    return str(why).partition("\n")[0]


def schedule_of(scenario: ScenarioClass, settings: Settings, outcome: Outcome) -> Schedule:
    """The schedule that an execution took."""
    return Schedule(
        spec_of(scenario),
        settings.granularity,
        settings.repairs,
        memory=settings.memory,
        spurious=settings.spurious,
        wakeup_order=settings.wakeup_order,
        choices=outcome.carrier.choices.kept(),
        runs=outcome.runs or runs_of(outcome.carrier.log),
    )


_MANY = 4000
"""Number of new containers that makes a collection worthwhile."""


class Collector:
    """Runs the garbage collector between executions instead of during them."""

    def __init__(self) -> None:
        self._times = 0

    def after(self) -> None:
        """An execution is over and no longer needed."""
        if gc.get_count()[0] > _MANY:
            self._times += 1
            gc.collect(2 if self._times % 256 == 0 else 1)


@contextmanager
def collected() -> Iterator[Collector]:
    """Machines are cyclic garbage: collect them soon, while they are in the CPU cache.

    Objects that existed before are frozen, so that a collection does not traverse them.
    """
    was = gc.isenabled()
    gc.freeze()
    gc.disable()
    try:
        yield Collector()
    finally:
        gc.unfreeze()
        if was:
            gc.enable()
