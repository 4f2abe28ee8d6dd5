"""A few surplus rows leave and return before any does, in one transaction that is rolled back.

They leave by the statements of the removal and return by those of the restore, so what would bar either is met while
nothing has changed: a trigger that stamps rows, a constraint, a column that does not come back as it was. What else
they set off is refused unless the plan allows it by name, because it is neither archived nor taken back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import psycopg2
import psycopg2.errors
from psycopg2 import sql

from ..duplicates import archive, effects, ranking, row_size, worklist
from ..duplicates.batches import Batches, Pace
from ..duplicates.key_equality import refuse_other_equality
from ..duplicates.references import Pointing, foreign_keys, pointing_rows, read_again, refuse_unpointable
from ..duplicates.restore import restore_within
from ..errors import OperatorError
from ..fence import exempting_index
from ..findings import Phrase, joined, observed, say
from ..plan import Plan
from ..postgres import own_schema, server_errors
from ..postgres.catalog import WRITING, Column, Cursor, Row, columns_of, explain, table_name, usual_search_path
from ..postgres.connection import Connection, unheld
from ..system.strict_zip import strict_zip

_ROWS, _SHAPES = 5, 20  # so many rows are tried at least, of so many shapes at most
_LOCK_TIMEOUT_MS = 500  # for rows that somebody holds
_RUN_ID = "at-most-one trial"


@dataclass
class Trial:
    """What came of it. Nothing of it stays in the database."""

    effects: list[Phrase] = field(default_factory=list)  # what the change sets off
    foreign_keys: list[Phrase] = field(default_factory=list)  # that would act on a row that points to a surplus one
    wrote: list[str] = field(default_factory=list)  # other tables that were written meanwhile
    rows: int = 0
    warnings: list[str] = field(default_factory=list)


def try_out(connection: Connection, plan: Plan) -> Trial:
    """Let a few surplus rows leave and return. Raises OperatorError for what the plan does not allow and for what bars
    the way. It ends the transaction that it finds, and its own; without surplus rows, nothing is tried or refused.

    Where it cannot be tried, because somebody holds the rows, a warning says so.
    """
    trial = Trial()
    connection.rollback()
    try:
        with connection.cursor() as cursor:
            cursor.execute(WRITING)
            columns = columns_of(cursor, plan)
            refuse_other_equality(cursor, plan)
            found, acting = effects.of_plan(cursor, plan)
            trial.effects, trial.foreign_keys = [one.phrase for one in found], [one.phrase for one in acting]
            narrowed, rows = _sample(cursor, plan, columns)
            if not rows:
                return trial
            effects.require_counts(cursor, plan)
            _refuse_effects(plan, [*found, *(acting if plan.surplus.action == "update" else [])])
            row_size.refuse_too_large(cursor, plan, columns)
            _refuse_unreadable(cursor, plan, columns)
            if _repoints(plan):
                refuse_unpointable(cursor, plan)
            # Under the triggers of an older release's fence no surplus row may return; an index exempts those rows.
            if not exempting_index.triggers(cursor, plan):
                trial.wrote = _there_and_back(cursor, plan, narrowed, columns, rows)
                effects.refuse_writes(plan, trial.wrote)
                trial.rows = len(rows)
    except OperatorError as stop:
        if "references" not in stop.details:  # a row that another one points to: the dry run counts all of them
            raise
    except psycopg2.errors.LockNotAvailable:
        trial.warnings.append(
            say(
                "Whether rows can leave and return was not tried: another session holds rows of {table}.",
                table=table_name(plan),
            )
        )
    except psycopg2.Error as failure:
        raise explain(failure, plan) from failure
    finally:
        connection.rollback()
        with connection.cursor() as cursor:
            cursor.execute("DEALLOCATE ALL")
        connection.commit()
    return trial


# What most often decides whether a row could return is its shape: which of its columns are NULL, and what its flags and
# enums say. Each row is looked up by its place, once the ranking has named it.
_SAMPLE = """
WITH shaped AS (
    SELECT {key} AS key, place,
        pg_catalog.first_value({key}) OVER (PARTITION BY {keys} ORDER BY place) AS keeper,
        CASE WHEN place > 1 THEN (
            SELECT ROW({shape})::text FROM {table} WHERE {at_its_place}
        ) END AS shape
    FROM ({duplicates}) AS at_most_one_duplicate),
