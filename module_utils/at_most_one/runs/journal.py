"""The journal: who deployed which plan, when, from which commit to which, what came out; and the lock of a deploy.

The lock is our own "at most one": a partial unique index allows one unfinished run per plan. Its holder renews a lease
with each step. A dead holder's run is closed as ``abandoned`` by the next start, which then reads the database, not a
file, to see where to go on. All times are the database's.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import psycopg2
import psycopg2.errors
from psycopg2.extras import RealDictCursor

from ..errors import OperatorError
from ..findings import observed, say
from ..plan import Plan
from ..postgres import publications, server_identity
from ..postgres.connection import Connection, Hold, Login, connect, unheld
from ..postgres.own_schema import ensure, exists, missing
from ..verdicts import word
from . import requests, run_error
from .controllers import Controller
from .run_status import dead_since, why_dead

_HOLDER = """
SELECT r.run_id, r.plan_id, r.who, r.environment, r.controller, r.controller_pid, r.controller_process,
       to_char(r.started_at, 'YYYY-MM-DD"T"HH24:MI:SS"Z"') AS since,
       to_char(r.lease_until, 'YYYY-MM-DD"T"HH24:MI:SS"Z"') AS lease_until,
       extract(epoch FROM clock_timestamp() - r.started_at)::integer AS age_s,
       r.lease_until < clock_timestamp() AS lease_expired,
       (SELECT s.phase FROM at_most_one.step s WHERE s.run_id = r.run_id ORDER BY s.position DESC LIMIT 1) AS phase
