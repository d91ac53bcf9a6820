"""The error numbers (sys/errno.h) that the modelled code returns."""

from __future__ import annotations

from typing import Final

ENOENT: Final = 2
EINTR: Final = 4
EIO: Final = 5
ENOMEM: Final = 12
EBUSY: Final = 16
EINVAL: Final = 22
EWOULDBLOCK: Final = 35
ENOLCK: Final = 77
EDEADLK: Final = 11
EAGAIN: Final = 35
EFAULT: Final = 14
EOPNOTSUPP: Final = 45
EOVERFLOW: Final = 84
ETIMEDOUT: Final = 60
EEXIST: Final = 17
ENOSPC: Final = 28
EPERM: Final = 1
ESRCH: Final = 3
ECHILD: Final = 10