placed AS (
    SELECT key, keeper, pg_catalog.row_number() OVER (PARTITION BY shape ORDER BY key) AS place_in_shape
    FROM shaped WHERE place > 1)
SELECT key, keeper, place_in_shape FROM placed ORDER BY place_in_shape, key LIMIT {most}"""

_FEW_VALUES = """
SELECT a.attname FROM pg_catalog.pg_attribute AS a JOIN pg_catalog.pg_type AS t ON t.oid = a.atttypid
WHERE a.attrelid = pg_catalog.to_regclass(%s)
    AND (t.typtype = 'e' OR t.oid = 'pg_catalog.bool'::pg_catalog.regtype)"""


def _sample(cursor: Cursor, plan: Plan, columns: Mapping[str, Column]) -> tuple[Plan, list[Row]]:
    """A surplus row of each shape, at most so many, and not fewer than a few: the plan narrowed to them and to the rows
    to keep in their place, and their primary keys."""
    table = sql.Identifier(plan.schema, plan.table)
    cursor.execute(_FEW_VALUES, (table.as_string(cursor),))
    shape = [
        *(sql.SQL("{} IS NULL").format(column) for column in ranking.of(plan.table, columns)),
        *ranking.of(plan.table, [name for (name,) in cursor.fetchall()]),
    ]
    cursor.execute(
        sql.SQL(_SAMPLE).format(
            key=ranking.text_array(ranking.numbered("p", len(plan.primary_key))),
            keys=ranking.keys(plan),
            shape=ranking.listed(shape),
            table=table,
            at_its_place=ranking.at_its_place(plan, "at_most_one_duplicate"),
            duplicates=ranking.duplicates(plan),
            most=sql.Literal(_SHAPES),
        ),
        (),
    )
    found = [
        (key, keeper)
        for number, (key, keeper, place_in_shape) in enumerate(cursor.fetchall())
        if place_in_shape == 1 or number < _ROWS
    ]
    only = sql.SQL("({}) IN ({})").format(
        ranking.listed(ranking.of(plan.table, plan.primary_key)),
        ranking.listed(
            sql.SQL("({})").format(
                ranking.listed(
                    sql.SQL("{}::{}").format(sql.Literal(part), sql.SQL(columns[name].type))
                    for part, name in strict_zip(row, plan.primary_key)
                )
            )
            for pair in found
            for row in pair
        ),
    )
    narrowed = replace(plan, predicate=f"({plan.predicate}\n) AND {only.as_string(cursor)}") if found else plan
    return narrowed, [key for key, _ in found]


def _refuse_effects(plan: Plan, found: Sequence[effects.Effect]) -> None:
    unknown = [effect for effect in found if effect.name not in plan.surplus.triggers]
    if not unknown:
        return
    names = sorted({effect.name for effect in found})
    raise OperatorError(
        observed(
            "AMO-2317",
            "What the run does to {table} sets off {unknown}.",
            table=table_name(plan),
            unknown=effects.in_words(unknown),
        ),
        expected=say("nothing that the plan does not name: what it does is neither archived nor taken back."),
        next_step=say(
            "read what it does; if it may happen, add to surplus in plans/{plan_id}.yml: triggers: "
            "[{names}]; otherwise disable it for as long as the run lasts.",
            plan_id=plan.file,
            names=", ".join(names),
        ),
        effects=[str(effect) for effect in unknown],
    )


def _there_and_back(
    cursor: Cursor, plan: Plan, narrowed: Plan, columns: Mapping[str, Column], rows: list[Row]
) -> list[str]:
    """Remove and restore the rows. Returns the tables that were written besides the plan's."""
    own_schema.ensure(cursor.connection)
    worklist.load(cursor, narrowed, columns, rows)
    work = worklist.rank(cursor, narrowed, columns)
    known = effects.known(cursor, plan)
    batches = Batches(narrowed, columns, _RUN_ID, usual_search_path(cursor), Pace(), unheld, known=known)
    pointing = pointing_rows(cursor, plan, columns, rows) if _repoints(plan) else []
    before = effects.written(cursor)
    refers = plan.surplus.action == "delete" and bool(foreign_keys(cursor, plan))
    batches.try_out(cursor, work.members, _LOCK_TIMEOUT_MS, refers=refers)
    effects.refuse_other_rows(cursor, plan, effects.written(cursor, before), len(rows))
    left = restore_within(cursor, plan, run_id=_RUN_ID).left
    if left:
        found = effects.of_table(cursor, plan.schema, plan.table)
        raise OperatorError(
            observed(
                "AMO-2318",
                "Rows that leave {table} could not return: {left}. Found on the table: {found}.",
                table=table_name(plan),
                left=joined(one.phrase for one in left),
                found=effects.in_words(found) or say("no trigger"),
            ),
            expected=say("every row of a sample to leave and to return byte for byte; it was tried and rolled back."),
            next_step=say(
                "let it pass such rows through, or disable it for as long as they leave and return, then "
                "run this again. Nothing has changed."
            ),
            left=[str(one) for one in left],
        )
    for one in pointing:
        if read_again(cursor, one) != one:
            raise _not_as_before(cursor, plan, one)
    return effects.besides(cursor, plan, effects.written(cursor, before))