FROM at_most_one.run r
WHERE r.plan_id = %s AND r.finished_at IS NULL
"""
# In the order in which they were opened, by their numbers: a clock may be set back, and a promoted standby has another.
# A journal that was only read so far may not have that column yet; then the name means the one of without_numbers.
_RUNS = """
SELECT r.run_id, r.plan_id, r.plan_sha256, r.environment, r.who, r.controller, r.controller_pid, r.commit_before,
       r.commit_after, r.outcome, r.failed_phase, r.error, r.report, r.taken_over_by,
       to_char(r.started_at, 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"') AS started_at,
       to_char(r.finished_at, 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"') AS finished_at,
       to_char(r.lease_until, 'YYYY-MM-DD"T"HH24:MI:SS"Z"') AS lease_until, r.controller_process,
       to_char(r.lease_until - r.lease, 'YYYY-MM-DD"T"HH24:MI:SS"Z"') AS last_sign_at,
       r.lease_until < clock_timestamp() AS lease_expired,
       round(extract(epoch FROM coalesce(r.finished_at, clock_timestamp()) - r.started_at)::numeric, 3)::float8
           AS seconds,
       coalesce((
           SELECT jsonb_agg(jsonb_build_object(
                      'name', s.phase, 'status', s.status, 'details', s.details, 'seconds',
                      round(extract(epoch FROM s.finished_at - s.started_at)::numeric, 3)) ORDER BY s.position)
           FROM at_most_one.step s WHERE s.run_id = r.run_id), '[]') AS phases
FROM (SELECT NULL::bigint AS number) AS without_numbers
CROSS JOIN LATERAL (SELECT run.*, number AS place FROM at_most_one.run) AS r
WHERE (%(run_id)s::text IS NULL OR r.run_id = %(run_id)s) AND (%(plan_id)s::text IS NULL OR r.plan_id = %(plan_id)s)
ORDER BY r.place DESC NULLS LAST, r.started_at DESC, r.run_id DESC
LIMIT %(limit)s
"""


# A long step renews it once a minute, on a connection that may wait ten seconds; the reload and the health check ask no
# database at all, and a shorter one would end under a run that is at work.
SHORTEST_LEASE_MINUTES = 5


@dataclass(frozen=True)
class Opening:
    """Everything that is known about a run when it starts."""

    plan: Plan
    environment: str
    who: str
    controller: Controller
    commit_before: str | None = None
    commit_after: str | None = None
    lease_minutes: int = 30
    above: int = 0  # the highest number that a host knows: a journal that was restored may not know it
    before: Mapping[str, Any] | None = None  # what a rollback compares with: see postgres/catalog_snapshot.py
    reads_requests: bool = False  # see control.py
    hold_cutover: bool = False  # whether it is to wait before the cutover, by its own settings


@dataclass(frozen=True)
class Opened:
    """The run that now holds the plan; ``took_over`` was abandoned for it; ``created``: the journal is new.

    ``requests`` of ``took_over`` are those in force; all but an abort are those of the new run, if it reads any.
    ``number`` is higher than that of each run before it, of whatever plan: by it a host knows whom to refuse.
    """

    run_id: str
    number: int
    took_over: dict[str, Any] | None
    created: bool


def open_run(connection: Connection, opening: Opening, *, takeover: bool = False) -> Opened:
    """Open a run and hold its plan, or raise OperatorError that says who holds it, since when, where and how far.

    Needs a transaction, and the caller's commit. Of any number of simultaneous openings one wins.
    """
    _require_lease(opening)
    publications.refuse_carrying(connection, opening.plan)
    try:
        created = bool(ensure(connection))
        holder = _holder(connection, opening.plan.id, lock=True)
        run_id = _new_run_id(connection)
        if holder:
            _require_free(holder, takeover)
            _finish(
                connection,
                holder["run_id"],
                "abandoned",
                taken_over_by=run_id,
                error=str(run_error.taken_over(opening.who, _why_free(holder, takeover) or "")),
            )
        number = _next_number(connection, opening.above, alone=True)
        with connection.cursor() as cursor:
            cursor.execute(
                "INSERT INTO at_most_one.run (run_id, number, plan_id, plan_sha256, environment, who, controller,"
                " controller_pid, controller_process, commit_before, commit_after, before, server, progress, lease,"
                " lease_until)"
                " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s * interval '1 minute',"
                " clock_timestamp() + %s * interval '1 minute')",
                (
                    *(run_id, number, opening.plan.id, opening.plan.sha256, opening.environment, opening.who),
                    *(opening.controller.host, opening.controller.pid, opening.controller.process()),
                    *(opening.commit_before, opening.commit_after),
                    None if opening.before is None else _json(opening.before),
                    _json(server_identity.read(connection)),
                    _json({"phase": "prepare"}) if opening.reads_requests else None,
                    *(opening.lease_minutes, opening.lease_minutes),
                ),
            )
        if holder:
            holder["requests"] = requests.described(connection, holder["run_id"])
        if opening.reads_requests:
            _take_requests(connection, run_id, holder, opening)
    except (psycopg2.errors.UniqueViolation, psycopg2.errors.LockNotAvailable) as lost:
        connection.rollback()
        raise _refusal(_holder(connection, opening.plan.id), opening.plan.id) from lost
    return Opened(run_id, number, _public(holder) if holder else None, created)


def look(connection: Connection, opening: Opening, *, takeover: bool = False) -> Opened:
    """What :func:`open_run` would do, without doing it: for check mode. Refuses as it does."""
    _require_lease(opening)
    publications.refuse_carrying(connection, opening.plan)
    holder = _holder(connection, opening.plan.id) if exists(connection) else None
    if holder:
        _require_free(holder, takeover)
        holder["requests"] = [] if missing(connection) else requests.described(connection, holder["run_id"])
    run_id = f"{_new_run_id(connection).partition('-')[0]}-check"
    number = _next_number(connection, opening.above)
    return Opened(run_id, number, _public(holder) if holder else None, False)


def record(
    connection: Connection, run_id: str, phase: str, status: str, details: Mapping[str, Any], *, ago_s: float = 0.0
) -> None:
    """Add a phase that finished ``ago_s`` seconds ago and renew the lease.

    Of a failed phase, ``removed`` in its details is never less than the archive has of the run: a module that died, or
    whose last commit got no answer, does not know what it has removed, and a rollback asks for it. Raises
    OperatorError when the run is not open any more.
    """
    _hold(connection, run_id)
    if status == "failed" and (archived := _archived(connection, run_id)):
        details = {**details, "removed": max(archived, int(details.get("removed") or 0))}
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO at_most_one.step (run_id, position, phase, status, started_at, finished_at, details)"
            " SELECT r.run_id, coalesce(max(s.position), 0) + 1, %s, %s, coalesce(max(s.finished_at), r.started_at),"
            " greatest(coalesce(max(s.finished_at), r.started_at), clock_timestamp() - %s * interval '1 second'), %s"
            " FROM at_most_one.run r LEFT JOIN at_most_one.step s ON s.run_id = r.run_id"
            " WHERE r.run_id = %s GROUP BY r.run_id",
            # By the control node's clock, which may have been set back since: no phase ends in the future.
            (phase, status, max(0.0, ago_s), _json(details), run_id),
        )
    renew(connection, run_id)


def require_held(connection: Connection, run_id: str) -> None:
    """Raise OperatorError unless the run is open, and keep it so until the caller's transaction ends.

    For the transaction that writes, as its first statement: from here to its commit nobody can take the run over, so
    what it writes is the holder's. FOR KEY SHARE is what a take-over's and a closing's FOR UPDATE wait for, and what
    :func:`renew` does not: the lease goes on being renewed meanwhile.
    https://www.postgresql.org/docs/current/explicit-locking.html#LOCKING-ROWS
    """
    _hold(connection, run_id, lock=_KEEP_OPEN)


def holding(run_id: str | None) -> Hold:
    """:func:`require_held` for this run, to hand to a function that writes; without a run, nothing is required."""
    return unheld if run_id is None else lambda connection: require_held(connection, run_id)


def renew(connection: Connection, run_id: str) -> bool:
    """Renew the lease; False when the run is not open any more. Needs the caller's commit."""
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE at_most_one.run SET lease_until = clock_timestamp() + lease"
            " WHERE run_id = %s AND finished_at IS NULL",
            (run_id,),
        )
        return bool(cursor.rowcount)


@contextlib.contextmanager
def kept_alive(login: Login, run_id: str | None, *, every_s: float = 60) -> Iterator[None]:
    """Renew the lease every ``every_s`` seconds for as long as the block lasts, on connections of its own.

    For a step that may outlast the lease, such as a long index build. Without a run there is nothing to renew. A
    renewal that fails is tried again: the block's own connection says what is wrong with the server. Once the run is
    found taken over there is nothing left to renew; the block's next :func:`require_held` stops it.
    """
    if run_id is None:
        yield
        return
    ended = threading.Event()

    def beat() -> None:
        held = True
        while held and not ended.wait(every_s):
            with contextlib.suppress(OperatorError, psycopg2.Error), connect(login) as connection:
                held = renew(connection, run_id)

    heart = threading.Thread(target=beat, name="at-most-one lease", daemon=True)
    heart.start()
    try:
        yield
    finally:
        ended.set()
        heart.join()


def close_run(
    connection: Connection,
    run_id: str,
    outcome: str,
    *,
    failed_phase: str | None = None,
    error: str | None = None,
    report: Mapping[str, Any] | None = None,
    commit_after: str | None = None,
) -> None:
    """Close the run with its outcome and release the plan. Closing it again with the same outcome changes nothing.

    ``commit_after`` is what serves now, when it is not what the run was opened for: a rollback learns it later.
    """
    run = next(iter(read(connection, run_id=run_id)), None)
    if run is not None and run["outcome"] == outcome:
        return
    _hold(connection, run_id)
    if outcome == "deployed":
        _refuse_unaccounted(connection, run_id)
    _finish(
        connection, run_id, outcome, failed_phase=failed_phase, error=error, report=report, commit_after=commit_after
    )


# What the clean-up has recorded of the run's planned rows; the archive's own count stands beside it, not the module's.
_PLANNED_ROWS = """
SELECT coalesce((s.details ->> 'planned')::bigint, 0),
    coalesce((s.details ->> 'kept_meanwhile')::bigint, 0) + coalesce((s.details ->> 'gone_meanwhile')::bigint, 0)
FROM at_most_one.step AS s WHERE s.run_id = %s AND s.phase = 'cleanup' ORDER BY s.position DESC LIMIT 1"""


def _archived(connection: Connection, run_id: str) -> int:
    """How many rows the archive has of the run, back in their table or not."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT to_regclass('at_most_one.archived_row') IS NOT NULL")
        if cursor.fetchone() != (True,):
            return 0
        cursor.execute("SELECT count(*) FROM at_most_one.archived_row WHERE run_id = %s", (run_id,))
        ((archived,),) = cursor.fetchall()
        return int(archived)


def _refuse_unaccounted(connection: Connection, run_id: str) -> None:
    """Raise OperatorError unless each row that the run's clean-up has planned is archived or counted as changed by
    others."""
    with connection.cursor() as cursor:
        cursor.execute(_PLANNED_ROWS, (run_id,))
        planned, changed = cursor.fetchone() or (0, 0)
    archived = _archived(connection, run_id) if planned else 0
    if planned > archived + changed:
        raise OperatorError(
            observed(
                "AMO-2202",
                "Run {run_id} cannot be closed as deployed: it planned {planned} rows, the archive has "
                "{archived} of it, and {changed} are known to be changed by somebody else.",
                run_id=run_id,
                planned=planned,
                archived=archived,
                changed=changed,
            ),
            expected=say("each planned row in one of the two."),
            next_step=say(
                "compare the run's cleanup_plan.json with at_most_one.archived_row; rollback.yml takes the run back."
            ),
            run_id=run_id,
        )


def read(
    connection: Connection, *, run_id: str | None = None, plan_id: str | None = None, limit: int = 20
) -> list[dict[str, Any]]:
    """The last runs, newest first, each with its phases and whether it is dead; none when there is no journal yet."""
    if not exists(connection):
        return []
    with connection.cursor(cursor_factory=RealDictCursor) as cursor:
        cursor.execute(_RUNS, {"run_id": run_id, "plan_id": plan_id, "limit": limit})
        rows = cursor.fetchall()
    return [{**_public(row), "dead_since": dead_since(row)} for row in rows]


def before(connection: Connection, run_id: str) -> dict[str, Any] | None:
    """What was kept when the run began, see :class:`Opening`; None when nothing was."""
    return _kept(connection, run_id, "before")


def keep_before(connection: Connection, run_id: str, **found: str) -> None:
    """Keep what was found right before it is changed, beside what was kept when the run began. In the transaction
    that holds the run."""
    with connection.cursor() as cursor:
        cursor.execute("UPDATE at_most_one.run SET before = before || %s WHERE run_id = %s", (_json(found), run_id))


def server(connection: Connection, run_id: str) -> dict[str, Any]:
    """The server on which the run was opened, see postgres/server_identity.py; empty when an older release did it."""
    return _kept(connection, run_id, "server") or {}


def _kept(connection: Connection, run_id: str, column: str) -> dict[str, Any] | None:
    if not exists(connection):
        return None
    with connection.cursor() as cursor:
        # Through jsonb, because a journal that was only read so far may not have the column yet.
        cursor.execute("SELECT to_jsonb(r) -> %s FROM at_most_one.run r WHERE r.run_id = %s", (column, run_id))
        row: tuple[dict[str, Any] | None] | None = cursor.fetchone()
        return row[0] if row else None


_CHANGE = "SELECT outcome, taken_over_by FROM at_most_one.run WHERE run_id = %s FOR UPDATE"
_KEEP_OPEN = "SELECT outcome, taken_over_by FROM at_most_one.run WHERE run_id = %s FOR KEY SHARE"


def _hold(connection: Connection, run_id: str, *, lock: str = _CHANGE) -> None:
    """Lock the run's row until the transaction ends; raise OperatorError unless the run is there and unfinished."""
    row = None
    if exists(connection):
        with connection.cursor() as cursor:
            cursor.execute(lock, (run_id,))
            row = cursor.fetchone()
    if row is None or row[0] is not None:
        if row is None:
            how = say("is not in the journal")
        elif row[1]:
            how = say("was closed as {outcome} by run {by}", outcome=word(row[0]), by=row[1])
        else:
            how = say("was closed as {outcome}", outcome=word(row[0]))
        raise OperatorError(
            observed(
                "AMO-2203",
                "Run {run_id} {how}.",
                run_id=run_id,
                how=how,
            ),
            expected=say("an open run that still holds its plan."),
            next_step=say(
                "stop here: another run may be at work. ansible-playbook history.yml -l <environment> shows the"
                " last runs."
            ),
            run_id=run_id,
            taken_over_by=row[1] if row else None,
        )


def _finish(
    connection: Connection,
    run_id: str,
    outcome: str,
    *,
    failed_phase: str | None = None,
    error: str | None = None,
    report: Mapping[str, Any] | None = None,
    taken_over_by: str | None = None,
    commit_after: str | None = None,
) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE at_most_one.run SET finished_at = clock_timestamp(), outcome = %s, failed_phase = %s, error = %s,"
            " report = %s, taken_over_by = %s, commit_after = coalesce(%s, commit_after) WHERE run_id = %s",
            (
                *(outcome, failed_phase, error, None if report is None else _json(report)),
                *(taken_over_by, commit_after, run_id),
            ),
        )


