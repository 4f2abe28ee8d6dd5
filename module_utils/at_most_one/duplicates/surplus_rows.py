"""Surplus rows of an "at most one" rule: find them, and remove exactly the reviewed ones into the archive.

Only rows inside the plan's predicate are ever candidates: history is not. No function here ever holds all rows, unless
it is asked for them.
"""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import psycopg2
import psycopg2.errors
from psycopg2 import sql

from ..errors import OperatorError
from ..findings import observed, say
from ..plan import Plan
from ..postgres import copy, own_schema
from ..postgres.catalog import (
    READING,
    WRITING,
    Column,
    Cursor,
    Row,
    columns_of,
    explain,
    lock_not_obtained,
    table_name,
    transaction,
    usual_search_path,
)
from ..postgres.checkpoint import Checkpoint, unasked
from ..postgres.connection import Connection, Hold, unheld
from . import archive, effects, plan_file, ranking, update_action, worklist
from .batches import EXAMPLES, Batches, Pace
from .groups import Group, described
from .key_equality import refuse_other_equality
from .references import Reference, count_references, foreign_keys, refuse_referenced, refuse_unpointable

SHOWN_ROWS = 10_000  # a report describes at most so many rows, however large its groups are
_ROUNDS = 5

digest = plan_file.digest


@dataclass(frozen=True)
class Report:
    """What there is to clean up, as of one snapshot. ``groups`` may be truncated, the counts and the digest never."""

    groups: list[Group]
    truncated: bool
    group_count: int
    row_count: int
    rows: list[Row]  # empty when they were handed over one by one
    digest: str
    referenced: list[Reference]
    open_total: int


@dataclass(frozen=True)
class Removal:
    """What was removed, or in check mode would be, and what is left by now. Examples are at most 1,000 primary keys."""

    removed: int
    archived: int
    kept_meanwhile: int  # requested, still in the table, no longer surplus
    gone_meanwhile: int  # requested, no longer in the table
    groups_left: int
    rows_left: int
    repointed: int  # rows of other tables that point to a keeper now
    batches: int
    seconds: float
    longest_batch_ms: int
    removed_examples: list[Row]
    kept_examples: list[Row]
    unarchived: list[worklist.Unarchived]  # each row that was requested and not archived by this, at most 1,000
    groups: list[Group]  # the first ones, as they were before, if they were to be described
    statements: list[str]
    warnings: list[str]


def report(
    connection: Connection, plan: Plan, *, limit: int = 1_000, into: Callable[[str], None] | None = None
) -> Report:
    """The duplicate groups, from one snapshot in a read-only transaction; at most ``limit`` groups in detail.

    With ``into`` every surplus row is handed over as its line for ``plan_file.write``: its primary key and, behind it,
    the hash of its content. ``rows`` stays empty then.
    """
    seen = plan_file.Digest()
    shown: list[tuple[int, int, Row]] = []
    rows: list[Row] = []
    group_count, parts = 0, len(plan.primary_key)

    def take(block: Iterator[list[str]]) -> None:
        nonlocal group_count
        for place, size, *row in block:
            primary_key = row[:parts]
            if place == "1":
                group_count += 1
            elif into is None:
                seen.add(primary_key)
                rows.append(primary_key)
            else:
                into(seen.add(row))
            if group_count <= limit and len(shown) < SHOWN_ROWS:
                shown.append((int(place), int(size), primary_key))

    with transaction(connection, READING, plan) as cursor:
        columns = columns_of(cursor, plan)
        refuse_other_equality(cursor, plan)
        content = archive.content(list(columns.values()), sql.Identifier(plan.table)) if into else None
        copy.read(cursor, _every_row(plan, content), take)
        cursor.execute(sql.SQL("SELECT pg_catalog.count(*) FROM ({}) AS c").format(ranking.inside(plan)), ())
        ((open_total,),) = cursor.fetchall()
        return Report(
            groups=described(cursor, plan, columns, shown),
            truncated=len(shown) < group_count + seen.count,
            group_count=group_count,
            row_count=seen.count,
            rows=sorted(rows),
            digest=seen.hexdigest(),
            referenced=count_references(cursor, plan, ranking.surplus(plan), {}),
            open_total=open_total,
        )


