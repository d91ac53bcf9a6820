"""The console: each kernel message becomes a probe call with a short stable code."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from smpvm.kern.cname import c

if TYPE_CHECKING:
    from smpvm.kern.kernel import Kernel


@c("kprintf", "subr_prf.c:297-317")
def kprintf(k: Kernel, code: str, **facts: Any) -> None:
    """kprintf: report a console message as *code* and its values."""
    td = k.curthread()
    td.hit("kprintf:" + code)
    if (f := k.probe.call) is not None:
        f(td, "kprintf", code=code, **facts)
