"""Failed assertions of the kernel and misuse of primitives, as findings with a model stack."""

from __future__ import annotations

from typing import Any, Final

from smpvm.check.checker import Checker
from smpvm.check.finding import Finding, site_of
from smpvm.check.held import describe_held
from smpvm.check.stacks import capture, exact, functions

KIND: Final = {
    "spin-recursion": "recursion",
    "lock-recursion": "recursion",
    "token-excl-after-shared": "recursion",
    "sleep-with-spinlock": "sleep-with-spinlock",
    "switch-with-spinlock": "sleep-with-spinlock",
    "wrong-release": "wrong-release",
    "token-order": "wrong-release",
    "exit-with-lock": "wrong-release",
}
"""Code of a Misuse → kind of finding; any other code is an assertion."""


class Panics(Checker):
    """Turns each panic into a finding, when and where it happens."""

    def panic(self, td: Any, code: str, message: str) -> None:
        stack = capture(2)
        st = self.tracker.state(td)
        kind = KIND.get(code, "assertion")
        what = f"{code}: {message}" if message and code != kind else message or code
        evidence = [f"held: {describe_held(st)}"]
        if code == "token-excl-after-shared":
            evidence.append("a thread that holds a token shared would wait for itself forever")
        sites = [site_of(td, f"panics with {code}", stack)]
        if kind == "recursion":
            sites = [
                site_of(td, f"took {h}", exact(h.node.stack, stack))
                for h in st.held
                if str(h.res) in message
            ] + sites
        self.log.add(
            Finding(
                kind,
                what,
                sites=sites,
                evidence=evidence,
                identity=(code, *functions(stack, 1)),
            )
        )
