from smpvm.kern.lockmgr import Lock
from smpvm.kern.lockreq import LK_EXCLUSIVE, LK_RELEASE, LK_SHARED
from smpvm.kern.spinlock import Spinlock
from smpvm.kern.stall import waits_for, who_waits
from smpvm.kern.token import Token
from smpvm.kern.tsleep import Ident


class Page:
    def __init__(self, owner):
        self.owner = owner

    def __str__(self):
        return "page 12"

    def owners(self):
        return [self.owner]


def line(k, name):
    (found,) = [line for line in who_waits(k) if line.startswith(f"{name}:")]
    return found


def test_every_kind_of_wait_is_named_with_its_owner(bench, k):
    spin, tok, lock = Spinlock(k, "queue", "INACTIVE+3"), Token(k, "object", "4"), Lock(k, "map")
    ident, page = Ident("vm_pages_needed"), Page(k.boot)
    tok.get()
    lock.lockmgr(LK_EXCLUSIVE)
    spin.lock()

    def holds_and_sleeps():
        mine = Lock(k, "vnode", "vnode 2")
        mine.lockmgr(LK_SHARED)
        k.sleep.tsleep(ident, 0, "psleep", 0)
        mine.lockmgr(LK_RELEASE)

    def spins():
        spin.lock()
        spin.unlock()

    def gets():
        tok.get()
        tok.release()

    def locks():
        lock.lockmgr(LK_EXCLUSIVE)
        lock.lockmgr(LK_RELEASE)

    go = []
    tds = [
        k.spawn("spins", spins),
        k.spawn("gets", gets),
        k.spawn("locks", locks),
        k.spawn("sleeps", holds_and_sleeps),
        k.spawn("pages", lambda: k.sleep.tsleep(page, 0, "pgbusy", 1000)),
    ]
    k.spawn("runs", lambda: bench.until(lambda: go))
    bench.until(lambda: all(waits_for(td) is not None for td in tds))
    assert [waits_for(td) for td in tds] == [spin, tok, lock, ident, page]
    assert line(k, "spins") == "spins: waits for spinlock queue INACTIVE+3, held by boot"
    assert line(k, "gets") == "gets: waits for token object 4, held by boot"
    assert line(k, "locks").startswith("locks: sleeps on lock map (map, no timer) for ")
    assert line(k, "locks").endswith("held by boot")
    assert line(k, "sleeps").startswith("sleeps: sleeps on vm_pages_needed (psleep, no timer) for")
    assert line(k, "sleeps").endswith("; holds lock vnode vnode 2")
    assert line(k, "pages").startswith("pages: sleeps on page 12 (pgbusy, timer 1000) for ")
    assert line(k, "pages").endswith("held by boot")
    assert line(k, "runs") == "runs: runs"
    spin.unlock()
    lock.lockmgr(LK_RELEASE)
    tok.release()
    k.sleep.wakeup(ident)
    k.sleep.wakeup(page)
    go.append(True)
    bench.finish(k)
    assert who_waits(k) == []
