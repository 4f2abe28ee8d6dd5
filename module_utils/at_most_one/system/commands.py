"""A command of somebody else: run without a shell, within a deadline, and ended with everything that it has started."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from ..findings import Phrase, say
from .processes import members
from .redaction import named_secrets

_OUTPUT_LIMIT = 65_536  # bytes that are read of the output: its end
_MOST_KEPT = 64 * 2**20  # bytes of it on the disk; a looping program must not fill that
_POLL_S = 0.05
_PATIENCE_S = 3.0  # from the polite signal to the other, and from that one on


@dataclass(frozen=True)
class CommandSettings:
    """Where the commands of a tool run, what their environment has besides that of the task, and for how long."""

    path: str
    environment: Mapping[str, str]
    timeout_s: float

    @property
    def secrets(self) -> set[str]:
        """The values of the environment that have the name of a secret."""
        return named_secrets(self.environment)


@dataclass(frozen=True)
class Ended:
    """One finished command; ``returncode`` is ``None`` when it had to be ended. ``output`` may hold secrets."""

    returncode: int | None
    output: str
    seconds: float


def how(ended: Ended) -> Phrase:
    """How it ended, behind the name of the command."""
    if ended.returncode is None:
        return say("did not end within {seconds} s and was stopped", seconds=ended.seconds)
    return say("ended with exit code {returncode}", returncode=ended.returncode)


def said(ended: Ended) -> Phrase:
    """The end of its output, which must be masked: there tools name what went wrong, below their traces."""
    lines = [line.strip()[:200] for line in ended.output.splitlines() if line.strip()][-3:]
    return say(" It said: {lines}", lines=" | ".join(lines)) if lines else say(" It said nothing.")


def _unguarded(_over: Callable[[], bool], _end: Callable[[], None]) -> AbstractContextManager[None]:
    return contextlib.nullcontext()


def run(
    arguments: Sequence[str],
    directory: str | Path,
    environment: Mapping[str, str],
    timeout_s: float,
    *,
    meanwhile: Callable[[], None] = lambda: None,
    cut_short: Callable[[], None] = lambda: None,
    guarded: Callable[[Callable[[], bool], Callable[[], None]], AbstractContextManager[None]] = _unguarded,
) -> Ended:
    """Run it with this environment and no input; its two outputs are one.

    ``meanwhile`` is called about twenty times a second, ``cut_short`` once the command had to be ended, whatever the
    reason. ``guarded`` is entered while it runs, with what tells whether it does and what ends it. Raises OSError when
    it cannot be started.
    """
    started = time.monotonic()
    with tempfile.TemporaryFile() as output:
        child = subprocess.Popen(  # noqa: S603  (an argument list, no shell)
            list(arguments),
            cwd=directory,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            with guarded(lambda: child.poll() is None, lambda: _end(child)):
                while child.poll() is None and time.monotonic() - started < timeout_s:
                    meanwhile()
                    _shorten(output)
                    time.sleep(_POLL_S)
                returncode = child.poll()
        finally:
            alive = child.poll() is None
            _end(child)
            if alive:
                cut_short()
        output.seek(max(0, output.seek(0, os.SEEK_END) - _OUTPUT_LIMIT))
        text = output.read().lstrip(b"\0").decode(errors="replace")
    return Ended(returncode, text, round(time.monotonic() - started, 1))


def _shorten(output: IO[bytes]) -> None:
    """Give back the disk of what nobody will read. What the program prints from here on lies behind it, as before."""
    if os.fstat(output.fileno()).st_blocks * 512 > _MOST_KEPT:
        os.ftruncate(output.fileno(), 0)


def _end(child: subprocess.Popen[bytes]) -> None:
    """End a command that has not ended by itself. One that has may have left a server behind, as it was to."""
    if child.poll() is None:
        end_group(child, _PATIENCE_S)


def end_group(leader: subprocess.Popen[bytes], patience_s: float) -> None:
    """End a process that leads its session and what it has started there: politely, then by force what is left.

    A shell ends as soon as it is told to, and the program that it has started may go on.
    """
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(leader.pid, number)
        deadline = time.monotonic() + patience_s
        while leader.poll() is None or members(leader.pid):
            if time.monotonic() >= deadline:
                break
            time.sleep(_POLL_S)
        else:
            return
