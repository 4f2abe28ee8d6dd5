"""Loopback ports: a free one, whether somebody listens, and the wait for what comes true in a moment."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable


def free_port(address: str = "127.0.0.1") -> int:
    """A port of that address on which nobody listens."""
    with contextlib.closing(socket.socket()) as probe:
        probe.bind((address, 0))
        return int(probe.getsockname()[1])


def listens(address: str, port: int) -> bool:
    """Whether somebody does."""
    with contextlib.closing(socket.socket()) as probe:
        probe.settimeout(1)
        return probe.connect_ex((address, port)) == 0


def wait_until(
    condition: Callable[[], object], seconds: float = 30, why: str | Callable[[], str] = "it does not come true"
) -> None:
    """Wait for a condition, and fail with ``why`` when it does not come in time; what it calls tells of that moment."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, why if isinstance(why, str) else why()
        time.sleep(0.02)
