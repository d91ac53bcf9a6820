"""Fixtures: small VMs with stubs, and whole machines with processes."""

from procs import procs
from smallvm import paging, vms

__all__ = ["paging", "procs", "vms"]
