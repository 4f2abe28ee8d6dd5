"""The number of the last run that wrote on a host: a run that another one has overtaken writes nothing more.

A controller may be frozen, or a machine suspended, while the next run takes over and deploys. Once it goes on, it does
not know. So the number of the run, which grows with each, stands beside the releases, and whoever writes on the host
compares it with its own right before, under a lock that lasts until it has written.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from ..errors import OperatorError
from ..findings import joined, observed, say
from . import files
from .processes import is_stopped

_FILE = ".run.json"
_LOCK = ".run.lock"
# Longer than PM2 may take for one instance: what a killed controller has begun goes on, and the next run comes at once.
_WAIT_S = 150.0

# Begins to write on this host, and refuses it to a run that was overtaken; it is told what the call has changed so far.
Guard = Callable[[Sequence[str]], "contextlib.AbstractContextManager[None]"]


def unguarded(changed: Sequence[str]) -> contextlib.AbstractContextManager[None]:
    """The :data:`Guard` of who writes without a run."""
    return contextlib.nullcontext()


@dataclass(frozen=True)
class Token:
    """What is written down of a run."""

    number: int
    run_id: str
    written_at: str


@dataclass(frozen=True)
class Run:
    """A run as a host knows it; ``directory``: of the releases, where the token is."""

    id: str
    number: int
    directory: Path


def read(directory: Path) -> Token | None:
    """The token; None where no run has written yet. Raises OperatorError when it cannot be read."""
    path = directory / _FILE
    try:
        content = json.loads(path.read_bytes())
        token = Token(content["number"], content["run_id"], content["written_at"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _unreadable(path, f"{type(error).__name__}: {error}") from error
    if type(token.number) is not int or not isinstance(token.run_id, str):
        raise _unreadable(path, say("its number is no number, or its run_id no text"))
    return token


def last_number(directory: Path) -> int:
    """The number of the last run that wrote on this host, 0 where none has."""
    token = read(directory)
    return token.number if token else 0


def guard(run: Run, *, check: bool = False, wait_s: float = _WAIT_S) -> Guard:
    """The :data:`Guard` of ``run``. In check mode the token is read, and nothing is written or locked.

    It raises OperatorError when a later run has written on this host, when another one is writing all the time, and
    when the token cannot be read.
    """

    @contextlib.contextmanager
    def writing(changed: Sequence[str]) -> Iterator[None]:
        if check:
            _require_last(run, changed)
            yield
            return
        files.directory(run.directory, 0o755)  # of the releases, which a web server reads
        with _locked(run, changed, wait_s):
            if _require_last(run, changed) != run.number:
                now = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
                token = {"number": run.number, "run_id": run.id, "written_at": now}
                files.write(run.directory / _FILE, json.dumps(token) + "\n", 0o644)
            yield

    return writing


def _require_last(run: Run, changed: Sequence[str]) -> int:
    """Raise OperatorError when a later run has written here. The number that stands there, 0 for none."""
    token = read(run.directory)
    if token is None or (token.number, token.run_id) == (run.number, run.id) or token.number < run.number:
        return token.number if token else 0
    raise OperatorError(
        observed(
            "AMO-1102",
            "Run {run_id} (number {number}) was overtaken by run {later_run} (number {later_number}), which has "
            "written on this host since {written_at}. Nothing was written; {words}.",
            run_id=run.id,
            number=run.number,
            later_run=token.run_id,
            later_number=token.number,
            written_at=token.written_at,
            words=_words(changed),
        ),
        expected=say("no later run on this host."),
        next_step=say(
            "leave this run: what serves is the later run's. `ansible-playbook history.yml -l "
            "<environment>` shows what became of both; start again if something is still to be "
            "deployed."
        ),
        overtaken_by=token.run_id,
        numbers=[run.number, token.number],
        changed=[str(one) for one in changed],
        changed_words=joined(changed, ", ").as_data() if changed else None,
    )


@contextlib.contextmanager
def _locked(run: Run, changed: Sequence[str], wait_s: float) -> Iterator[None]:
    """Hold the host for one write. A process that has it and is stopped is not waited for: nobody knows for how long.

    The file is kept apart from the token, which is replaced; it says who holds it.
    """
    with open(run.directory / _LOCK, "a+", encoding="utf-8", opener=files.open_for_owner) as lock:
        deadline = time.monotonic() + wait_s
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                _require_patience(lock.name, run, changed, deadline)
        lock.truncate(0)
        lock.write(f"{os.getpid()} {run.id}")
        lock.flush()
        yield


def _require_patience(path: str, run: Run, changed: Sequence[str], deadline: float) -> None:
    """Wait a moment. Raise OperatorError once waiting is no use."""
    pid, holder = [*Path(path).read_text(encoding="utf-8").split(" ", 1), "", ""][:2]
    stopped = pid.isdigit() and is_stopped(int(pid))
    if not stopped and time.monotonic() < deadline:
        time.sleep(0.05)
        return
    raise OperatorError(
        observed(
            "AMO-1103",
            "Process {pid} of run {holder} is writing on this host{frozen}. Run {run_id} has written "
            "nothing here meanwhile; {words}.",
            pid=pid or say("unknown"),
            holder=holder or say("unknown"),
            frozen=say(" and is frozen (stopped by a signal)") if stopped else "",
            run_id=run.id,
            words=_words(changed),
        ),
        expected=say("one run at a time that writes on a host."),
        next_step=say(
            "look at it: ps -p {pid} -o pid,stat,lstart,args; if its run is dead, kill -KILL {pid}, "
            "then the same command again.",
            pid=pid or "PID",
        ),
        holder={"pid": pid, "run_id": holder, "stopped": stopped},
    )


def _words(changed: Sequence[str]) -> str:
    return say("this call had changed before: {changed}", changed=joined(changed, ", ") if changed else say("nothing"))


def _unreadable(path: Path, why: str) -> OperatorError:
    return OperatorError(
        observed("AMO-1104", "{path} does not say which run wrote on this host last ({why}).", path=path, why=why),
        expected=say(
            'a file as {{"number": 42, "run_id": "...", "written_at": "..."}} that this account can read, or none.'
        ),
        next_step=say(
            "make sure by `ansible-playbook history.yml -l <environment>` that no run is at work, "
            "then remove the file: rm {path}; the next run writes it. Nothing was written.",
            path=path,
        ),
    )
