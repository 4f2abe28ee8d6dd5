"""Does a release boot at all? Asked of a process of its own, on its own port, before anything that serves is touched.

A Next.js worker listens before it has loaded the application, and in PM2's cluster mode a worker that listens gets
requests: what crashes while it loads loses them, on every restart. So users must not meet the first boot of a release.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn
from urllib.parse import urlsplit, urlunsplit

from ..errors import OperatorError
from ..findings import observed, say
from ..http.build_probe import Asker, broken_assets, origin_of, require_files
from ..http.client import NoAnswer
from ..http.served_build import Probe, ask
from ..system.app_logs import log_tail
from ..system.commands import end_group

_POLL_S = 0.1
_GRACE_S = 10.0  # from SIGTERM to SIGKILL
_LAST_WORDS_S = 1.0  # from an answer that was cut off to the end of its process


@dataclass(frozen=True)
class Boot:
    """One trial: where, which command (``{port}`` stands for the port), how to ask, for how long (seconds)."""

    release: Path
    command: tuple[str, ...]
    probe: Probe
    timeout_s: float
    stable_s: float = 0.0  # how long it has to live on, and to answer well, after its first good answer
    environment_path: str | None = None
    log_lines: int = 12


def check(boot: Boot) -> float:
    """Start the release, wait for a good answer with the right build, ask for what its first page loads, see it last,
    end it. Returns the seconds until the answer.

    Raises OperatorError with the last lines that the process wrote when it ends, stays silent, names another build or
    has a page whose scripts or styles are not served. Another build is decided at once: a process does not change the
    build it was started from.
    """
    require_files(boot.release)
    port = _free_port()
    probe = replace(boot.probe, url=_at(boot.probe.url, port), pid_header=None)
    began = time.monotonic()
    with tempfile.NamedTemporaryFile(prefix="at-most-one-boot-") as log:
        process = _start(boot, port, log.name)
        seen: str = say("it gave no answer")
        try:
            while time.monotonic() - began < boot.timeout_s:
                if process.poll() is not None:
                    _stop(boot, say("it ended with exit code {returncode}", returncode=process.returncode), log.name)
                reply = ask(probe)
                # Nobody else answers here: a page that names no build is none of another one.
                silent = probe.own is not None and probe.own.file is None and reply.build is None
                if reply.problem is None and (probe.build is None or reply.build == probe.build or silent):
                    answered = time.monotonic() - began
                    _require_assets(boot, probe, process, log.name)
                    _last(boot, probe, process, log.name)
                    return round(answered, 3)
                if reply.problem is None and reply.build:
                    _stop(boot, say("it names build {build}", build=reply.build), log.name)
                seen = reply.problem or say("it names no build")
                time.sleep(_POLL_S)
            _stop(boot, say("after {timeout_s} s, {seen}", timeout_s=f"{boot.timeout_s:g}", seen=seen), log.name)
        finally:
            end_group(process, _GRACE_S)  # what outlives its parent would keep the port and the database


def _require_assets(boot: Boot, probe: Probe, process: subprocess.Popen[bytes], log: str) -> None:
    """Stop when the first page names a script or a style that is not served: users would meet a dead page."""
    try:
        with (
            Asker(origin_of(probe.url), timeout_s=boot.timeout_s) as asker,
            Asker(origin_of(boot.probe.url), timeout_s=boot.timeout_s) as live,
        ):
            broken = broken_assets(asker, boot.release, live)
    except NoAnswer as failure:
        code = _ended(process, _LAST_WORDS_S)
        ended = say(
            "it answered and then ended with exit code {code}, within {stable_s} s",
            code=code,
            stable_s=f"{boot.stable_s:g}",
        )
        _stop(
            boot,
            ended
            if code is not None
            else say("its health answered, its first page did not: {failure}", failure=failure),
            log,
        )
    if broken:
        more = say(" and {count} more", count=len(broken) - 3) if len(broken) > 3 else ""
        raise OperatorError(
            observed(
                "AMO-4120",
                "The first page of {release} loads what the release does not serve: {broken}{more}.",
                release=boot.release,
                broken=", ".join(broken[:3]),
                more=more,
            ),
            expected=say("200 for each script and style that the page names, from the release's own build."),
            next_step=say(
                "rm -rf {release}, then deploy again: it is built anew. Nothing that serves was touched.",
                release=boot.release,
            ),
            broken=broken,
        )


def _last(boot: Boot, probe: Probe, process: subprocess.Popen[bytes], log: str) -> None:
    """Go on asking, and stop if it ends or answers badly soon after its first answer: an instance that does so takes
    the requests that it is at with it. Some load the application only with the first request."""
    until = time.monotonic() + boot.stable_s
    while (left := until - time.monotonic()) > 0:
        problem = None
        if (code := _ended(process, min(_POLL_S, left))) is None and (problem := ask(probe).problem):
            code = _ended(process, _LAST_WORDS_S)
        if code is not None:
            _stop(
                boot,
                say(
                    "it answered and then ended with exit code {code}, within {stable_s} s",
                    code=code,
                    stable_s=f"{boot.stable_s:g}",
                ),
                log,
            )
        if problem:
            _stop(
                boot,
                say(
                    "it answered, and within {stable_s} s no more: {problem}",
                    stable_s=f"{boot.stable_s:g}",
                    problem=problem,
                ),
                log,
            )


def _ended(process: subprocess.Popen[bytes], patience_s: float) -> int | None:
    """Its exit code, if it ends within this time."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        return process.wait(patience_s)
    return None


def _start(boot: Boot, port: int, log: str) -> subprocess.Popen[bytes]:
    search = os.pathsep.join(part for part in (boot.environment_path, os.environ.get("PATH")) if part)
    environment = {**os.environ, "PATH": search, "PORT": str(port), "NODE_ENV": "production"}
    command = [part.replace("{port}", str(port)) for part in boot.command]
    with open(log, "wb") as output:
        return subprocess.Popen(  # noqa: S603  (the command is the inventory's; no shell)
            command,
            cwd=boot.release,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # so that its children end with it
        )


def _stop(boot: Boot, seen: str, log: str) -> NoReturn:
    lines = log_tail(log, 0, boot.log_lines)
    build = say(" of build {build}", build=boot.probe.build) if boot.probe.build else ""
    raise OperatorError(
        observed(
            "AMO-4121",
            "Release {release} does not boot: {seen}.{wrote}",
            release=boot.release,
            seen=seen,
            wrote=say(" It wrote: {lines}", lines=" | ".join(lines)) if lines else "",
        ),
        expected=say("a good answer{build} within {timeout_s} s.", build=build, timeout_s=f"{boot.timeout_s:g}"),
        next_step=say("nothing that serves was touched; correct what it names, or start it by hand in that directory."),
        error_lines=lines,
    )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _at(url: str, port: int) -> str:
    """The same path and query at the trial's own port on this host."""
    parts = urlsplit(url)
    return urlunsplit(("http", f"127.0.0.1:{port}", parts.path, parts.query, ""))


def command_of(parts: Sequence[str]) -> tuple[str, ...]:
    """The command as a tuple; raises OperatorError when nothing in it says where the port goes."""
    if not any("{port}" in part for part in parts):
        raise OperatorError(
            observed("AMO-4123", "app_boot_command has no {{port}}: {parts}.", parts=" ".join(parts)),
            expected=say("a command with {{port}} where the port goes, or an empty list for no trial."),
            next_step=say("correct app_boot_command in the inventory."),
        )
    return tuple(parts)
