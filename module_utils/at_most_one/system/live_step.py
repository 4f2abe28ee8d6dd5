"""What a module is at, for the line that ansible-playbook shows on the same machine while it waits for the answer.

Ansible has a module's answer once it has ended. So the callback of ansible-playbook holds a record in memory, and names
it in its environment: a module on this machine inherits the name, one behind ssh or sudo does not, and says nothing.
Whoever works in steps writes into it, the callback alone reads it, and it ends with ansible-playbook. Nothing that goes
wrong here is noticed by a run.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import Iterator
from typing import Any

from .app_logs import log_tail

NAME = "AT_MOST_ONE_LIVE_STEP"
_SIZE = 2_048  # bytes of the record: each text of it is written over the whole one before
_LONGEST = 200  # letters of a detail, each at most six bytes there
_EVERY_S = 1.0

_place = ""  # the record's path, once it was taken
_step: dict[str, Any] = {}


class Record:
    """The callback's side."""

    def __init__(self) -> None:
        self._descriptor = -1
        with contextlib.suppress(AttributeError, OSError):  # not on Linux: then nobody is told
            self._descriptor = os.memfd_create("at-most-one live step")
            os.environ[NAME] = f"/proc/{os.getpid()}/fd/{self._descriptor}"

    def read(self) -> dict[str, Any]:
        """What a module has written last: a text of another program. Empty before, and where it is half a text."""
        found: Any = None
        with contextlib.suppress(OSError, ValueError, RecursionError):
            found = json.loads(os.pread(self._descriptor, _SIZE, 0))
        return found if isinstance(found, dict) else {}

    def clear(self) -> None:
        """Another task begins."""
        with contextlib.suppress(OSError):
            os.pwrite(self._descriptor, b" " * _SIZE, 0)


def take() -> None:
    """Take the record's name out of the environment, before a program is started that would inherit it."""
    global _place
    _place = os.environ.pop(NAME, "")
    _step.clear()


def is_watched() -> bool:
    """Whether somebody reads it: what costs a question to learn is not asked otherwise."""
    return bool(_place)


def steps(unit: str, done: int, total: int, waits_for: str = "") -> None:
    """So many are done; ``waits_for`` is the action of control.yml by which a run that waits goes on."""
    _step.clear()
    _step.update({"unit": unit, "done": done, "total": total, "waits_for": waits_for})
    _write()


def detail(text: str) -> None:
    """What is done within a step, in words that hold no secret."""
    _step["detail"] = text[:_LONGEST]
    _write()


@contextlib.contextmanager
def following(path: str, *, every_s: float = _EVERY_S) -> Iterator[None]:
    """Tell the last line that another program has written to the file, without secrets, while the block lasts."""
    if not _place:
        yield
        return
    ended = threading.Event()

    def follow() -> None:
        while not ended.wait(every_s):
            for line in log_tail(path, 0, 1):
                detail(line.strip())

    thread = threading.Thread(target=follow, name="at-most-one live step", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _write() -> None:
    if not _place:
        return
    data = json.dumps(_step).encode()
    with contextlib.suppress(OSError):
        descriptor = os.open(_place, os.O_WRONLY)
        try:
            os.pwrite(descriptor, data.ljust(_SIZE)[:_SIZE], 0)
        finally:
            os.close(descriptor)
