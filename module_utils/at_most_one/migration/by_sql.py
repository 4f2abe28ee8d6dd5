"""The planned indexes built without Prisma: by our own statements, from the plan or from its migration.sql.

``locked``: in one transaction that locks the planned tables against writers; whoever writes waits for the build.
``concurrent``: built one by one while they write. ``auto``: the first, unless its forecast is a longer wait than is
allowed, and the second where the lock was not obtained in any attempt. Where planned indexes are there, the rest is
built concurrently, whatever was asked for. The catalog decides what is left to be built, and the run's journal has what
was done. Where a migration tool keeps a history (:mod:`.tool_history`), it is told once the indexes stand.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import psycopg2
from psycopg2 import sql

from ..errors import OperatorError
from ..findings import joined, observed, say
from ..indexes import build_concurrently, definitions, verification
from ..plan import Plan
from ..postgres import locks
from ..postgres.catalog import WRITING, LockNotObtained, transaction
from ..postgres.connection import Login, connect
from ..postgres.lock_retry import pause_s
from ..postgres.locks import Watch
from ..prisma import migration_sql
from ..prisma.migration_history import Verdict
from ..prisma.migration_sql import Statement
from ..runs import journal
from . import check_sql, scope
from .build import Intent, Options, Outcome, Way, create_statements, inspect, predicted_write_pause_ms
from .tool_history import APPLIED, PENDING, ToolHistory

_SAMPLE_S = 0.05
_DUPLICATE, _CANCELED, _DEADLOCK = "23505", "57014", "40P01"  # unique_violation, query_canceled, deadlock_detected


def decide(
    login: Login,
    plan: Plan,
    text: str,
    options: Options,
    *,
    history: ToolHistory | None = None,
    check: bool = False,
) -> Intent:
    """Look, refuse what cannot end well, and choose. Writes nothing.

    ``text`` is the plan's migration.sql: it may only build the planned indexes. Empty: the plan's definitions are
    built. ``check``: the clean-up before may have removed nothing yet.
    """
    before = inspect(login, plan, options)
    marks = history is not None and history.status() == PENDING
    verdict = history_of(plan, exact=before.exact and not marks)
    script = migration_sql.split(text) if text else None
    with connect(login, **options.timeouts) as connection:
        if before.exact and not before.duplicates_left and not marks:
            return Intent("none", before, verdict)
        verification.refuse_building(connection, plan, before)
        verification.require_buildable(before, plan, resume=True, duplicates_may_go=check)
        if script is not None:
            _require_indexes_alone(plan, script)
            check_sql.require_same(connection, plan, script, strict=True)
        predicted_ms = predicted_write_pause_ms(connection, plan, before, script)
        strategy = _choose(options, predicted_ms, something_there=bool(before.existing))
        tables = sorted({index.table for index in plan.indexes})
        comments = scope.comments(script or ())
        statements = [
            *(_lock(plan, tables) if strategy == "locked" else ()),
            *create_statements(connection, plan, before, comments, concurrently=strategy == "concurrent"),
        ]
        return Intent(
            strategy,
            before,
            verdict,
            tuple(statement.as_string(connection) for statement in statements),
            predicted_ms,
            stalled_by=tuple(locks.stalling(connection, plan.schema, tables)),
            comments=comments,
            marks=marks,
        )


def carry_out(
    login: Login, plan: Plan, options: Options, intent: Intent, history: ToolHistory | None = None
) -> Outcome:
    """Do what was decided. Raises OperatorError unless exactly the planned indexes are there then."""
    started = time.monotonic()
    with connect(login, **options.timeouts, autocommit=True) as observer:
        watch = Watch(observer, plan.schema, sorted({index.table for index in plan.indexes}))
        way = _under_lock if intent.strategy == "locked" else _concurrently
        strategy, attempts, write_pause_ms, stalled_by = way(login, plan, options, intent, watch)
    after = inspect(login, plan, options)
    verification.require_exact(after, plan)
    if history is not None and intent.marks:
        _mark(login, options, history)
    seconds = round(time.monotonic() - started, 1)
    write_pause_ms = max(watch.write_pause_ms, write_pause_ms)
    return Outcome(after, "applied", strategy, attempts, seconds, write_pause_ms, stalled_by)


def _mark(login: Login, options: Options, history: ToolHistory) -> None:
    """Have the tool record the migration; a rollback learns from the journal that it was this run, killed or not."""
    if options.run_id is not None:
        with connect(login, **options.timeouts) as connection:
            options.hold(connection)
            journal.keep_before(connection, options.run_id, history=PENDING)
    history.mark(APPLIED, options.hold, **options.timeouts)


def history_of(plan: Plan, *, exact: bool) -> Verdict:
    """Where the migration stands, in the words that Prisma's history would have: here the catalog alone says it."""
    if exact:
        return Verdict("applied", say("none."), (), (), (), None)
    return Verdict("pending", say("none: the migrate phase builds what is missing."), (plan.migration,), (), (), None)


def _require_indexes_alone(plan: Plan, script: tuple[Statement, ...]) -> None:
    beyond = scope.beyond(script, plan)
    if beyond:
        raise OperatorError(
            observed(
                "AMO-3620",
                "Migration {migration} cannot be applied without Prisma: {reasons}.",
                migration=plan.migration,
                reasons=joined(beyond),
            ),
            expected=say(
                "a migration.sql that builds each planned index once, and may comment on it; whatever else a migration"
                " does cannot be taken back by its plan."
            ),
            next_step=say(
                "apply the rest with the service's own migration tool first, and leave the indexes alone in"
                " plans/{plan}/; or remove that directory: then the plan's own definitions are built.",
                plan=plan.file,
            ),
            cause="migration_does_more",
            statements=beyond,
        )