_IMAGES = """
SELECT pg_catalog.count((SELECT {hash} FROM {table} WHERE {at_its_place}))
FROM ({duplicates}) AS at_most_one_duplicate"""


def _refuse_unreadable(cursor: Cursor, plan: Plan, columns: Mapping[str, Column]) -> None:
    """Stop if a row of a group holds bytes that are no text. Only SQL_ASCII takes such."""
    cursor.execute("SELECT pg_catalog.current_setting('server_encoding')")
    if cursor.fetchall() != [("SQL_ASCII",)]:
        return
    try:
        cursor.execute(
            sql.SQL(_IMAGES).format(
                hash=archive.sha256(archive.image(list(columns.values()), sql.Identifier(plan.table))),
                table=sql.Identifier(plan.schema, plan.table),
                at_its_place=ranking.at_its_place(plan, "at_most_one_duplicate"),
                duplicates=ranking.duplicates(plan),
            ),
            (),
        )
    except psycopg2.errors.CharacterNotInRepertoire as failure:
        raise OperatorError(
            observed(
                "AMO-2350",
                "The database's encoding is SQL_ASCII, and a row of {table} holds bytes that are no UTF-8: {message}.",
                table=table_name(plan),
                message=server_errors.first_line(failure),
            ),
            expected=say("rows that are text: they are archived, and compared, as text in UTF-8."),
            next_step=say(
                "repair these rows, or move the database to the encoding UTF8 (pg_dump --encoding, then pg_restore); "
                "then run this again. Nothing has changed."
            ),
        ) from failure


def _repoints(plan: Plan) -> bool:
    return plan.surplus.action == "delete" and plan.surplus.references == "repoint"


def _not_as_before(cursor: Cursor, plan: Plan, one: Pointing) -> OperatorError:
    table = f"{one.schema}.{one.table}"
    return OperatorError(
        observed(
            "AMO-2352",
            "Rows of {table} that are pointed to the row that stays, and back, are not as they were. Found on the "
            "table: {found}.",
            table=table,
            found=effects.in_words(effects.of_table(cursor, one.schema, one.table, effects.UPDATE))
            or say("no trigger"),
        ),
        expected=say(
            "nothing of them but the reference to change: what else changes is neither archived nor taken back."
        ),
        next_step=say(
            "disable what changes them for as long as the run lasts (ALTER TABLE {table} DISABLE TRIGGER ...), or take "
            "surplus.references: stop in plans/{plan_id}.yml; then run this again. Nothing has changed.",
            table=table,
            plan_id=plan.file,
        ),
    )
