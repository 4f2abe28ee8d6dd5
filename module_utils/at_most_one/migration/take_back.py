"""Take back what a deployment did in the database, then read all of it again.

First the write fence, so that rows that left before it was up can return; then the planned indexes, Prisma's history
and the archived rows, and last the history of another tool: a tool that fails keeps no row out. Each step is a
transaction of its own, or several, that goes on from what it finds: stopped in between, the same call again ends it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from ..duplicates.restore import Restoration, restore
from ..errors import OperatorError
from ..fence import write_fence
from ..findings import Phrase, joined, observed, say
from ..indexes import verification
from ..indexes.verification import Inspection
from ..plan import Plan
from ..postgres.connection import Connection, Hold, Login, connect, unheld
from ..prisma import cli, migration_history
from ..runs import journal, reached
from ..system.strict_zip import strict_zip
from ..verdicts import difference, word
from .tool_history import APPLIED, LATER, PENDING, ToolHistory

_GONE = ("missing", "unexpected")  # verdicts after a rollback; what is not planned is not ours to drop
_NOT_APPLIED = ("rolled_back", "pending", "absent_table")
_MIGRATION_LOCK_S = 30  # for another `prisma migrate` of this database to end


@dataclass(frozen=True)
class Wanted:
    """What is to be taken back. ``archived_by``: whose archived rows return; of every run where it is empty."""

    rule: bool  # the fence, the indexes that were not there before, and the history; otherwise the rows alone
    restore_rows: bool
    archived_by: tuple[str, ...] = ()
    possible: bool = True  # put back the rows that can return, and name the others; otherwise one refuses all
    left_behind: bool = False  # the rows are those that earlier rollbacks had to leave
    failed_run: str | None = None  # compared with what this run found; otherwise with what the last deployment found
    as_before: bool = False  # whether a difference from that is an error
    rows_timeout_ms: int = 60_000  # of one batch of rows
    fence_wait_ms: int = 30_000  # for the transactions that use the table; then it stays, and a warning names them
    drop_ms: int = 300_000  # for one index
    lock_timeout_ms: int = 3_000
    statement_timeout_ms: int = 60_000
    history: ToolHistory | None = None  # of another tool than Prisma

    @property
    def timeouts(self) -> dict[str, Any]:
        """As :func:`connect` takes them."""
        return {"lock_timeout_ms": self.lock_timeout_ms, "statement_timeout_ms": self.statement_timeout_ms}


@dataclass(frozen=True)
class Dropped:
    """The planned indexes before and after, and the statements that were run between, or would be."""

    before: Inspection
    after: Inspection
    statements: list[str]
    kept: tuple[str, ...] = ()  # planned indexes that were there before the deployment: they stay

    def diff(self) -> dict[str, str]:
        """The definitions before, and those that stay: they are not the plan's, or not the deployment's."""
        stay = [one for one in self.before.verdicts if one.verdict == "unexpected" or one.name in self.kept]
        before, after = (
            "".join(f"{found.definition};\n" for found in verdicts if found.definition)
            for verdicts in (self.before.verdicts, stay)
        )
        return {"before": before, "after": after}


@dataclass(frozen=True)
class Marked:
    """Rows of Prisma's history that were marked rolled back, or would be."""

    rows: tuple[migration_history.Row, ...]
    existing: tuple[str, ...]  # planned indexes that are there
    statements: tuple[str, ...]

    def diff(self, migration: str) -> dict[str, str]:
        """The migration's rows before and after."""
        words = {True: "applied", False: "failed"}
        return {
            "before": "".join(f"{row.id} {migration}: {words[row.applied]}\n" for row in self.rows),
            "after": "".join(f"{row.id} {migration}: rolled back\n" for row in self.rows),
        }


