"""Whether a unit really runs the new code: process, directory, stability and its own answers, never systemctl's 0."""

from __future__ import annotations

import time
from typing import Any

from ..findings import say
from ..http.proof import Demand, Unproven, hear
from ..http.served_build import ask
from ..system.processes import stays, up_for, working_directory
from .client import State, Systemd, state

_POLL_S = 0.2
_WRONG_DIRECTORY_FOR_S = 2.0  # systemd calls a simple service active before it has changed to its directory
_AFTER_ANSWER_S = 1.0  # it lives on after its first answer: some load the application only with the first request
_QUESTIONS = 3  # to a unit that serves: one of them may meet a moment in which it is busy


def prove(systemd: Systemd, demand: Demand, before: State) -> State:
    """Wait until the unit that was ``before`` is provably new; return it. Raises Unproven.

    Its first new process has to be the one that stays: one that systemd has to start again has crashed.
    """
    deadline = time.monotonic() + demand.instance_timeout_s
    first: tuple[int, int | None] | None = None
    since = time.monotonic()
    reason = Unproven("no_new_process", say("systemd never showed a new process"))
    while time.monotonic() < deadline:
        now = state(systemd, before.unit)
        is_new = now.online and now.process != before.process
        ended = first is not None and now.process != first
        if now.active == "failed" or now.sub.startswith("auto-restart") or ended:
            raise Unproven("crashed", say("systemd says {active} ({sub})", active=now.active, sub=now.sub))
        if not is_new or now.ticks is None:
            reason = Unproven(
                "no_new_process",
                say(
                    "pid {pid}, before {before}; status {status}",
                    pid=now.pid,
                    before=before.pid,
                    status=f"{now.active} ({now.sub})",
                ),
            )
            time.sleep(_POLL_S)
            continue
        if first is None:
            first, since = now.process, time.monotonic()
        try:
            _require(demand, now, deadline)
        except Unproven as unproven:
            if unproven.cause == "wrong_build" or (
                unproven.cause == "wrong_directory" and time.monotonic() - since > _WRONG_DIRECTORY_FOR_S
            ):
                raise
            reason = unproven
            time.sleep(_POLL_S)
            continue
        # What counts is how long ago it started: systemd may have waited for it to say that it is ready.
        left_s = max(demand.stable_s - up_for(now.ticks), min(_AFTER_ANSWER_S, demand.stable_s))
        if stays(now.pid, now.ticks, time.monotonic() + left_s):
            again = state(systemd, before.unit)
            if again.online and again.process == now.process:
                return again
        raise Unproven(
            "crashed",
            say("pid {pid} did not stay up for {stable_s} s", pid=now.pid, stable_s=f"{demand.stable_s:g}"),
        )
    raise reason


def already_proven(demand: Demand, found: State) -> bool:
    """Whether this unit needs no restart: up for long enough, in the right directory, with the right answers."""
    if not found.online or found.ticks is None or up_for(found.ticks) < demand.stable_s:
        return False
    try:
        _require(demand, found, time.monotonic() + demand.instance_timeout_s)
    except Unproven:
        return False
    return True


def serves(demand: Demand, found: State) -> bool:
    """Whether the unit answers well at its own address, whatever its release."""
    if not found.online or demand.probe is None:
        return found.online
    for question in range(_QUESTIONS):
        if question:
            time.sleep(_POLL_S)
        if ask(demand.probe).problem is None:
            return True
    return False


def _require(demand: Demand, found: State, until: float) -> None:
    """Raise Unproven unless the process works in the release, and answers by itself with its build."""
    directory = working_directory(found.pid)
    if demand.release_path and directory != demand.release_path:
        raise Unproven(
            "wrong_directory",
            say(
                "pid {pid} works in {cwd}, not in {release_path}",
                pid=found.pid,
                cwd=directory,
                release_path=demand.release_path,
            ),
        )
    if demand.probe:
        hear(demand.probe, found.pid, 1, until)


def as_result(before: State, after: State | None) -> dict[str, Any]:
    """One line of the report. A unit's name stands where PM2 has a number."""
    return {"pm_id": before.name, "old_pid": before.pid, "new_pid": after.pid if after else None}
