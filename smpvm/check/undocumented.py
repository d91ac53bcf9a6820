"""An order of locks that the kernel's source does not have: ``undocumented-order``.

It need not close a cycle yet: a new edge is where the next deadlock comes from.  Where it is meant,
the table (documented.py) gets a row with the line of the C, or a baseline names it.

Smallest program that has it: ``q.lock(); disk.lock()`` with a page queue's and the disk's spinlock;
its twin takes them one after the other.
"""

from __future__ import annotations

from smpvm.check.checker import Checker
from smpvm.check.documented import undocumented
from smpvm.check.finding import Finding, fingerprint, site_of
from smpvm.check.lockorder import LockEdge
from smpvm.kern.order import family_class

KIND = "undocumented-order"


class Undocumented(Checker):
    """Is told of each new edge by ``LockOrder``, which the suite has on with it."""

    def edge(self, edge: LockEdge) -> None:
        """Judge one new edge."""
        if edge.forbidden or not undocumented(edge.first, edge.then):
            return
        tokens = "" if edge.binding else "; a token is at one end: it cannot deadlock"
        self.log.add(
            Finding(
                KIND,
                f"{edge.then} taken with {edge.first} held: the source has no such order",
                sites=[
                    site_of(edge.td, f"took {edge.first}", edge.first_stack),
                    site_of(edge.td, f"then took {edge.then}", edge.then_stack),
                ],
                objects=[edge.first, edge.then],
                evidence=[
                    f"{edge.first} → {edge.then} is in no rule (check/documented.py){tokens}",
                    f"held: {edge.held}",
                ],
                identity=(family_class(edge.first), family_class(edge.then)),
            )
        )


def edge_fingerprint(first: str, then: str) -> str:
    """The fingerprint of the finding that tells of that edge."""
    return fingerprint(KIND, family_class(first), family_class(then))