def _every_row(plan: Plan, content: sql.Composable | None) -> sql.Composed:
    """Place, size of the group and primary key of every row of every group, in the order of the keys, best row first;
    of surplus rows also their ``content``.

    The order is the one that they were ranked in: nothing is sorted again, and each content is looked up by its place.
    """
    looked_up = (
        sql.SQL(", CASE WHEN place = 1 THEN '' ELSE (SELECT {} FROM {} WHERE {}) END").format(
            content, sql.Identifier(plan.schema, plan.table), ranking.at_its_place(plan, "at_most_one_duplicate")
        )
        if content
        else sql.SQL("")
    )
    return sql.SQL("SELECT place, size, {}{} FROM ({}) AS at_most_one_duplicate ORDER BY {}, {}").format(
        ranking.listed(ranking.numbered("p", len(plan.primary_key))),
        looked_up,
        ranking.duplicates(plan),
        ranking.keys(plan),
        ranking.order(plan),
    )


def remove(
    connection: Connection,
    plan: Plan,
    *,
    rows: Iterable[Sequence[str]],
    digest: str,
    run_id: str,
    max_rows: int | None = None,
    expected_groups: int | None = None,
    expected_rows: int | None = None,
    only_unchanged: bool = False,
    check: bool = False,
    describe: bool = False,
    pace: Pace | None = None,
    hold: Hold = unheld,
    checkpoint: Checkpoint = unasked,
) -> Removal:
    """Remove those of ``rows`` that are still surplus, each archived whole, in batches that are a transaction each.

    Every limit is checked before the first batch. The rows of a group are locked first and ranked as they are under the
    lock. So a row completed meanwhile stays; and when the row to keep was completed meanwhile, the next one in the
    plan's order is kept in its place. What stops it between two batches leaves whole batches, and the next call goes
    on. An OperatorError's details say what was ``removed`` until then. Limits default to the plan's. ``checkpoint`` is
    asked before each batch.

    ``only_unchanged``: each row has the hash of its content behind its primary key, and one that has changed stays.

    Check mode looks at the same work list, takes no lock on rows and leaves nothing.
    """
    began = time.monotonic()
    with _nothing_left_behind(connection):
        with transaction(connection, WRITING, plan) as cursor:
            if not check:
                hold(connection)
            known = effects.known(cursor, plan)  # first: what comes after it, a batch sees
            columns = columns_of(cursor, plan)
            refuse_other_equality(cursor, plan)
            requested = _load_reviewed(cursor, plan, columns, rows, digest, max_rows, only_unchanged)
            rank = functools.partial(worklist.rank, plan=plan, columns=columns, only_unchanged=only_unchanged)
            work = rank(cursor)
            _refuse_unexpected(
                work,
                plan.expected.groups if expected_groups is None else expected_groups,
                plan.expected.rows if expected_rows is None else expected_rows,
            )
            # An updated row is still there: who points to it may go on pointing to it.
            refers = plan.surplus.action == "delete" and bool(foreign_keys(cursor, plan))
            _refuse_what_cannot_be_done(cursor, plan, columns, refers=refers)
            shown = worklist.first_rows(cursor, plan, EXAMPLES) if describe else []
            groups = described(cursor, plan, columns, shown) if shown else []
            batches = Batches(
                plan,
                columns,
                run_id,
                usual_search_path(cursor),
                pace or Pace(),
                hold,
                known=known,
                only_unchanged=only_unchanged,
                checkpoint=checkpoint,
            )
            statements = [
                *(own_schema.missing if check else own_schema.ensure)(connection),
                batches.statements.removal().as_string(cursor),
            ] if work.planned else []  # fmt: skip
            if check:
                batches.progress.removed = work.planned
                batches.progress.examples = worklist.examples(cursor, plan, EXAMPLES)
                left = work.groups_left, work.rows - work.planned
                kept, gone = _unarchived(cursor, plan, columns, worklist.planned(plan), run_id)
                absent = worklist.absent(cursor, plan)
                connection.rollback()
        if not check:
            left = _work_off(connection, plan, batches, rank, work, requested, refers=refers)
            try:
                with transaction(connection, WRITING, plan) as cursor:
                    kept, gone, absent = (0, []), [], 0
                    if batches.progress.removed != requested:
                        rank(cursor)  # as it is by now: why a row stays is said of that
                        kept, gone = _unarchived(cursor, plan, columns, None, run_id)
                        absent = worklist.absent(cursor, plan)
                        if plan.surplus.action == "delete":
                            absent -= batches.progress.removed
            except OperatorError as stop:  # what left is committed
                raise batches.progress.add_to(stop) from stop
    progress = batches.progress
    return Removal(
        removed=progress.removed,
        archived=progress.removed,
        kept_meanwhile=kept[0],
        gone_meanwhile=max(0, absent),
        groups_left=left[0],
        rows_left=left[1],
        repointed=progress.repointed,
        batches=progress.batches,
        seconds=round(time.monotonic() - began, 3),
        longest_batch_ms=progress.longest_ms,
        removed_examples=progress.examples,
        kept_examples=[stayed.row for stayed in kept[1]],
        unarchived=[*kept[1], *gone][:EXAMPLES],
        groups=groups,
        statements=statements,
        warnings=progress.warnings,
    )


