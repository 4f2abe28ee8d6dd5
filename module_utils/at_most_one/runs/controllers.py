"""Where ansible-playbook runs, and whether that process is certainly gone.

A pid alone proves nothing: it may have been given to another process, on another machine that calls itself the same.
"""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass

from ..system import processes


@dataclass(frozen=True)
class Controller:
    """Where ansible-playbook runs, and its process: the host as it calls itself, and the pid there."""

    host: str
    pid: int

    def process(self) -> str | None:
        """What names that process for ever; ``None`` when it is not a process of this host, so that nothing is known.

        The pid alone may be given to another process; the start time tells them apart. Boot and pid namespace say
        that "this host" is really the same one: host names repeat, in containers above all.
        """
        ticks = processes.start_ticks(self.pid) if self.host == socket.gethostname() else None
        return None if ticks is None else f"{_this_kernel()}/{ticks}"


def proven_dead(process: str | None, pid: int) -> bool:
    """Whether the recorded process is gone for certain. What cannot be seen from here counts as alive."""
    if process is None or process.rpartition("/")[0] != _this_kernel():
        return False
    ticks = processes.start_ticks(pid)
    if ticks is not None:
        return f"{_this_kernel()}/{ticks}" != process
    try:
        os.kill(pid, 0)  # signal 0 only asks; /proc may hide other users' processes (hidepid)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return True  # ours to signal, yet without a start time: a zombie


def proven_alive(process: str | None, pid: int) -> bool:
    """Whether the recorded process is certainly still there: this kernel, the same pid, the same start time."""
    ticks = processes.start_ticks(pid)
    return ticks is not None and process == f"{_this_kernel()}/{ticks}"


def _this_kernel() -> str:
    """This boot of this machine and this pid namespace: where a pid has a meaning."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as boot:
        return f"{boot.read().strip()}/{os.readlink('/proc/self/ns/pid')}"
