"""How far the open run of a plan is, how fast it goes, what it waits for and since when, by its journal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from psycopg2.extras import RealDictCursor

from ..postgres.connection import Connection
from ..postgres.own_schema import exists, missing
from ..verdicts import PHASES
from . import requests
from .requests import Request
from .run_status import dead_since

# Through jsonb, because a journal that was only read so far may not have every column yet.
_RUN = """
SELECT r.run_id, r.plan_id, r.environment, r.who, r.controller, r.controller_pid, r.controller_process, r.outcome,
       to_char(r.started_at, 'YYYY-MM-DD"T"HH24:MI:SS"Z"') AS started_at,
       to_char(r.finished_at, 'YYYY-MM-DD"T"HH24:MI:SS"Z"') AS finished_at,
       to_char(r.lease_until, 'YYYY-MM-DD"T"HH24:MI:SS"Z"') AS lease_until,
       to_char(r.lease_until - r.lease, 'YYYY-MM-DD"T"HH24:MI:SS"Z"') AS last_sign_at,
       r.lease_until < clock_timestamp() AS lease_expired,
       extract(epoch FROM coalesce(r.finished_at, clock_timestamp()) - r.started_at)::integer AS seconds,
       to_jsonb(r) -> 'progress' AS progress,
       extract(epoch FROM clock_timestamp() - (to_jsonb(r) #>> '{progress,waiting,since}')::timestamptz)::integer
           AS waiting_s,
       (SELECT s.phase FROM at_most_one.step AS s WHERE s.run_id = r.run_id AND s.status = 'failed'
        ORDER BY s.position LIMIT 1) AS failed_phase,
       coalesce((SELECT jsonb_agg(s.phase ORDER BY s.position) FROM at_most_one.step AS s WHERE s.run_id = r.run_id),
           '[]') AS finished
FROM at_most_one.run AS r WHERE r.plan_id = %s
ORDER BY r.finished_at IS NOT NULL, (to_jsonb(r) ->> 'number')::bigint DESC NULLS LAST, r.started_at DESC LIMIT 1"""


def read(connection: Connection, plan_id: str) -> dict[str, Any]:
    """The open run of the plan as :func:`describe` has it, or how the last one ended; empty where there was none."""
    if not exists(connection):
        return {}
    with connection.cursor(cursor_factory=RealDictCursor) as cursor:
        cursor.execute(_RUN, (plan_id,))
        run = next((dict(row) for row in cursor.fetchall()), None)
    if run is None:
        return {}
    asked = [] if missing(connection) else requests.read(connection, run["run_id"])
    return {**describe(run, asked), "dead_since": dead_since(run)}


def describe(run: Mapping[str, Any], asked: Sequence[Request]) -> dict[str, Any]:
    """What a person wants to know of a run, from its row.

    ``done``, ``total``, ``rate_per_s`` and ``left_s`` are null where the phase has no steps, or nobody can know yet.
    """
    progress = run["progress"] or {}
    is_open, in_force = run["outcome"] is None, requests.in_force(asked)
    phase = (run["failed_phase"] or phase_of(progress.get("phase"), run["finished"])) if is_open else None
    # Migrate may call the clean-up once more: a run that waits there waits, whatever the phase.
    is_noted = phase == progress.get("phase") or bool(progress.get("waiting"))
    steps = progress if is_open and is_noted and not run["failed_phase"] else {}
    waiting = steps.get("waiting")
    hosts = steps.get("unit") == "hosts"
    if hosts and not waiting and not steps.get("done"):
        steps = {}  # noted before the first host, and with one batch never again
    by = getattr(in_force, waiting["for"], None) if waiting else None
    kept = ("run_id", "plan_id", "environment", "who", "controller", "started_at", "finished_at", "outcome")
    return {
        **{name: run[name] for name in (*kept, "failed_phase", "seconds", "lease_until")},
        "is_open": is_open,
        "reads_requests": run["progress"] is not None,
        "phase": phase,
        **{name: steps.get(name) for name in ("unit", "done", "total", "at")},
        **rate({} if hosts else steps),  # what is noted of them is the moment before a batch, and no pace
        "waiting": {
            **waiting,
            "seconds": run["waiting_s"],
            "asked_by": asdict(by) if by else None,
            "lifted_by": requests.LIFTED_BY[waiting["for"]],
        }
        if waiting
        else None,
        "requests": [{**asdict(one), "in_force": is_open and one in in_force.each()} for one in asked],
    }


def phase_of(noted: str | None, finished: Sequence[str]) -> str:
    """The phase that is at work: the one after the last that was recorded, or a later one that has noted its steps."""
    last = max((PHASES.index(name) for name in finished if name in PHASES), default=-1)
    begun = PHASES.index(noted) if noted in PHASES else 0
    return PHASES[min(max(last + 1, begun), len(PHASES) - 1)]


def rate(steps: Mapping[str, Any]) -> dict[str, float | None]:
    """Steps for each second of work, and the seconds of the rest at that rate. Time that was waited does not count."""
    done, total, seconds = (steps.get(name) or 0 for name in ("done", "total", "seconds"))
    if not done or seconds <= 0:
        return {"rate_per_s": None, "left_s": None}
    rate_per_s = done / seconds
    return {"rate_per_s": round(rate_per_s, 1), "left_s": round((total - done) / rate_per_s)}