_Rows = list[worklist.Unarchived]


def _unarchived(
    cursor: Cursor, plan: Plan, columns: Mapping[str, Column], planned: sql.Composable | None, run_id: str
) -> tuple[tuple[int, _Rows], _Rows]:
    """The requested rows that are still in the table, also how many, and those that are not; without what this run has
    archived, in check mode without what it has ``planned``."""
    ours = archived = sql.SQL("SELECT {} WHERE false").format(
        ranking.listed(sql.SQL("NULL::{}").format(sql.SQL(columns[name].type)) for name in plan.primary_key)
    )
    if not own_schema.missing(cursor.connection):
        ours, archived = (archive.keys_of_run(plan, columns, every_run=every) for every in (False, True))
    # A row that was removed and is in the table again came back by somebody else; an updated one never left.
    went = planned or (ours if plan.surplus.action == "update" else None)
    return (
        worklist.stayed(cursor, plan, went, EXAMPLES, run_id=run_id),
        worklist.gone(cursor, plan, archived, ours, EXAMPLES, run_id=run_id),
    )


@contextlib.contextmanager
def _nothing_left_behind(connection: Connection) -> Iterator[None]:
    """The session is afterwards as it was, however this ends; unless it has ended with it."""
    try:
        yield
    finally:
        with contextlib.suppress(psycopg2.Error):
            connection.rollback()
            connection.autocommit = False
            with connection.cursor() as cursor:
                cursor.execute("DEALLOCATE ALL")
                worklist.drop(cursor)
                cursor.execute("RESET enable_seqscan; RESET plan_cache_mode; RESET jit; RESET application_name")
            connection.commit()


