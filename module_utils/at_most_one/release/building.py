"""Make a checkout a finished release: run the commands of its build, require what a release needs, mark it.

The marker comes last. Nothing links to a release without it, and the next run goes on in it.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shlex
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import OperatorError
from ..findings import observed, say
from ..http.build_probe import require_files
from ..system import files, live_step
from ..system.app_logs import log_tail
from ..system.redaction import redact
from ..system.run_token import Guard, unguarded
from . import assets, next_build, shipping

_BUILD_ID = ".next/BUILD_ID"
_LINES = 20  # npm adds up to eight lines of its own to those of the command that failed


@dataclass(frozen=True)
class Order:
    """How to finish ``release``. One that was shipped has no ``commands``, and the ``sha256`` of its archive."""

    release: Path
    live: Path  # the application's path
    marker: Mapping[str, Any]  # what is written into the finished release; its commit tells one release from another
    needed: Sequence[str]  # paths below the release
    keep_assets_s: float
    commands: Sequence[Sequence[str]] = ()
    environment_path: str = ""
    shared: Sequence[str] = ()  # files that are not part of a digest
    with_digest: bool = False
    sha256: str | None = None


@dataclass(frozen=True)
class Made:
    """The commands that ran with their seconds; how many assets of earlier builds were copied, and left behind."""

    commands: list[dict[str, Any]] = field(default_factory=list)
    carried: int = 0
    left: int = 0


def is_finished(order: Order) -> bool:
    """Whether the release was made before, of the same commit."""
    return bool(shipping.marker(order.release).get("commit") == order.marker["commit"])


def make(order: Order, guard: Guard = unguarded) -> Made:
    """Build the release, unless it is finished. Stops with an OperatorError at the first step that fails.

    The commands run outside of ``guard``, for minutes and in a directory that nothing serves yet.
    """
    if is_finished(order):
        _require_artefacts(order)
        return Made()
    with files.created_as(order.live), _alone(order.release):
        ran = [_run(order, command) for command in order.commands]
        _require_artefacts(order)
        require_files(order.release)
        with guard([f"{order.release} built"]):
            old = assets.carry(order.live, order.release, next_build.STATIC, order.keep_assets_s, time.time())
            shipping.write_marker(order.release, _marker(order))
    return Made(ran, old.kept, old.left)


def describe(release: Path, live: Path) -> dict[str, Any]:
    """The build that the release has, with its marker."""
    return {**next_build.read(release, live).kept(), "marker": shipping.marker(release)}


@contextlib.contextmanager
def _alone(release: Path) -> Iterator[None]:
    """Hold the release for one build: that of a killed ansible-playbook goes on, and the next run comes at once."""
    with open(release / shipping.BUILD_LOCK, "a+", encoding="ascii", opener=files.open_for_owner) as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            holder = lock.read().strip()
            raise OperatorError(
                observed(
                    "AMO-4101",
                    "{release} is being built by process {holder} on this host.",
                    release=release,
                    holder=holder,
                ),
                expected=say(
                    "no other build of it: one that an earlier run has begun goes on when that run is killed."
                ),
                next_step=say(
                    "wait until it has ended (ps -p {holder}), then run the same command again. Nothing "
                    "links to this release.",
                    holder=holder,
                ),
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def _run(order: Order, command: Sequence[str]) -> dict[str, Any]:
    """Run one command in the release. What it prints goes into a file: nobody needs all of it in memory."""
    shown = redact(shlex.join(command))
    path = os.pathsep.join(part for part in (order.environment_path, os.environ.get("PATH", "")) if part)
    began = time.monotonic()
    with tempfile.NamedTemporaryFile(prefix="at-most-one-build-") as output:
        try:
            with live_step.following(output.name):
                code = subprocess.run(  # noqa: S603 (the command is the inventory's; no shell)
                    command,
                    cwd=order.release,
                    env={**os.environ, "PATH": path},
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    check=False,
                ).returncode
        except OSError as error:
            raise _failed(order, shown, say("cannot be started: {reason}", reason=error.strerror), []) from None
        if code:
            ended = (
                say("ended with exit code {code}", code=code)
                if code > 0
                else say("was ended by {signal}", signal=signal.Signals(-code).name)
            )
            raise _failed(order, shown, ended, log_tail(output.name, 0, _LINES), rc=code)
    return {"command": shown, "seconds": round(time.monotonic() - began, 1)}


def _failed(order: Order, shown: str, how: str, lines: list[str], **details: Any) -> OperatorError:
    path = f"PATH={shlex.quote(order.environment_path)}:$PATH " if order.environment_path else ""
    return OperatorError(
        observed(
            "AMO-4102",
            "The build's command `{command}` {how}{printed}.",
            command=shown,
            how=how,
            printed=": " + " | ".join(line.strip() for line in lines).rstrip(".") if lines else "",
        ),
        expected=say("exit code 0."),
        next_step=say(
            "run it by hand on that host: cd {directory} && {path}{command}; repair what it says, then the "
            "same playbook again. Nothing links to this release.",
            directory=shlex.quote(str(order.release)),
            path=path,
            command=shown,
        ),
        command=shown,
        error_lines=lines,
        **details,
    )


def _require_artefacts(order: Order) -> None:
    """Raise OperatorError when something is missing that a release needs."""
    missing = [name for name in order.needed if not (order.release / name).exists()]
    if missing:
        raise OperatorError(
            observed(
                "AMO-4104",
                "The build of {release} left no {missing}.",
                release=order.release,
                missing=", ".join(missing),
            ),
            expected=say("all that serves a release."),
            next_step=say("run prepare_build_commands by hand in that directory; nothing links to it yet."),
            missing=missing,
        )


def _marker(order: Order) -> dict[str, Any]:
    """What is written into the release: the digest of its BUILD_ID tells later whether somebody built it again.

    Raises OperatorError when a release that was shipped is not what was packed.
    """
    content = dict(order.marker)
    if order.sha256:
        shipping.require(order.release, order.sha256, order.shared)
    elif order.with_digest:
        content["digest"] = shipping.digest(order.release, order.shared)
    build_id = order.release / _BUILD_ID
    if build_id.is_file():
        content.setdefault("build_id_sha256", hashlib.sha256(build_id.read_bytes()).hexdigest())
    return content
