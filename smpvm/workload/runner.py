"""Starts the processes of a mix, restarts each when it ends, and keeps count."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from smpvm.check.contents import Contents, FileWords
from smpvm.config import PAGE_SHIFT
from smpvm.kern.proc import Proc
from smpvm.kern.thread import Thread
from smpvm.kern.vnode import Vnode
from smpvm.vm.proc.process import ProcessKilled, SegFault
from smpvm.workload.kinds import KINDS, text_pages
from smpvm.workload.profiles import Task
from smpvm.workload.user import WORD_AT, WORDS, WORDS_IN_PAGE, User

if TYPE_CHECKING:
    from smpvm.machine import Machine


class SharedFile:
    """A file that several processes map.

    Each process writes only words of the slot that it has claimed, so that every word has one
    writer and its value is known.
    """

    def __init__(self, name: str, pages: int, vnode: Vnode, words: FileWords) -> None:
        self.name = name
        self.pages = pages
        self.vnode = vnode
        self.words = words
        self._owners: dict[int, int] = {}
        self._mutex = threading.Lock()

    def claim(self, pid: int) -> int | None:
        """Give process *pid* a slot that no other process writes.  None if all are taken."""
        with self._mutex:
            for slot in range(WORDS):
                if slot not in self._owners:
                    self._owners[slot] = pid
                    return slot
        return None

    def release(self, slot: int) -> None:
        """Give a slot back: its owner has exited, and another process may claim it."""
        with self._mutex:
            self._owners.pop(slot, None)


class Runner:
    """The processes of one machine.  Only the boot thread may call ``start`` and ``poll``."""

    def __init__(self, machine: Machine, contents: Contents, tasks: Sequence[Task]) -> None:
        self.machine = machine
        self.contents = contents
        self.tasks = list(tasks)
        self.files: dict[str, SharedFile] = {}
        self.started = 0
        self.totals = {"processes killed": 0, "processes that faulted": 0}
        self._threads: list[Thread | None] = [None] * len(self.tasks)
        self._lives = [0] * len(self.tasks)
        self._mutex = threading.Lock()
        self._own: list[tuple[Thread, Vnode]] = []

    def start(self) -> None:
        """Make the files and start every process."""
        self._make_files()
        self.poll()

    def poll(self) -> None:
        """Restart processes that have ended, and remove the files that they left."""
        for i, task in enumerate(self.tasks):
            td = self._threads[i]
            if td is None or td.exited:
                self._threads[i] = self._start(i, task)
        with self._mutex:
            gone = [own for own in self._own if own[0].exited]
            self._own = [own for own in self._own if not own[0].exited]
        for _, vnode in gone:
            self.machine.vm.vnode_pager.reclaim(vnode)

    def adopt(self, td: Thread, vnode: Vnode) -> None:
        """Remove the file of *vnode* once *td*, the thread of its process, has ended."""
        with self._mutex:
            self._own.append((td, vnode))

    def _start(self, i: int, task: Task) -> Thread:
        life = self._lives[i]
        self._lives[i] += 1
        process = self.machine.vm.process
        p = process.create()
        user = User(
            self,
            p,
            self.contents.ledger(p.p_pid),
            f"{self.machine.config.seed}/{i}/{life}",
        )
        self._count("started")
        kind = KINDS[task.kind]
        return process.start(
            p,
            lambda p: self._live(user, kind, (), dict(task.args)),
            name=f"{task.kind}{p.p_pid}",
            cpu=i % self.machine.config.ncpus,
        )

    def fork(self, parent: User, body: Callable[..., None], args: tuple[Any, ...]) -> int:
        """Fork *parent*; the child runs ``body(child, *args)``.  Returns the child's pid.

        Called in the parent's thread; may block.
        """
        born: list[User] = []

        def before(p: Proc) -> None:
            child = User(self, p, parent.ledger.fork(p.p_pid), f"{parent.seed}/{parent.forks}")
            child.areas = list(parent.areas)
            born.append(child)

        td = self.machine.k.curthread()
        p = self.machine.vm.process.fork1(
            parent.p,
            lambda p: self._live(born[0], body, args, {}),
            cpu=(td.cpu + parent.forks) % self.machine.config.ncpus,
            before=before,
        )
        self._count("started")
        return p.p_pid

    def _live(
        self, user: User, body: Callable[..., None], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        """Run the program of a process, then read back what it wrote."""
        try:
            body(user, *args, **kwargs)
            user.read_back()
            user.close_files()
        except ProcessKilled:
            self._count("processes killed")
            raise
        except SegFault:
            self._count("processes that faulted")
            raise
        finally:
            for file, slot in user.owned:
                file.release(slot)
            user.ledger.close()

    def _count(self, what: str) -> None:
        with self._mutex:
            if what == "started":
                self.started += 1
            else:
                self.totals[what] += 1

    # -- files

    def _make_files(self) -> None:
        sizes: dict[str, int] = {}
        pages = self.machine.config.pages
        for task in self.tasks:
            if task.kind in ("file_reader", "file_writer"):
                sizes["common"] = max(sizes.get("common", 1), int(pages * task.args["share"]))
            elif task.kind == "trace":
                trace = task.args["trace"]
                # Traces of the same name share a file, as large as the largest needs.
                if text := len(text_pages(trace)):
                    name = f"text of {trace.name}"
                    sizes[name] = max(sizes.get(name, 0), text)
        for name, size in sizes.items():
            self.files[name] = self._make_file(name, size)

    def _make_file(self, name: str, pages: int) -> SharedFile:
        pager = self.machine.vm.vnode_pager
        vnode = pager.new_file(pages << PAGE_SHIFT, name)
        words = self.contents.file(name)
        blocks = pager.file(vnode).blocks
        for page in range(pages):
            numbers = {word: page * WORDS_IN_PAGE + word for word in WORD_AT}
            blocks[page] = {word: words.made(number) for word, number in numbers.items()}
        return SharedFile(name, pages, vnode, words)

    def check_files(self) -> None:
        """Check that the blocks on disk hold the last values written.

        The machine is at rest, and everything has been written back.
        """
        td = self.machine.k.boot
        for file in self.files.values():
            blocks = self.machine.vm.vnode_pager.file(file.vnode).blocks
            for number in file.words.words():
                page, word = divmod(number, WORDS_IN_PAGE)
                got = blocks.get(page, {}).get(word, 0)
                before = file.words.before_read(number)
                file.words.check(td, None, number, before, got, f"block {page}")
