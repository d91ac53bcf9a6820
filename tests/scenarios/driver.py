"""Until the engine is there: run one schedule of a Situation, with checkers."""
import sys, time, importlib, traceback
from smpvm.check.suite import CheckSuite, CHECKS
from smpvm.check.finding import FindingLog
from smpvm.explore.random_walk import RandomWalk
from smpvm.host.serial import SerialCarrier
from smpvm.kern.kernel import Kernel

class Outcome: pass

def run(cls, seed, *, checks=CHECKS, access=True, repairs=(), log=None, limit=20000, strat=None):
    from smpvm.explore.roundrobin import RoundRobin
    carrier = SerialCarrier((strat or RandomWalk(seed)).start(seed), access_points=access, limit=limit, fair=RoundRobin().start(0))
    log = FindingLog() if log is None else log
    suite = CheckSuite(checks, log)
    k = Kernel(carrier, suite.observers, spin_pool=cls.spin_pool)
    s = cls(k, repairs)
    o = Outcome(); o.s = s; o.carrier = carrier; o.log = log; o.wrong = []; o.suite = suite
    def stuck():
        suite.idle()
        suite.at_rest()
        from smpvm.kern.stall import who_waits
        o.wrong += [f"stuck: {carrier.stuck}"] + list(who_waits(k))
    carrier.on_stuck = stuck
    left = carrier.join()
    o.steps = len(carrier.log)
    if k.errors:
        o.wrong += ["".join(traceback.format_exception(k.errors[0][1]))]
    elif k.panics:
        o.wrong += [f"panic {k.panics[0][1]}"]
    elif not carrier.stuck:
        try:
            o.wrong += s.wrong()
        except BaseException as e:
            o.wrong += ["check itself: " + "".join(traceback.format_exception(e))]
    if not carrier.stuck and not k.panics and not k.errors and suite.marker is not None:
        suite.marker.at_rest()
    return o

def campaign(cls, n, seconds=1e9, **kw):
    log = FindingLog()
    wrongs = {}
    t0 = time.perf_counter(); steps = 0; done = 0
    for seed in range(n):
        o = run(cls, seed, log=log, **kw)
        steps += o.steps; done += 1
        if o.wrong:
            key = o.wrong[0]
            w = wrongs.setdefault(key.splitlines()[-1] if 'Traceback' in key else key, [0, seed, o.wrong]); w[0] += 1
        if time.perf_counter() - t0 > seconds: break
    dt = time.perf_counter() - t0
    return done, dt, steps, log, wrongs

def load(name):
    mod = importlib.import_module("smpvm.scenarios." + name.split(":")[0])
    from smpvm.scenarios.small import Situation
    out = [c for c in vars(mod).values() if isinstance(c, type) and issubclass(c, Situation) and c is not Situation and c.__module__ == mod.__name__ and "name" in vars(c)]
    return out

if __name__ == "__main__":
    import argparse
    a = argparse.ArgumentParser(); a.add_argument("names", nargs="+"); a.add_argument("-n", type=int, default=200); a.add_argument("--sync", action="store_true"); a.add_argument("--checks", default="all"); a.add_argument("--repaired", action="store_true"); a.add_argument("-v", action="store_true"); a.add_argument("-s", type=float, default=60)
    a = a.parse_args()
    from smpvm.check.suite import parse_checks
    for name in a.names:
        for cls in load(name):
            done, dt, steps, log, wrongs = campaign(cls, a.n, a.s, access=not a.sync, checks=parse_checks(a.checks), repairs=cls.repairs if a.repaired else ())
            print(f"== {cls.name}: {done} schedules, {done/dt:.0f}/s, {steps/done:.0f} steps each, {steps/dt:.0f} points/s")
            for key, (c, seed, w) in wrongs.items():
                print(f"  WRONG x{c} first seed {seed}: {key}")
                for l in w[:12]: print("      ", l)
            for f in log._found.values():
                print(f"  {f.kind} x{f.count} {f.fingerprint}: {f.title}")
                if a.v:
                    for l in f.lines()[1:]: print("      ", l)
