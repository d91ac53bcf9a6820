"""Tests of how much memory is available (vm_page2.h:62-144): u32 sums of vmstats."""

from __future__ import annotations

from typing import TYPE_CHECKING

from smpvm.kern.cname import c
from smpvm.vm.param import U32, i32

if TYPE_CHECKING:
    from smpvm.vm.vm import Vm


class Meter:
    """reserved < severe < minimum < target < paging target.  No locks; nothing blocks."""

    def __init__(self, vm: Vm) -> None:
        self.vm = vm
        self.k = vm.k
        self.stats = vm.stats

    @c("vm_page_count_severe", "vm_page2.h:62-69")
    def count_severe(self) -> bool:
        """vm_page_count_severe, vm_page2.h:62-69.

        So little memory that user processes must stall.
        """
        s = self.stats
        return (
            s.v_free_severe > (s.v_free_count + s.v_cache_count) & U32
            or s.v_free_reserved > s.v_free_count
        )

    @c("vm_page_count_min", "vm_page2.h:78-85")
    def count_min(self, donotcount: int) -> bool:
        """vm_page_count_min, vm_page2.h:78-85.

        Below the minimum, not counting *donotcount* pages.
        """
        s = self.stats
        return (s.v_free_min + donotcount) & U32 > (
            s.v_free_count + s.v_cache_count
        ) & U32 or s.v_free_reserved > s.v_free_count

    @c("vm_page_count_target", "vm_page2.h:95-102")
    def count_target(self) -> bool:
        """vm_page_count_target, vm_page2.h:95-102.

        Below the target.  Do not wait for it in a loop.
        """
        s = self.stats
        return (
            s.v_free_target > (s.v_free_count + s.v_cache_count) & U32
            or s.v_free_reserved > s.v_free_count
        )

    @c("vm_paging_target", "vm_page2.h:115-123")
    def paging_target(self) -> int:
        """vm_paging_target, vm_page2.h:115-123.

        How many pages are still to be freed or cached; signed.
        """
        s = self.stats
        return i32((s.v_free_target + s.v_cache_min) - (s.v_free_count + s.v_cache_count))

    @c("vm_paging_needed", "vm_page2.h:133-144")
    def paging_needed(self) -> bool:
        """vm_paging_needed, vm_page2.h:133-144: should the page-out daemon be woken?"""
        s = self.stats
        if (s.v_free_min + s.v_cache_min) & U32 > (s.v_free_count + s.v_cache_count) & U32:
            return True
        return s.v_free_min > s.v_free_count