def _holder(connection: Connection, plan_id: str, *, lock: bool = False) -> dict[str, Any] | None:
    """The unfinished run of the plan; with ``lock`` nobody else can close or renew it before this transaction ends."""
    with connection.cursor(cursor_factory=RealDictCursor) as cursor:
        cursor.execute(_HOLDER + ("FOR UPDATE OF r" if lock else ""), (plan_id,))
        row = cursor.fetchone()
        return dict(row) if row else None


def _take_requests(connection: Connection, run_id: str, holder: Mapping[str, Any] | None, opening: Opening) -> None:
    """What the run is asked for from its beginning: by whoever asked the run before, and by its own settings."""
    if holder:
        requests.inherit(connection, run_id, holder["run_id"])
    if opening.hold_cutover and requests.in_force(requests.read(connection, run_id)).hold_cutover is None:
        requests.write(connection, run_id, "hold_cutover", opening.who, opening.controller.host)


def _require_lease(opening: Opening) -> None:
    if opening.lease_minutes < SHORTEST_LEASE_MINUTES:
        raise OperatorError(
            observed("AMO-2204", "run_lease_minutes is {lease_minutes}.", lease_minutes=opening.lease_minutes),
            expected=say(
                "{shortest_lease_minutes} or more, and longer than the longest phase: a run whose lease "
                "has ended may be taken over while it is at work.",
                shortest_lease_minutes=SHORTEST_LEASE_MINUTES,
            ),
            next_step=say("correct run_lease_minutes of this inventory, or leave it out (30)."),
        )