@dataclass
class TakenBack:
    """What was done, or in check mode would be, and what was read afterwards."""

    table: str
    inspection: Inspection  # as read last
    fence: write_fence.Change | None = None
    dropped: Dropped | None = None
    marked: Marked | None = None
    told: str = ""  # the command by which another tool's history was changed, or would be
    restored: list[Restoration] = field(default_factory=list)
    kept: tuple[str, ...] = ()  # planned indexes that were there before the deployment
    history: str = ""
    reached: dict[str, Any] = field(default_factory=dict)

    @property
    def left_count(self) -> int:
        """How many rows of the plan's table cannot return."""
        return sum(left.count for one in self.restored for left in one.left if left.table == self.table)

    @property
    def changed(self) -> bool:
        """Whether anything was taken back, or would be."""
        return bool(
            (self.fence and self.fence.statements)
            or (self.dropped and self.dropped.statements)
            or (self.marked and self.marked.rows)
            or self.told
            or any(one.restored or one.pointed_back for one in self.restored)
        )

    @property
    def statements(self) -> list[str]:
        """What was run, or would be, in its order."""
        steps = (self.fence, self.dropped, self.marked, *self.restored)
        return [statement for step in steps if step for statement in step.statements]

    @property
    def sentence(self) -> Phrase:
        """What was done, for the error of a run that has taken itself back."""
        dropped = len(self.dropped.statements) if self.dropped else 0
        restored = sum(one.restored for one in self.restored)
        pending, recorded = self.reached["content"]["pending"], self.reached["recorded"]
        said = [
            say(
                "{dropped} indexes dropped, {restored} rows restored, {pending} kept in the archive. {what}"
                " {compared}.",
                dropped=dropped,
                restored=restored,
                pending=pending,
                what=self._compared(),
                compared=(
                    say("as before (compared)") if recorded else say("taken back, but their beginning is not recorded")
                ),
            )
        ]
        if self.fence and self.fence.state != "lowered":  # the fence's warning names who keeps it from being dropped
            said.append(
                say("The write fence could not be dropped yet and refuses new duplicates until the next run drops it.")
            )
        if self.left_count:
            said.append(
                say(
                    "{rows} rows could not return and stay in the archive: {left}. Next: remove what bars them, then "
                    "ansible-playbook rollback.yml -l <environment> -e rollback_only_rows=true",
                    rows=self.left_count,
                    left=joined(left.phrase for one in self.restored for left in one.left),
                )
            )
        return joined(said, " ")

    def _compared(self) -> str:
        if self.told:
            return say("The catalog and the migration tool's history are")
        if self.history == "absent_table":
            return say("The catalog is")
        return say("The catalog and Prisma's history are")

    def diff(self, plan: Plan) -> list[dict[str, str]]:
        """A diff for each step that has changed something."""
        diffs = []
        if self.fence and self.fence.statements:
            before, after = (f"write fence: {state}\n" for state in (self.fence.before, self.fence.state))
            diffs.append({"before": before, "after": after})
        if self.dropped and self.dropped.statements:
            diffs.append(self.dropped.diff())
        if self.marked and self.marked.rows:
            diffs.append(self.marked.diff(plan.migration))
        if self.told:
            diffs.append({"before": f"{plan.migration}: applied\n", "after": f"{plan.migration}: not applied\n"})
        if any(one.restored or one.pointed_back for one in self.restored):
            keys = (dict(strict_zip(plan.primary_key, row)) for one in self.restored for row in one.rows)
            lines = (" ".join(f"{name}={value}" for name, value in key.items()) for key in keys)
            header = f"rows of {self.table}"
            diffs.append(
                {
                    "before_header": header,
                    "after_header": header,
                    "before": "",
                    "after": "".join(f"{line}\n" for line in lines),
                }
            )
        return diffs


