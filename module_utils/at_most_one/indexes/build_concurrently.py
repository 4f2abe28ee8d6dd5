"""``CREATE INDEX CONCURRENTLY``, one statement for each planned index: nobody who writes waits for it.

It waits for others instead: for every transaction that uses the table and for every older snapshot in the database. So
it has no lock_timeout (that would leave an INVALID index behind) but a deadline, says first what would stall it, and
drops what a failed build has left. Prisma's migration lock is never held meanwhile: a deploy that waits for that lock
has a snapshot, for which the build would wait in turn.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import psycopg2
import psycopg2.errors
from psycopg2 import sql

from ..errors import OperatorError
from ..findings import observed, say
from ..plan import Index, Plan
from ..postgres import locks, server_errors
from ..postgres.checkpoint import Checkpoint, Place, unasked
from ..postgres.connection import Connection, Hold, Login, connect, unheld
from ..postgres.locks import Watch
from ..postgres.server_errors import first_line
from . import brief_lock, on_partitions, verification
from .dropping import drop_concurrently
from .on_partitions import Step
from .verification import Inspection

_POLL_S = 0.05
_LONG_S = 1.0  # a transaction younger than this comes and goes


@dataclass(frozen=True)
class Limits:
    """``deadline_s`` is for all builds together, waits included; ``leftover_s`` for dropping what a failed one left."""

    deadline_s: float
    leftover_s: float = 30.0


@dataclass(frozen=True)
class Built:
    """What was done: statements in their order, the abandoned indexes that were repaired, and what it cost."""

    statements: tuple[str, ...]
    repaired: tuple[str, ...]
    stalled_by: tuple[dict[str, Any], ...]
    write_pause_ms: int
    seconds: float


def build(
    login: Login,
    plan: Plan,
    inspection: Inspection,
    limits: Limits,
    *,
    hold: Hold = unheld,
    checkpoint: Checkpoint = unasked,
) -> Built:
    """Build each planned index that is missing, and each that was abandoned INVALID after dropping it.

    Raises OperatorError with ``cause`` duplicates, deadline, building, cancelled, terminated or build. Then no INVALID
    index of ours is left, or the error says which one and why; an index that was finished before stays, and the next
    call goes on from it.
    """
    started = time.monotonic()
    wanted = [index for index in plan.indexes if _verdict(inspection, index) in ("missing", "invalid")]
    abandoned = {index.name for index in wanted if _verdict(inspection, index) == "invalid"}
    statements: list[str] = []
    with connect(login, statement_timeout_ms=10_000, autocommit=True) as observer:
        verification.refuse_building(observer, plan, inspection)
        tables = sorted({index.table for index in wanted})
        session = _Session(login, plan, limits, started + limits.deadline_s, Watch(observer, plan.schema, tables))
        stalled_by = locks.stalling(observer, plan.schema, tables) if wanted else []
        for number, index in enumerate(wanted, 1):
            # What a person lets it wait is no part of the deadline.
            session.deadline += checkpoint(observer, Place("migrate", "indexes", number - 1, len(wanted)))
            session.wait_for_the_table(index)
            label = f"at-most-one index {number} of {len(wanted)}"
            for step in build_steps(observer, plan, index, abandoned=index.name in abandoned):
                statements.append(step.statement.as_string(observer))
                hold(observer)  # the build cannot be in the transaction that holds the run
                session.run(index, step, label)
                hold(observer)
    return Built(
        tuple(statements),
        tuple(index.name for index in wanted if index.name in abandoned),
        tuple(stalled_by),
        session.watch.write_pause_ms,
        round(time.monotonic() - started, 1),
    )


def build_steps(connection: Connection, plan: Plan, index: Index, *, abandoned: bool) -> Iterator[Step]:
    """What builds a planned index; first what drops it, where a build was ``abandoned`` and has left it INVALID.

    Each is to be run before the next is asked for.
    """
    if abandoned:
        yield on_partitions.drop_step(connection, index.name, index.table, plan.schema)
    yield from on_partitions.steps(connection, index, plan.schema)


class _Session:
    """The connection that builds, one for all statements, and what is watched of it from the observer's."""

    def __init__(self, login: Login, plan: Plan, limits: Limits, deadline: float, watch: Watch) -> None:
        self.login, self.plan, self.limits, self.deadline, self.watch = login, plan, limits, deadline, watch

    def wait_for_the_table(self, index: Index) -> None:
        """Wait for the transactions that have been using the table since before.

        The build would begin by waiting for the writers among them. Were it cut short meanwhile, its INVALID index
        could not even be dropped before they end: so nothing is begun while one is open.
        """
        started = time.monotonic()
        while True:
            age_s = time.monotonic() - started
            in_the_way = [
                holder
                for holder in locks.holders(self.watch.connection, self.plan.schema, [index.table])
                if holder["pid"] == 0 or (holder["age_s"] >= max(_LONG_S, age_s) and not _gives_way(holder))
            ]
            if not in_the_way:
                return
            if time.monotonic() >= self.deadline:
                raise OperatorError(
                    observed(
                        "AMO-3501",
                        "The build of {index} was not begun within {deadline}: transactions stay open on "
                        "{schema}.{table}; {sessions}.",
                        index=index.name,
                        deadline=self._deadline(),
                        schema=self.plan.schema,
                        table=index.table,
                        sessions=locks.describe(in_the_way),
                    ),
                    expected=say("every transaction on the table to end within the deadline."),
                    next_step=say(
                        "{ending}, or raise migrate_deadline_s; then ansible-playbook deploy.yml -l "
                        "<environment> again: it goes on from what is built.",
                        ending=locks.ending(in_the_way),
                    ),
                    cause="deadline",
                    index=index.name,
                    stalled_by=in_the_way,
                    leftover=None,
                )
            time.sleep(4 * _POLL_S)

    def run(self, index: Index, step: Step, label: str) -> None:
        """Run one statement to its end, or undo it and raise."""
        statement = brief_lock.message(step.statement) if step.briefly else step.statement
        while True:
            failure = self._once(statement, label)
            if not isinstance(failure, psycopg2.errors.LockNotAvailable) or time.monotonic() >= self.deadline:
                break
            time.sleep(_POLL_S)
        if failure is not None:
            raise self._explained(index, failure) from failure

    def _once(self, statement: sql.Composed, label: str) -> psycopg2.Error | None:
        with connect(self.login, lock_timeout_ms=0, autocommit=True) as worker:
            with worker.cursor() as cursor:
                left_ms = max(1, int(1000 * (self.deadline - time.monotonic())))
                cursor.execute("SELECT set_config('application_name', %s, false)", (label,))
                cursor.execute("SELECT set_config('statement_timeout', %s, false)", (str(left_ms),))
                if worker.server_version >= 140_000:  # a build whose controller is gone must end; not on every platform
                    with contextlib.suppress(psycopg2.Error):
                        cursor.execute("SET client_connection_check_interval = '1s'")
            return self._watched(worker, statement)

    def _watched(self, worker: Connection, statement: sql.Composed) -> psycopg2.Error | None:
        failures: list[BaseException] = []

        def execute() -> None:
            try:
                with worker.cursor() as cursor:
                    cursor.execute(statement)
            except BaseException as failure:  # handed to the thread that waits for it
                failures.append(failure)

        thread = threading.Thread(target=execute, daemon=True)
        thread.start()
        try:
            while thread.is_alive():
                with contextlib.suppress(psycopg2.Error):  # a lost sample must not end a build half-way
                    self.watch.sample()
                thread.join(_POLL_S)
        finally:
            if thread.is_alive():
                worker.cancel()
                thread.join(10)
        if failures and not isinstance(failures[0], psycopg2.Error):
            raise failures[0]
        return failures[0] if failures else None  # type: ignore[return-value]  # narrowed above

    def _deadline(self) -> str:
        return say("the {deadline_s} s that migrate_deadline_s left", deadline_s=f"{self.limits.deadline_s:g}")

    def _explained(self, index: Index, failure: psycopg2.Error) -> OperatorError:
        late = time.monotonic() >= self.deadline - 0.1
        stalled_by: list[dict[str, Any]] = []
        with contextlib.suppress(psycopg2.Error):
            stalled_by = locks.stalling(self.watch.connection, self.plan.schema, [index.table])
        next_step: str = say("run again; it goes on from what is built.")
        if isinstance(failure, psycopg2.errors.UniqueViolation):
            cause, what = "duplicates", say("a duplicate got in its way")
            next_step = say("run the cleanup phase again, then this one.")
        elif isinstance(failure, psycopg2.errors.QueryCanceled) and late:
            cause = "deadline"
            what = say(
                "it did not end within {deadline}; {sessions}",
                deadline=self._deadline(),
                sessions=locks.describe_stalling(stalled_by),
            )
            again = "ansible-playbook deploy.yml -l <environment>"
            next_step = say(
                "{ending}, or raise migrate_deadline_s; then {again} again.",
                ending=locks.ending(stalled_by),
                again=again,
            )
        elif isinstance(failure, psycopg2.errors.QueryCanceled):
            cause, what = "cancelled", say("somebody cancelled it (pg_cancel_backend, or a signal to its process)")
        elif failure.pgcode is None or isinstance(failure, psycopg2.errors.AdminShutdown):
            cause, what = (
                "terminated",
                say("its session was ended (pg_terminate_backend, a restart, or a lost connection)"),
            )
        else:
            said = server_errors.explain(failure, "", next_step)
            cause, what, next_step = (
                "build",
                say("PostgreSQL refused it: {message}", message=said.message),
                said.next_step,
            )
        taken = isinstance(failure, psycopg2.errors.DuplicateTable)  # by somebody else: not ours to drop
        leftover = None if taken else self._clear(index)
        return OperatorError(
            observed(
                "AMO-3502",
                "{schema}.{index} was not built: {what}. {leftover}",
                schema=self.plan.schema,
                index=index.name,
                what=what,
                leftover=leftover or say("Nothing of it is left."),
            ),
            expected=say("each planned index to be built within the deadline, without a duplicate."),
            next_step=next_step,
            cause=cause,
            index=index.name,
            sqlstate=failure.pgcode,
            stalled_by=stalled_by,
            leftover=leftover,
            write_pause_ms=self.watch.write_pause_ms,
        )

    def _clear(self, index: Index) -> str | None:
        """Drop the INVALID index that a failed build has left; a phrase of what stays when that cannot be done."""
        limit_ms = int(1000 * self.limits.leftover_s)
        state: str = say("its state is not known")
        why, how = "", " CONCURRENTLY"
        try:
            with connect(self.login, lock_timeout_ms=0, statement_timeout_ms=limit_ms, autocommit=True) as connection:
                if (found := _state(connection, self.plan.schema, index.name)) in (None, "valid"):
                    return None
                state = found
                if on_partitions.drop_step(connection, index.name, index.table, self.plan.schema).briefly:
                    how = ""
                try:
                    with connection.cursor() as cursor:
                        drop_concurrently(cursor, index.name, self.plan.schema)
                        for step in on_partitions.left_over(connection, index.name, index.table, self.plan.schema):
                            step.run(cursor)
                    return None
                except (psycopg2.errors.QueryCanceled, psycopg2.errors.LockNotAvailable):
                    holders = locks.holders(connection, self.plan.schema, [index.table])
                    state = _state(connection, self.plan.schema, index.name) or state
                    why = say(
                        "within {leftover_s} s; {sessions}",
                        leftover_s=f"{self.limits.leftover_s:g}",
                        sessions=locks.describe(holders),
                    )
        except (psycopg2.Error, OperatorError) as failure:
            why = first_line(failure)
        return say(
            "Its INVALID index stays ({state}): it could not be dropped {why}. The next run drops it first; by hand: "
            "{drop};",
            state=state,
            why=why,
            drop=f"DROP INDEX{how} {verification.quoted(self.plan.schema, index.name)}",
        )


def _gives_way(holder: Mapping[str, Any]) -> bool:
    """An automatic vacuum ends by itself as soon as somebody waits for its lock."""
    return str(holder["query"]).startswith("autovacuum:")


def _verdict(inspection: Inspection, index: Index) -> str:
    return next(verdict.verdict for verdict in inspection.verdicts if verdict.name == index.name)


def _state(connection: Connection, schema: str, name: str) -> str | None:
    """What an index of that name does to writers now; ``None`` when there is none."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT i.indisvalid, i.indisready FROM pg_catalog.pg_index i"
            " JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid"
            " JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = %s AND c.relname = %s",
            (schema, name),
        )
        row = cursor.fetchone()
    if row is None:
        return None
    if row[0]:
        return "valid"
    return (
        say("it is kept up to date and refuses duplicates already") if row[1] else say("it does not refuse duplicates")
    )