def _choose(options: Options, predicted_ms: int, *, something_there: bool) -> str:
    if something_there:
        return "concurrent"
    if options.strategy != "auto":
        return options.strategy
    return "locked" if predicted_ms <= options.max_write_pause_ms else "concurrent"


def _lock(plan: Plan, tables: list[str]) -> list[sql.Composed]:
    return [sql.SQL("LOCK TABLE {} IN SHARE MODE").format(sql.Identifier(plan.schema, table)) for table in tables]


def _under_lock(login: Login, plan: Plan, options: Options, intent: Intent, watch: Watch) -> Way:
    deadline = time.monotonic() + options.deadline_s
    statements = [
        *_lock(plan, watch.tables),
        *create_statements(watch.connection, plan, intent.before, intent.comments, concurrently=False),
    ]
    for attempt in range(1, max(1, options.attempts) + 1):
        try:
            with (
                connect(login, **options.timeouts) as connection,
                _sampled(watch),
                transaction(connection, WRITING, plan) as cursor,
            ):
                options.hold(connection)
                left_ms = max(1, int(1000 * (deadline - time.monotonic())))
                cursor.execute("SELECT pg_catalog.set_config('statement_timeout', %s, true)", (str(left_ms),))
                for statement in statements:
                    cursor.execute(statement)
            return "locked", attempt, 0, intent.stalled_by
        except OperatorError as stop:
            # A session that writes to the tables in another order: the lock was not to be had in that moment either.
            if not isinstance(stop, LockNotObtained) and stop.details.get("sqlstate") != _DEADLOCK:
                raise _not_built(plan, options, stop) from stop
            if attempt >= options.attempts or time.monotonic() >= deadline:
                if options.strategy == "auto":
                    return _after_no_lock(login, plan, options, intent, watch, attempt, deadline)
                raise _not_locked(plan, watch, watch.blockers or stop.details.get("blockers", []), attempt) from stop
        time.sleep(pause_s(attempt, first_s=0.05, longest_s=2))
    raise AssertionError("the last attempt returns or raises")


def _after_no_lock(
    login: Login, plan: Plan, options: Options, intent: Intent, watch: Watch, attempts: int, deadline: float
) -> Way:
    """Build concurrently: nobody waits for that while it waits itself."""
    left = replace(options, deadline_s=max(1.0, deadline - time.monotonic()))
    strategy, _, write_pause_ms, stalled_by = _concurrently(login, plan, left, intent, watch)
    return strategy, attempts, write_pause_ms, stalled_by or tuple(watch.blockers)


def _concurrently(login: Login, plan: Plan, options: Options, intent: Intent, watch: Watch) -> Way:
    limits = build_concurrently.Limits(options.deadline_s)
    built = build_concurrently.build(
        login, plan, intent.before, limits, hold=options.hold, checkpoint=options.checkpoint
    )
    if intent.comments:
        with connect(login, **options.timeouts) as connection, connection.cursor() as cursor:
            options.hold(connection)
            for comment in intent.comments:
                cursor.execute(definitions.comment_statement(comment.name, plan.schema, comment.text))
    return "concurrent", 0, built.write_pause_ms, built.stalled_by


@contextlib.contextmanager
def _sampled(watch: Watch) -> Iterator[None]:
    """Sample who waits, on the watch's own connection, for as long as the block lasts."""
    ended = threading.Event()

    def sample() -> None:
        while not ended.wait(_SAMPLE_S):
            with contextlib.suppress(psycopg2.Error):  # a lost sample must not end a build
                watch.sample()

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(10)


def _not_locked(plan: Plan, watch: Watch, blockers: list[dict[str, Any]], attempts: int) -> OperatorError:
    tables = ", ".join(f"{plan.schema}.{table}" for table in watch.blocked or watch.tables)
    return OperatorError(
        observed(
            "AMO-3621",
            "The planned indexes were not built: no lock on {tables} within {attempts} attempts; {blockers}. Nothing of"
            " them is left.",
            tables=tables,
            attempts=attempts,
            blockers=locks.describe(blockers),
        ),
        expected=say("a moment in which no session has written to the tables and is still in its transaction."),
        next_step=say(
            "wait for those sessions or end them, or let nobody wait: ansible-playbook deploy.yml -l <environment> -e"
            " migrate_strategy=concurrent"
        ),
        cause="lock",
        blockers=blockers,
        attempts=attempts,
    )


def _not_built(plan: Plan, options: Options, stop: OperatorError) -> OperatorError:
    if stop.details.get("sqlstate") == _DUPLICATE:
        return OperatorError(
            observed(
                "AMO-3622",
                "The planned indexes were not built: a duplicate is left inside the rule of plan {plan}. Nothing of"
                " them is left.",
                plan=plan.id,
            ),
            expected=say("no duplicate before the unique index is built."),
            next_step=say("run the cleanup phase again, then this one."),
            cause="duplicates",
            sqlstate=_DUPLICATE,
        )
    if stop.details.get("sqlstate") == _CANCELED:
        return OperatorError(
            observed(
                "AMO-3623",
                "The planned indexes were not built within the {deadline_s:g} s of migrate_deadline_s, or somebody"
                " cancelled the build. Nothing of them is left.",
                deadline_s=options.deadline_s,
            ),
            expected=say("each planned index to be built within the deadline."),
            next_step=say(
                "raise migrate_deadline_s, or let no writer wait: ansible-playbook deploy.yml -l <environment> -e"
                " migrate_strategy=concurrent"
            ),
            cause="deadline",
            sqlstate=_CANCELED,
        )
    return stop