def take_back(
    login: Login,
    plan: Plan,
    wanted: Wanted,
    *,
    warn: Callable[[str], None],
    check: bool = False,
    hold: Hold = unheld,
) -> TakenBack:
    """Take back what is ``wanted``. Raises OperatorError unless all of it is gone, or back, in the end.

    ``check``: nothing stays, and nothing is required of what is read. The error's details have the indexes as they were
    read last.
    """
    done = TakenBack(f"{plan.schema}.{plan.table}", _inspect(login, plan, wanted.timeouts))
    with _verdicts_in_errors(done):
        recorded = wanted.history if _recorded_by_us(login, wanted) else None
        ours = True  # whether the history's applied migration is this deployment's
        if wanted.rule:
            with connect(login, **wanted.timeouts) as connection:
                change = reached.objects_changed(connection, plan, wanted.failed_run)
                connection.rollback()
            done.kept = change.kept
            ours = not change.kept or change.applied
            if not check:
                _wait_for_prisma(login, wanted)  # before anything is dropped: it would stop half-way
            with connect(login, **wanted.timeouts) as connection:
                done.fence = write_fence.lower_fence(
                    connection, plan, wait_ms=wanted.fence_wait_ms, check=check, hold=hold
                )
            for warning in done.fence.warnings:
                warn(warning)  # now: what comes next may fail
            done.inspection = _inspect(login, plan, wanted.timeouts)  # lowering the fence may have waited
            done.dropped = drop_indexes(
                login,
                plan,
                done.inspection,
                kept=done.kept,
                timeouts=wanted.timeouts,
                deadline_ms=wanted.drop_ms,
                check=check,
                hold=hold,
            )
            done.inspection = done.dropped.after
            if not check:
                _wait_for_prisma(login, wanted)
            with connect(login, **wanted.timeouts) as connection:
                done.marked = mark_history(connection, plan, kept=done.kept, ours=ours, check=check, hold=hold)
        if wanted.restore_rows:
            limits = {**wanted.timeouts, "statement_timeout_ms": wanted.rows_timeout_ms}
            with connect(login, **limits) as connection:
                _restore(connection, plan, wanted, done, check=check, hold=hold)
        if recorded is not None and recorded.status() != PENDING:
            if not check:
                recorded.mark(PENDING, hold, **wanted.timeouts)
            done.told = recorded.shown(PENDING)
        with connect(login, **wanted.timeouts) as connection:
            _read_again(connection, plan, wanted, done)
            connection.rollback()
        _warn_of_others(wanted, done, warn)
        if not check:
            _require_taken_back(plan, wanted, done, ours=ours)
    return done


def drop_indexes(
    login: Login,
    plan: Plan,
    before: Inspection,
    *,
    timeouts: Mapping[str, Any],
    deadline_ms: int,
    kept: Sequence[str] = (),
    check: bool = False,
    hold: Hold = unheld,
) -> Dropped:
    """Drop the planned indexes but those that are ``kept``, each within the deadline.

    Raises OperatorError when one is still there afterwards.
    """
    with connect(login, autocommit=True, lock_timeout_ms=0, statement_timeout_ms=deadline_ms) as connection:
        statements = verification.drop(connection, plan, _without(before, kept), check=check, hold=hold)
    if check:
        return Dropped(before, before, statements, tuple(kept))
    after = _inspect(login, plan, timeouts)
    verification.require_absent(_without(after, kept), plan)
    return Dropped(before, after, statements, tuple(kept))


def _without(inspection: Inspection, kept: Sequence[str]) -> Inspection:
    return replace(inspection, verdicts=tuple(one for one in inspection.verdicts if one.name not in kept))


def mark_history(
    connection: Connection,
    plan: Plan,
    *,
    kept: Sequence[str] = (),
    ours: bool = True,
    check: bool = False,
    hold: Hold = unheld,
) -> Marked:
    """Mark the plan's migration rolled back, so that the next deployment applies it again; indexes that are ``kept`` do
    not count. Unless it is ``ours``, one that is applied stays so."""
    if not check:
        hold(connection)
        migration_history.hold(connection)  # before the rows are read: what is read is what is marked
    rows = tuple(
        row
        for row in migration_history.read_history(connection, plan.schema) or ()
        if row.migration_name == plan.migration and row.rolled_back_at is None
    )
    if not ours and any(row.applied for row in rows):
        return Marked((), (), ())
    existing = _without(verification.inspect(connection, plan), kept).existing if rows else ()
    statements = (migration_history.mark_statement(plan.schema).as_string(connection),) if rows else ()
    if rows and not check:
        migration_history.mark_rolled_back(connection, plan.schema, plan.migration, existing)
    return Marked(rows, tuple(existing), statements)


def _wait_for_prisma(login: Login, wanted: Wanted) -> None:
    """Wait until nobody holds Prisma's lock, as any service may. Raises OperatorError with who does."""
    with connect(login, **wanted.timeouts, autocommit=True) as connection:
        cli.wait_for_migration_lock(connection, time.monotonic() + _MIGRATION_LOCK_S)


def _recorded_by_us(login: Login, wanted: Wanted) -> bool:
    """Whether one of these runs has had the tool record the migration; where it was recorded before, it stays.

    The tool is asked before anything is dropped. The way back of a failed run does not depend on its answer yet: the
    tool may be what has failed.
    """
    if wanted.history is None or not wanted.rule:
        return False
    with connect(login, **wanted.timeouts) as connection:
        found = [journal.before(connection, run_id) or {} for run_id in wanted.archived_by]
    if not any(before.get("history") == PENDING for before in found):
        return False
    try:
        status = wanted.history.status()
    except OperatorError:
        if wanted.failed_run is None:
            raise
        return True
    if status == LATER:
        wanted.history.refuse_later()
    return status == APPLIED