def _require_free(holder: Mapping[str, Any], takeover: bool) -> None:
    if _why_free(holder, takeover) is None:
        raise _refusal(holder, holder["plan_id"])


def _why_free(holder: Mapping[str, Any], takeover: bool) -> str | None:
    """Why this run may be taken over; ``None`` when it may not."""
    return run_error.ASKED_FOR if takeover else why_dead(holder)


def _refusal(holder: Mapping[str, Any] | None, plan_id: str) -> OperatorError:
    if holder is None:
        return OperatorError(
            observed(
                "AMO-2205", "Another run of plan {plan_id} was being opened or closed at this moment.", plan_id=plan_id
            ),
            expected=say("no other run of this plan."),
            next_step=say("start again; ansible-playbook history.yml -l <environment> shows the last runs."),
            plan=plan_id,
        )
    minutes, seconds = divmod(holder["age_s"], 60)
    return OperatorError(
        observed(
            "AMO-2206",
            "Plan {plan_id} is held by run {run_id}: {who}, since {since} ({minutes} min {seconds} s ago), from"
            " {controller} (pid {controller_pid}), {reached}.",
            plan_id=plan_id,
            run_id=holder["run_id"],
            who=holder["who"],
            since=holder["since"],
            minutes=minutes,
            seconds=seconds,
            controller=holder["controller"],
            controller_pid=holder["controller_pid"],
            reached=(
                say("last finished phase {phase}", phase=word(holder["phase"]))
                if holder["phase"]
                else say("no phase finished yet")
            ),
        ),
        expected=say("no other unfinished run of this plan."),
        next_step=(
            say(
                "wait for it, or talk to {who}; its lease ended at {lease_until}, and its process is "
                "still there: it is at work, or frozen. It may be taken over once the process has ended, "
                "or now with -e run_takeover=true if you are sure that it is dead.",
                who=holder["who"],
                lease_until=holder["lease_until"],
            )
            if holder["lease_expired"]
            else say(
                "wait for it, or talk to {who}; it may be taken over once its lease has ended "
                "({lease_until}), or now with -e run_takeover=true if you are sure that it is dead.",
                who=holder["who"],
                lease_until=holder["lease_until"],
            )
        ),
        holder=_public(holder),
    )


def _public(holder: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: value
        for key, value in holder.items()
        if key not in ("controller_process", "lease_expired", "last_sign_at")
    }


def _next_number(connection: Connection, above: int, *, alone: bool = False) -> int:
    """The number of the next run. With ``alone`` nobody else is given one before this transaction ends."""
    highest = 0
    if exists(connection):
        with connection.cursor() as cursor:
            if alone:
                cursor.execute("SELECT pg_advisory_xact_lock(hashtextextended('at_most_one run number', 0))")
            # Through jsonb, because a journal that was only read so far may not have the column yet.
            cursor.execute("SELECT coalesce(max((to_jsonb(r) ->> 'number')::bigint), 0) FROM at_most_one.run r")
            ((highest,),) = cursor.fetchall()
    return max(highest, above) + 1


def _new_run_id(connection: Connection) -> str:
    with connection.cursor() as cursor:
        cursor.execute('SELECT to_char(clock_timestamp(), \'YYYYMMDD"T"HH24MISS"Z"\')')
        return f"{(cursor.fetchone() or ('',))[0]}-{secrets.token_hex(3)}"


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)
