"""Fixtures: small VMs with stubs, and whole machines with processes."""

from procs import procs
from smallvm import audit, paging, stubs, vm, vms

__all__ = ["audit", "paging", "procs", "stubs", "vm", "vms"]
