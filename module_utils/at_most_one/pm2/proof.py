"""Whether an instance really runs the new code: pid, directory, stability and its own answers, never PM2's tick."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from typing import Any

from ..findings import say
from ..http.proof import Demand, Unproven, hear
from ..system.app_logs import log_tail
from ..system.processes import is_within, start_ticks, stays, up_for, working_directory
from .bus import Overheard
from .client import Instance, Listing, Pm2, listing

_POLL_S = 0.2
_WRONG_DIRECTORY_FOR_S = 2.0  # a worker starts in its daemon's directory and changes to its own before the app loads
_LINES = 20  # of what a failed instance has logged
_EXTRA_RESTARTS = 3  # granted to an instance that was already restarting by itself
_AFTER_ANSWER_S = 1.0  # it lives on after its first answer: some load the application only with the first request


def prove(
    pm2: Pm2, demand: Demand, before: Instance, instances: int, *, steady: bool = False
) -> tuple[Instance, Listing]:
    """Wait until the instance that was ``before`` is provably new; return it and the whole list. Raises Unproven.

    ``steady``: whether it was, as :func:`is_steady` has found before the reload.
    """
    # A steady instance restarts once, by this reload. One that was restarting by itself may do so a few times more.
    most_restarts = before.restarts + 1 + (0 if steady else _EXTRA_RESTARTS)
    deadline = time.monotonic() + demand.instance_timeout_s
    known: tuple[int, int | None] = (0, None)
    since = time.monotonic()
    reason = Unproven("no_new_process", say("PM2 never showed a new process"))
    while time.monotonic() < deadline:
        now, _ = _one(pm2, demand.name, before.pm_id)
        if now.restarts > most_restarts or now.status in ("errored", "stopped"):
            raise Unproven(
                "crashed",
                say(
                    "{restarts} restarts since, status {status}",
                    restarts=now.restarts - before.restarts,
                    status=now.status,
                ),
            )
        ticks = start_ticks(now.pid) if now.pid else None
        if (now.pid, ticks) != known:
            known, since = (now.pid, ticks), time.monotonic()
        if not now.online or ticks is None or now.pid == before.pid:
            reason = Unproven(
                "no_new_process",
                say("pid {pid}, before {before}; status {status}", pid=now.pid, before=before.pid, status=now.status),
            )
        elif demand.release_path and not is_within(cwd := working_directory(now.pid), demand.release_path):
            reason = Unproven(
                "wrong_directory",
                say(
                    "pid {pid} works in {cwd}, not in {release_path}",
                    pid=now.pid,
                    cwd=cwd,
                    release_path=demand.release_path,
                ),
            )
            if time.monotonic() - since > _WRONG_DIRECTORY_FOR_S:
                raise reason
        else:
            try:
                if demand.probe:
                    hear(demand.probe, now.pid, instances, deadline)
            except Unproven as unproven:
                if unproven.cause == "wrong_build":
                    raise
                reason = unproven
            else:
                # It has been up while PM2 waited for "ready" as well: what counts is how long ago it started.
                left_s = max(demand.stable_s - up_for(ticks), min(_AFTER_ANSWER_S, demand.stable_s))
                if stays(now.pid, ticks, time.monotonic() + left_s):
                    again, listed = _one(pm2, demand.name, before.pm_id)
                    if (again.pid, again.restarts, again.online) == (now.pid, now.restarts, True):
                        return again, listed
                reason = Unproven(
                    "crashed",
                    say("pid {pid} did not stay up for {stable_s} s", pid=now.pid, stable_s=f"{demand.stable_s:g}"),
                )
                continue
        time.sleep(_POLL_S)
    raise reason


def _one(pm2: Pm2, name: str, pm_id: int) -> tuple[Instance, Listing]:
    listed = listing(pm2, name)
    for instance in listed.instances:
        if instance.pm_id == pm_id:
            return instance, listed
    raise Unproven("no_new_process", say("PM2 no longer lists instance {pm_id} of {name}", pm_id=pm_id, name=name))


def is_steady(demand: Demand, instance: Instance) -> bool:
    """Whether it has been up for long enough, by the kernel: the clock, and with it PM2's time, may have been set."""
    ticks = start_ticks(instance.pid) if instance.online else None
    return ticks is not None and up_for(ticks) >= demand.stable_s


def already_proven(demand: Demand, instance: Instance, instances: int) -> bool:
    """Whether this instance needs no reload: up for long enough, in the right directory, with the right answers."""
    if not is_steady(demand, instance) or (
        demand.release_path and not is_within(working_directory(instance.pid), demand.release_path)
    ):
        return False
    try:
        if demand.probe:
            hear(demand.probe, instance.pid, instances, time.monotonic() + demand.instance_timeout_s)
    except Unproven:
        return False
    return True


def error_lines(pm2: Pm2, name: str, instance: Instance, heard: Overheard, offsets: dict[str, int]) -> list[str]:
    """What the instance said of its failure: overheard, or in its logs since, or what PM2's own log says of it."""
    daemon_log = os.path.join(pm2.home, "pm2.log")
    sources: Iterable[Callable[[], list[str]]] = (
        lambda: heard.lines(instance.pm_id, _LINES),
        lambda: log_tail(instance.err_log, offsets.get(instance.err_log, 0), _LINES),
        lambda: log_tail(instance.out_log, offsets.get(instance.out_log, 0), _LINES),
        lambda: [
            line
            for line in log_tail(daemon_log, offsets.get(daemon_log, 0), 1000)
            if f"[{name}:{instance.pm_id}]" in line
        ][-_LINES:],
    )
    return next((found for source in sources if (found := source())), [])


def as_result(before: Instance, after: Instance | None) -> dict[str, Any]:
    """One line of the reload's report."""
    return {"pm_id": before.pm_id, "old_pid": before.pid, "new_pid": after.pid if after else None}