def _load_reviewed(
    cursor: Cursor,
    plan: Plan,
    columns: Mapping[str, Column],
    rows: Iterable[Sequence[str]],
    reviewed: str,
    max_rows: int | None,
    only_unchanged: bool,
) -> int:
    """Take the rows to the server, and refuse them unless they are what was reviewed and within the ceiling."""
    seen = worklist.load(cursor, plan, columns, rows, only_unchanged=only_unchanged)
    if seen.hexdigest() != reviewed:
        raise OperatorError(
            observed(
                "AMO-3209",
                "The {count} given rows have digest {hexdigest}, the reviewed ones {reviewed}.",
                count=seen.count,
                hexdigest=seen.hexdigest()[:12],
                reviewed=reviewed[:12],
            ),
            expected=say("exactly the rows that were reviewed."),
            next_step=say("make the report again, review it, and give its rows and its digest together."),
            digest=seen.hexdigest(),
            reviewed=reviewed,
        )
    ceiling = plan.ceiling if max_rows is None else max_rows
    if seen.count > ceiling:
        raise OperatorError(
            observed(
                "AMO-3210",
                "{count} rows are to leave {table}, the ceiling is {ceiling}.",
                count=seen.count,
                table=table_name(plan),
                ceiling=ceiling,
            ),
            expected=say("at most {ceiling} rows in one run.", ceiling=ceiling),
            next_step=say(
                "look at the report for rows that should not be in it; raise the plan's ceiling only after that."
            ),
            rows=seen.count,
            ceiling=ceiling,
        )
    return seen.count


def _refuse_unexpected(found: worklist.Work, groups: int | None, rows: int | None) -> None:
    for what, seen, expected in ((say("groups"), found.groups, groups), (say("surplus rows"), found.rows, rows)):
        if expected is not None and seen > expected:
            raise OperatorError(
                observed(
                    "AMO-3211",
                    "{seen} {what} found, {expected} expected: {more} more than when the plan was written.",
                    seen=seen,
                    what=what,
                    expected=expected,
                    more=seen - expected,
                ),
                expected=say("at most {expected} {what}.", expected=expected, what=what),
                next_step=say(
                    "find out where the others come from; then correct the plan's expected figures, or clean up."
                ),
                found={"groups": found.groups, "rows": found.rows},
                expected_counts={"groups": groups, "rows": rows},
            )


def _refuse_what_cannot_be_done(cursor: Cursor, plan: Plan, columns: Mapping[str, Column], *, refers: bool) -> None:
    if plan.surplus.action == "update":
        update_action.require_leaves_predicate(cursor, plan, columns, worklist.planned(plan))
    elif refers and plan.surplus.references == "repoint":
        refuse_unpointable(cursor, plan)
    elif refers:
        refuse_referenced(plan, count_references(cursor, plan, worklist.planned(plan), {}))


def _work_off(
    connection: Connection,
    plan: Plan,
    batches: Batches,
    rank: Callable[[Cursor], worklist.Work],
    work: worklist.Work,
    requested: int,
    *,
    refers: bool,
) -> tuple[int, int]:
    """Run the batches. Returns the groups and the surplus rows that are left.

    Another round is for rows that others changed between the ranking and their batch.
    """
    try:
        for turn in range(_ROUNDS):
            went = 0
            if work.planned:
                with _in_autocommit(connection):
                    went = batches.run(connection, work, requested, refers=refers, again=turn > 0)
            with transaction(connection, WRITING, plan) as cursor:
                cursor.execute(ranking.count(plan), ())
                ((groups, rows),) = cursor.fetchall()
                if not rows or went == work.planned:
                    break
                work = rank(cursor)
        return groups, rows
    except psycopg2.errors.LockNotAvailable as failure:
        raise batches.progress.add_to(lock_not_obtained(connection, plan, failure)) from failure
    except psycopg2.Error as failure:
        # A batch commits itself: when its answer is lost, so is whether it did. A cancelled one has not.
        lost = not isinstance(failure, psycopg2.errors.QueryCanceled)
        raise batches.progress.add_to(explain(failure, plan, committing=lost)) from failure
    except OperatorError as stop:
        raise batches.progress.add_to(stop) from stop


@contextlib.contextmanager
def _in_autocommit(connection: Connection) -> Iterator[None]:
    connection.autocommit = True
    try:
        yield
    finally:
        with contextlib.suppress(psycopg2.Error):
            connection.autocommit = False
