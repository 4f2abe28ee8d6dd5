"""A process that outlives the one that started it: no terminal, no parent, no open file of the starter's.

An Ansible module ends, its temporary archive is deleted and its ssh connection waits for every inherited descriptor to
close. So whatever the work needs must be imported before it is started here.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import time
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from ..errors import OperatorError
from ..findings import observed, say
from . import files
from .processes import start_ticks


def spawn(work: Callable[[], None], pid_file: str, note: Mapping[str, Any], *, ready_within_s: float = 10.0) -> int:
    """Run ``work`` in a detached process and return its pid once ``pid_file`` names it.

    ``work`` is told to end by SIGTERM, which is blocked in it and for :func:`asked_to_end` to collect: a signal that
    comes before anybody looks is kept, and none interrupts anything. The pid file holds pid, start time and ``note`` as
    JSON. Raises OperatorError when the process did not get that far.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        _leave(work, pid_file, note, writing)
    os.close(writing)
    os.waitpid(child, 0)
    said = b""
    try:
        deadline = time.monotonic() + ready_within_s
        while b"\n" not in said and select.select([reading], [], [], max(0.0, deadline - time.monotonic()))[0]:
            chunk = os.read(reading, 4096)
            if not chunk:
                break
            said += chunk
    finally:
        os.close(reading)
    message = said.decode("utf-8", "replace").strip()
    if not message.isdigit():
        raise OperatorError(
            observed(
                "AMO-1101", "The detached process did not start: {message}.", message=message or say("it said nothing")
            ),
            expected=say(
                "a process that writes {pid_file} within {ready_within_s} s.",
                pid_file=pid_file,
                ready_within_s=f"{ready_within_s:g}",
            ),
            next_step=say(
                "check that the directory is writable and that the machine has memory and process slots left."
            ),
        )
    return int(message)


def _leave(work: Callable[[], None], pid_file: str, note: Mapping[str, Any], writing: int) -> NoReturn:
    """In the first child: fork again, run ``work`` there. Never returns: the starter's clean-up is not ours to run."""
    code = 1
    try:
        os.setsid()  # out of the session that ends with the login
        if os.fork():
            os._exit(0)  # the second child belongs to init, and can never get a terminal again
        os.chdir("/")
        os.umask(0o077)
        null = os.open(os.devnull, os.O_RDWR)
        for standard in (0, 1, 2):
            os.dup2(null, standard)
        os.dup2(writing, 3)
        for descriptor in map(int, os.listdir("/proc/self/fd")):
            if descriptor > 3:
                with contextlib.suppress(OSError):  # the descriptor of the listing itself
                    os.close(descriptor)
        writing = 3
        for ignored in (signal.SIGHUP, signal.SIGINT, signal.SIGPIPE):
            signal.signal(ignored, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        write_json(pid_file, {"pid": os.getpid(), "start_ticks": start_ticks(os.getpid()), **note})
        os.write(writing, f"{os.getpid()}\n".encode())
        os.close(writing)
        writing = -1  # the number may soon belong to a socket of the work
        work()
        code = 0
    except BaseException as failure:
        with contextlib.suppress(OSError):
            os.write(writing, f"{type(failure).__name__}: {failure}\n".encode())
    finally:
        os._exit(code)


def asked_to_end(within_s: float) -> bool:
    """Wait up to ``within_s`` seconds for the signal that asks this detached process to end."""
    return signal.sigtimedwait({signal.SIGTERM}, max(0.0, within_s)) is not None


def write_json(path: str, content: Mapping[str, Any]) -> None:
    """Replace ``path`` in one step: a reader sees the old content or the new, never half of it."""
    files.write(path, json.dumps(content, ensure_ascii=False, indent=1) + "\n", 0o600, durable=False)


def read_json(path: str) -> dict[str, Any] | None:
    """The mapping in ``path``, or None when there is none."""
    try:
        with open(path, encoding="utf-8") as file:
            content = json.load(file)
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def alive(noted: Mapping[str, Any] | None) -> bool:
    """Whether the very process that the pid file names still runs: a pid alone may have been given to another."""
    if not noted or not isinstance(noted.get("pid"), int):
        return False
    ticks = start_ticks(noted["pid"])
    return ticks is not None and ticks == noted.get("start_ticks")


def terminate(noted: Mapping[str, Any], *, within_s: float) -> bool:
    """Ask the noted process to end and wait for it. False when it had to be killed."""
    deadline = time.monotonic() + within_s
    if alive(noted):
        with contextlib.suppress(ProcessLookupError):
            os.kill(noted["pid"], signal.SIGTERM)
    while alive(noted):
        if time.monotonic() > deadline:
            with contextlib.suppress(ProcessLookupError):
                os.kill(noted["pid"], signal.SIGKILL)
            return False
        time.sleep(0.02)
    return True
