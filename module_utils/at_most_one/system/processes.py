"""What Linux itself says about a process: proc(5)."""

from __future__ import annotations

import os
import pwd
import select
import time

_POLL_S = 0.2
_PARENT, _GROUP = 1, 2  # the places of these numbers among the fields of _stat
_GONE = " (deleted)"  # what the kernel adds to a directory that was removed


def start_ticks(pid: int) -> int | None:
    """When the process started, in clock ticks since boot: together with the pid it names one process for ever.

    ``None`` when there is no such process, or only its zombie.
    """
    fields = _stat(pid)
    return None if fields is None else int(fields[19])


def uptime() -> float:
    """For how many seconds the host has been up, also suspended; its clock may have been set meanwhile."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def up_for(ticks: int) -> float:
    """For how many seconds a process has been up that started at these ``start_ticks``."""
    return uptime() - ticks / os.sysconf("SC_CLK_TCK")


def stays(pid: int, ticks: int, until: float) -> bool:
    """Whether the process that started at these ``start_ticks`` lives on until then (monotonic)."""
    while start_ticks(pid) == ticks:
        if time.monotonic() >= until:
            return True
        time.sleep(min(_POLL_S, max(0.0, until - time.monotonic())))
    return False


def is_stopped(pid: int) -> bool:
    """Whether a signal (SIGSTOP, SIGTSTP) keeps the process from going on."""
    fields = _stat(pid)
    return fields is not None and fields[0] in "Tt"


def children(pid: int) -> list[int]:
    """The pids of the living processes whose parent is ``pid``."""
    return _living(_PARENT, pid)


def members(group: int) -> list[int]:
    """The pids of the living processes of a process group."""
    return _living(_GROUP, group)


def nobody_reads(descriptor: int = 1) -> bool:
    """Whether ``descriptor`` is a pipe or a socket whose reader is gone, so that nobody gets what is written to it.

    Ansible reads a module's result from its standard output; over ssh nothing else tells that the controller is gone.
    """
    poll = select.poll()
    poll.register(descriptor, 0)  # both are told whether asked for or not
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))


def account(uid: int) -> str:
    """The name of the account, or its number where it has none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _living(field: int, value: int) -> list[int]:
    """The pids of the living processes that have this number in that field of their :func:`_stat`."""
    pids = [int(entry) for entry in os.listdir("/proc") if entry.isdigit()]
    return [pid for pid in pids if (fields := _stat(pid)) and fields[field] == str(value)]


def _stat(pid: int) -> list[str] | None:
    """The fields of /proc/PID/stat from the state on; ``None`` when there is no such process, or only its zombie."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as stat:
            content = stat.read()
    except OSError:
        return None
    fields = content[content.rindex(")") + 2 :].split()  # the command in the brackets may contain anything
    return None if fields[0] in "ZX" else fields


def working_directory(pid: int) -> str | None:
    """The real directory the process works in, ``... (deleted)`` when it is gone; ``None`` when that cannot be seen."""
    try:
        return os.readlink(f"/proc/{pid}/cwd")
    except OSError:
        return None


def is_within(place: str | None, directory: str) -> bool:
    """Whether a process that works at ``place`` works in the directory or below it, as a part of a monorepo does."""
    there = place is not None and not place.endswith(_GONE)
    return there and f"{place}{os.sep}".startswith(f"{directory}{os.sep}")


def command_line(pid: int) -> str:
    """The title or the arguments of the process, separated by spaces; empty when there is no such process."""
    try:
        with open(f"/proc/{pid}/cmdline", encoding="utf-8", errors="replace") as arguments:
            return arguments.read().replace("\0", " ").strip()
    except OSError:
        return ""