def _inspect(login: Login, plan: Plan, timeouts: Mapping[str, Any]) -> Inspection:
    with connect(login, **timeouts) as connection:
        inspection = verification.inspect(connection, plan)
        connection.rollback()
    return inspection


def _restore(connection: Connection, plan: Plan, wanted: Wanted, done: TakenBack, *, check: bool, hold: Hold) -> None:
    for run_id in wanted.archived_by or (None,):
        done.restored.append(
            restore(
                connection,
                plan,
                run_id=run_id,
                check=check,
                possible=wanted.possible,
                index_dropped_first=check and wanted.rule and plan.rule_index.name not in done.kept,
                hold=hold,
            )
        )


def _read_again(connection: Connection, plan: Plan, wanted: Wanted, done: TakenBack) -> None:
    done.inspection = verification.inspect(connection, plan)
    history = migration_history.read_history(connection, plan.schema)
    done.history = migration_history.judge(history, None, plan.migration, done.inspection.exact).verdict
    done.reached = reached.read(connection, plan, wanted.failed_run)


def content_of(wanted: Wanted, found: dict[str, Any]) -> dict[str, Any]:
    """What has become of the archived rows in question, of what :mod:`.runs.reached` read."""
    content: dict[str, Any] = found["left_behind"]["content"] if wanted.left_behind else found["content"]
    return content


def _warn_of_others(wanted: Wanted, done: TakenBack, warn: Callable[[str], None]) -> None:
    """Name the rows that are not this deployment's, so that nobody takes all of them to be back."""
    rows: dict[str, int] = done.reached["begun_before"]
    if rows and wanted.rule and wanted.restore_rows and wanted.failed_run is None:
        warn(
            say(
                "{rows} rows are in the archive of runs that were on the way to another commit and did not get there:"
                " {runs}. Next: ansible-playbook rollback.yml -l <environment> once more takes those back.",
                rows=sum(rows.values()),
                runs=", ".join(rows),
            )
        )


def _require_taken_back(plan: Plan, wanted: Wanted, done: TakenBack, *, ours: bool) -> None:
    content = content_of(wanted, done.reached)
    pending = content["pending"] + sum(content["elsewhere"].values())
    rule_is_gone = not wanted.rule or (
        all(found.verdict in _GONE or found.name in done.kept for found in done.inspection.verdicts)
        and (done.history in _NOT_APPLIED or not ours)
    )
    if not rule_is_gone or (wanted.restore_rows and pending != done.left_count):
        raise OperatorError(
            observed(
                "AMO-3607",
                "After the rollback the indexes are {summary}, the history is {history}, and {pending} "
                "rows are in the archive only, of which {left_count} cannot return.",
                summary=done.inspection.summary(),
                history=word(done.history),
                pending=pending,
                left_count=done.left_count,
            ),
            expected=say(
                "every planned index missing, rolled_back, and every row back that can return, where "
                "rollback_restore_rows says so."
            ),
            next_step=(
                say(
                    "rows of {tables} are kept: ansible-playbook rollback.yml -l <environment> names the statement by"
                    " which the archive learns that the table is {schema}.{table} now, and puts them back after it.",
                    tables=", ".join(content["elsewhere"]),
                    schema=plan.schema,
                    table=plan.table,
                )
                if wanted.restore_rows and content["elsewhere"]
                else say("run rollback.yml again; it goes on from what it finds.")
            ),
        )
    if wanted.as_before and done.reached["differences"]:
        raise OperatorError(
            observed(
                "AMO-3608",
                "Everything of this run is taken back, and yet it is not as before: {differences}.",
                differences=joined(map(difference, done.reached["differences"])),
            ),
            expected=say("the columns, constraints, indexes, triggers and applied migrations of the run's beginning."),
            next_step=say("find out whose these are."),
        )


@contextmanager
def _verdicts_in_errors(done: TakenBack) -> Iterator[None]:
    try:
        yield
    except OperatorError as stop:
        found = done.inspection
        verdicts = {
            "indexes": [asdict(verdict) for verdict in found.verdicts],
            "duplicates_left": found.duplicates_left,
        }
        stop.details = {**verdicts, **stop.details}
        raise
