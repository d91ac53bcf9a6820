"""All sizes and sysctls of a machine, validated, with units.

Sizes are in pages (PAGE_SIZE bytes each) and times in ticks (``hz`` per kernel second) unless a
field says otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import Any

from smpvm.text import brief, quoted, whole

PAGE_SIZE = 4096
PAGE_SHIFT = 12
BLIST_MAX_ALLOC = 32
"""Largest cluster, in pages, that the swap pager allocates and the page-out daemon writes."""


class ConfigError(ValueError):
    """An invalid configuration; the text is one line: what, where, what is allowed."""


@dataclass
class Sysctl:
    """The tunables of vm_pageout.c, with the defaults of the C (vm_pageout.c:120-193).

    They may change while a machine runs; 0 in a ``pageout_stats`` field means "chosen at boot".
    Setting one that does not exist, or to what it cannot be, raises ConfigError.
    """

    anonmem_decline: int = 1
    filemem_decline: int = 2
    page_free_hysteresis: int = 16
    max_launder: int = 4096
    pageout_stats_max: int = 0
    pageout_full_stats_interval: int = 0  # seconds
    pageout_stats_interval: int = 0  # seconds
    pageout_stats_free_max: int = 0
    pageout_algorithm: int = 0
    swap_enabled: int = 1
    swap_idle_enabled: int = 0
    defer_swapspace_pageouts: int = 0
    disable_swapspace_pageouts: int = 0
    page_max_wired: int = 0  # pages; 0: a third of the free pages at boot

    def __setattr__(self, name: str, value: Any) -> None:
        check_sysctl(name, value)
        object.__setattr__(self, name, value)


SYSCTL_RANGE: dict[str, tuple[int, int]] = {
    "anonmem_decline": (0, 64),
    "filemem_decline": (0, 64),
    "page_free_hysteresis": (0, 1 << 20),
    "max_launder": (0, 1 << 20),
    "pageout_stats_max": (0, 1 << 20),
    "pageout_full_stats_interval": (0, 4 * 3600),  # 0: four times the other
    "pageout_stats_interval": (0, 3600),
    "pageout_stats_free_max": (0, 1 << 20),
    "pageout_algorithm": (0, 1),
    "swap_enabled": (0, 1),
    "swap_idle_enabled": (0, 1),
    "defer_swapspace_pageouts": (0, 1),
    "disable_swapspace_pageouts": (0, 1),
    "page_max_wired": (0, 1 << 30),
}


@dataclass
class DiskConfig:
    """A model of one device: latency, concurrency and error rate of its requests."""

    latency: int = 1
    """Ticks from start to completion of one request."""
    queue_depth: int = 8
    """Requests in service at once."""
    error_rate: float = 0.0
    """Probability that a request fails, 0 to 1, drawn from the machine's seed."""

    def validate(self, name: str) -> None:
        """Raises ConfigError for the first field out of range; *name* is the name of the disk."""
        check_range(f"{name}.latency", self.latency, 0, 100_000)
        check_range(f"{name}.queue_depth", self.queue_depth, 1, 4096)
        if not 0.0 <= self.error_rate <= 1.0:
            raise ConfigError(
                f"{name}.error_rate: {self.error_rate} is out of range, allowed 0 to 1"
            )


@dataclass
class Config:
    """The configuration of one machine."""

    pages: int = 512
    """Physical pages of the VM."""
    swap_pages: int = 4096
    ncpus: int = 2
    phys_ids: int = 0
    """CPU packages; with ``core_ids`` the topology that page colours follow (0: unknown)."""
    core_ids: int = 0
    """Cores in each package."""
    pq_l2_size: int = 16
    """Page colours, a power of two 1..256; the kernel's PQ_L2_SIZE is 256."""
    spin_pool: int = 8192
    """Number of pool spinlocks that pages hash to; 1 provokes aliasing."""
    hz: int = 100
    tick_scale: float = 0.05
    """Host seconds per kernel second, in native mode."""
    seed: int = 0
    swap_disk: DiskConfig = field(default_factory=DiskConfig)
    file_disk: DiskConfig = field(default_factory=DiskConfig)
    sysctl: Sysctl = field(default_factory=Sysctl)

    def __post_init__(self) -> None:
        self.validate()

    @property
    def pq_set_assoc(self) -> int:
        """PQ_SET_ASSOC: the first window of the colour search, at most the number of colours."""
        return min(16, self.pq_l2_size)

    def validate(self) -> None:
        """Raises ConfigError for the first field out of range."""
        n = self.pq_l2_size
        if n & (n - 1) or not 1 <= n <= 256:
            raise ConfigError(f"pq_l2_size: {n} is not a power of two from 1 to 256")
        for name, (low, high) in SIZE_RANGE.items():
            check_range(name, getattr(self, name), low, high)
        if not 0.0 < self.tick_scale <= 60.0:
            raise ConfigError(f"tick_scale: {self.tick_scale} is out of range, allowed 0 to 60")
        self.swap_disk.validate("swap_disk")
        self.file_disk.validate("file_disk")
        if not isinstance(self.sysctl, Sysctl):
            raise ConfigError(f"sysctl: {self.sysctl!r} is no Sysctl, allowed Sysctl(name=value)")
        if self.sysctl.page_max_wired > self.pages:
            raise ConfigError(
                f"sysctl page_max_wired: {self.sysctl.page_max_wired} is more than the memory, "
                f"allowed 0 to {self.pages}"
            )

    def with_sysctl(self, **values: Any) -> Config:
        """A copy with some sysctls set; ConfigError for an unknown name or an invalid value."""
        for name, value in values.items():
            check_sysctl(name, value)
        return replace(self, sysctl=replace(self.sysctl, **values))


SIZE_RANGE: dict[str, tuple[int, int]] = {
    "pages": (64, 1 << 24),
    "swap_pages": (0, 1 << 24),
    "ncpus": (1, 256),
    "spin_pool": (1, 1 << 20),
    "hz": (1, 100_000),
}


def check_range(name: str, value: int, low: int, high: int) -> None:
    """Raises ConfigError unless *value* is a whole number from *low* to *high*."""
    if type(value) is not int:
        raise ConfigError(f"{name}: {quoted(value)} is not a whole number, allowed {low} to {high}")
    if not low <= value <= high:
        raise ConfigError(f"{name}: {brief(str(value))} is out of range, allowed {low} to {high}")


def check_sysctl(name: str, value: int) -> None:
    """Raises ConfigError unless *name* is a sysctl and *value* is in its range."""
    if name not in SYSCTL_RANGE:
        raise ConfigError(
            f"sysctl {brief(name)}: unknown; known are {', '.join(f.name for f in fields(Sysctl))}"
        )
    check_range(f"sysctl {name}", value, *SYSCTL_RANGE[name])


def parse_sysctl(text: str) -> tuple[str, int]:
    """The name and value of ``name=value``; a leading ``vm.`` is accepted."""
    name, equals, number = text.partition("=")
    name = name.strip().removeprefix("vm.")
    if not equals:
        raise ConfigError(f"sysctl {quoted(text)}: write it as name=value")
    try:
        value = whole(number)
    except ValueError as why:
        raise ConfigError(f"sysctl {brief(name)}: {why}") from None
    check_sysctl(name, value)
    return name, value
