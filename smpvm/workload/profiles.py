"""The profiles of ``smpvm stress``: each one is a machine and a mix of processes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from smpvm.config import Config, ConfigError, DiskConfig, Sysctl
from smpvm.text import brief


@dataclass(frozen=True)
class Task:
    """*count* processes of one kind (see ``kinds``); the runner restarts each when it ends."""

    kind: str
    count: int = 1
    args: Mapping[str, Any] = field(default_factory=dict)


def task(kind: str, count: int = 1, /, **args: Any) -> Task:
    """A row of a mix.  *share* arguments are fractions of the machine's physical pages."""
    return Task(kind, count, args)


@dataclass(frozen=True)
class Profile:
    """A machine and the processes that run on it."""

    name: str
    title: str
    mix: tuple[Task, ...]
    config: Mapping[str, Any] = field(default_factory=dict)
    sysctl: Mapping[str, int] = field(default_factory=dict)
    swap_disk: DiskConfig = field(default_factory=DiskConfig)
    file_disk: DiskConfig = field(default_factory=DiskConfig)

    def machine(self, **changes: Any) -> Config:
        """The machine's configuration, with *changes* applied.

        A value of None keeps the profile's.  *sysctl* in *changes* is a mapping that is added to
        the profile's.  Raises ConfigError.
        """
        sizes = {**self.config, **{k: v for k, v in changes.items() if v is not None}}
        extra = sizes.pop("sysctl", {})
        config = Config(
            **sizes,
            swap_disk=DiskConfig(**vars(self.swap_disk)),
            file_disk=DiskConfig(**vars(self.file_disk)),
            sysctl=Sysctl(**self.sysctl),
        )
        return config.with_sysctl(**extra)

    def traces(self) -> list[str]:
        """Names of the shipped traces that the mix replays."""
        return [t.args["trace"] for t in self.mix if t.kind == "trace"]


PROFILES: dict[str, Profile] = {
    p.name: p
    for p in (
        Profile(
            "default",
            "three recorded programs and a bit of everything",
            (
                task("trace", trace="sort"),
                task("trace", trace="python"),
                task("trace", trace="sqlite"),
                task("hog", share=0.4),
                task("file_reader", share=0.5, order="sequential"),
                task("file_writer", share=0.3),
                task("fork_tree", share=0.1),
                task("exec_churn", share=0.1),
                task("advise", share=0.1),
                task("locker", share=0.02),
                task("sleeper", share=0.1),
                task("raw_io", share=0.1),
            ),
        ),
        Profile(
            "thrash",
            "processes that each want most of memory, at random",
            (task("hog", 4, share=0.8), task("raw_io", share=0.3)),
            config={"swap_pages": 8192},
        ),
        Profile(
            "oom",
            "more than memory and swap together hold: the kill scan has to act",
            (
                task("hog", 3, share=0.9, fill=True),
                task("short_lived", share=0.2),
                task("file_reader", share=0.3, order="random"),
            ),
            config={"swap_pages": 384},
        ),
        Profile(
            "file-heavy",
            "readers and writers of shared files, msync, truncation",
            (
                task("file_reader", 2, share=0.6, order="sequential"),
                task("file_reader", 1, share=0.6, order="random"),
                task("file_writer", 3, share=0.4),
                task("file_cutter", share=0.2),
                task("raw_io", share=0.4, file=True),
                task("hog", share=0.3),
            ),
        ),
        Profile(
            "fork-storm",
            "trees of processes over copy-on-write memory, exec and exit",
            (
                task("fork_tree", 3, share=0.2, depth=2),
                task("exec_churn", 2, share=0.1),
                task("short_lived", 2, share=0.15),
                task("hog", share=0.4),
            ),
        ),
        Profile(
            "rss-limit",
            "processes held to a resident limit by the vmdaemon",
            (
                task("hog", 3, share=0.5, rss=0.05),
                task("fork_tree", share=0.15, rss=0.04),
                task("hog", 2, share=0.5),
                task("sleeper", 2, share=0.2),
            ),
            sysctl={"swap_idle_enabled": 1},
        ),
        Profile(
            "slow-disk",
            "writers that hold vnode locks over slow writes: vget times out",
            (
                task("file_writer", 4, share=0.7, msync_every=2),
                task("file_reader", 1, share=0.7, order="random"),
                task("raw_io", 2, share=0.7, file=True),
                task("hog", 2, share=0.3),
            ),
            swap_disk=DiskConfig(latency=4, queue_depth=4),
            file_disk=DiskConfig(latency=10, queue_depth=4),
        ),
        Profile(
            "flaky-disk",
            "both disks fail one request in fifty",
            (
                task("hog", 3, share=0.6),
                task("file_reader", share=0.4, order="random"),
                task("file_writer", 2, share=0.3),
                task("fork_tree", share=0.1),
            ),
            swap_disk=DiskConfig(error_rate=0.02),
            file_disk=DiskConfig(error_rate=0.02),
        ),
        Profile(
            "tiny-pool",
            "one spinlock for all pages, one colour, little memory",
            (
                task("hog", 2, share=0.6),
                task("fork_tree", share=0.1),
                task("file_writer", share=0.2),
                task("file_reader", share=0.2, order="random"),
            ),
            config={"pages": 256, "swap_pages": 1024, "pq_l2_size": 1, "spin_pool": 1},
            sysctl={"max_launder": 2},
        ),
    )
}


def find(name: str) -> Profile:
    """The profile called *name*.  Raises ConfigError, with the known names, for any other."""
    if name not in PROFILES:
        raise ConfigError(f"profile {brief(name)}: unknown; known are {', '.join(PROFILES)}")
    return PROFILES[name]
