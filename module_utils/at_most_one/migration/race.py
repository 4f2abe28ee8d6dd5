"""Two sessions insert a row of the same key at once, in transactions that are rolled back.

It is the proof of the rule where no application can be asked. Both insert a copy of a row that is inside the rule,
under a primary key of its own, and hold that row meanwhile, so that nobody takes it out of the rule. ``proven`` is
only said of what PostgreSQL has answered: 23505 to both, by the planned index. Triggers that the plan does not allow
are not set off: then nothing is tried.
"""

from __future__ import annotations

import contextlib
import math
import threading
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import psycopg2
import psycopg2.errors
from psycopg2 import sql

from ..duplicates import effects
from ..errors import OperatorError
from ..findings import Phrase, observed, say
from ..plan import Plan
from ..postgres.catalog import (
    READING,
    WRITING,
    Column,
    Cursor,
    Row,
    columns_of,
    predicate_sql,
    transaction,
    usual_search_path,
    without_null_keys,
)
from ..postgres.connection import Connection, Login, connect
from ..postgres.partitions import names_in_tree
from ..postgres.server_errors import first_line

_RACERS = 2
_LOCK_TIMEOUT_MS, _STATEMENT_TIMEOUT_MS = 500, 5_000
_BEYOND = 1_000  # the service's own next numbers are below
_NUMBERS, _TEXTS = ("smallint", "integer", "bigint", "numeric"), ("text", "character varying")
_LET_THROUGH = "inserted"


@dataclass(frozen=True)
class Race:
    """What came of it: ``proven``, or ``not tried`` and why. ``answers``: SQLSTATE and index, for each insert."""

    verdict: str
    index: str
    answers: tuple[str, ...] = ()
    why: str = ""

    def as_data(self) -> dict[str, Any]:
        """The same as a mapping, with the phrase of ``why`` for the control node."""
        phrases = {"why": self.why.as_data()} if isinstance(self.why, Phrase) else {}
        return {**asdict(self), "why": str(self.why), "phrases": phrases}


@dataclass(frozen=True)
class _Sample:
    """A row inside the rule, by its primary key, and keys for its copies."""

    key: Row
    copies: Sequence[Row]
    columns: Mapping[str, Column]
    search_path: str


def run(login: Login, plan: Plan) -> Race:
    """Let them race. Raises OperatorError when an insert goes through, or when a row is left afterwards."""
    index = plan.rule_index.name
    with connect(login, lock_timeout_ms=_LOCK_TIMEOUT_MS, statement_timeout_ms=_STATEMENT_TIMEOUT_MS) as connection:
        with transaction(connection, READING, plan) as cursor:
            sample = _sample(cursor, plan)
            names = names_in_tree(cursor, plan.schema, index)  # a partition names its own part of it
        if isinstance(sample, str):
            return Race("not tried", index, why=sample)
        answers = _answers(login, plan, sample)
        with transaction(connection, READING, plan) as cursor:
            _require_nothing_left(cursor, plan, sample)
    if _LET_THROUGH in answers:
        raise OperatorError(
            observed(
                "AMO-3624",
                "{passed} of {racers} inserts of a key that is taken went through, in transactions that were rolled"
                " back: {index} does not refuse them.",
                passed=answers.count(_LET_THROUGH),
                racers=_RACERS,
                index=index,
            ),
            expected=say("23505 (unique_violation) by {index} for each of them.", index=index),
            next_step=say(
                "find out who has dropped or changed the index: ansible-playbook deploy.yml -l <environment> --tags"
                " verify --check compares it with the plan."
            ),
            cause="race",
            answers=list(answers),
        )
    refused = [f"23505 {name}" for name in names]
    if any(answer not in refused for answer in answers):
        other = next(answer for answer in answers if answer not in refused)
        why = say("PostgreSQL answered an insert otherwise: {answer}", answer=other)
        return Race("not tried", index, tuple(answers), why)
    return Race("proven", index, tuple(answers))


_INSIDE = "SELECT {key} FROM {table} WHERE {predicate}{keys} LIMIT 1"


def _sample(cursor: Cursor, plan: Plan) -> _Sample | str:
    """A row to copy, or why there is none."""
    columns = columns_of(cursor, plan)
    found = effects.of_table(cursor, plan.schema, plan.table, effects.INSERT)
    unknown = sorted({effect.name for effect in found if effect.name not in plan.surplus.triggers})
    if unknown:
        return say(
            "an insert would set off {effects}, which surplus.triggers of the plan does not allow",
            effects=", ".join(unknown),
        )
    cursor.execute(
        sql.SQL(_INSIDE).format(
            key=sql.SQL(", ").join(
                sql.SQL("{}::text").format(sql.Identifier(plan.table, name)) for name in plan.primary_key
            ),
            table=sql.Identifier(plan.schema, plan.table),
            predicate=predicate_sql(plan),
            keys=without_null_keys(plan),
        ),
        (),
    )
    row = cursor.fetchone()
    if row is None:
        return say("no row is inside the rule, so that there is none to copy")
    copies = [_copy_key(cursor, plan, columns, list(row), number) for number in range(_RACERS)]
    if None in copies:
        return say("no new primary key can be made of {columns}", columns=", ".join(plan.primary_key))
    return _Sample(list(row), [copy for copy in copies if copy], columns, usual_search_path(cursor))


def _copy_key(cursor: Cursor, plan: Plan, columns: Mapping[str, Column], row: Row, number: int) -> Row | None:
    """The sample's primary key, with a value that no row has in the first column outside the rule's key."""
    for place, name in enumerate(plan.primary_key):
        made = None if name in plan.key else _new_value(cursor, plan, columns[name], number)
        if made is not None:
            return [*row[:place], made, *row[place + 1 :]]
    return None


def _new_value(cursor: Cursor, plan: Plan, column: Column, number: int) -> str | None:
    if column.type == "uuid" or column.type in _TEXTS:
        return str(uuid.uuid4())
    if column.type not in _NUMBERS:
        return None
    highest = sql.SQL("SELECT max({}) FROM {}").format(
        sql.Identifier(column.name), sql.Identifier(plan.schema, plan.table)
    )
    cursor.execute(highest)
    ((value,),) = cursor.fetchall()
    return str(int(value) + _BEYOND + number) if math.isfinite(value) else None


# Who holds the row keeps others from taking it out of the rule; both racers may.
_INSERT = """
INSERT INTO {table} ({columns}) OVERRIDING SYSTEM VALUE
SELECT {values} FROM {table} WHERE {is_sample} AND {predicate}{keys} FOR SHARE"""


def _answers(login: Login, plan: Plan, sample: _Sample) -> list[str]:
    """What PostgreSQL says to each of the racers, who begin at once."""
    answers = [""] * _RACERS
    together = threading.Barrier(_RACERS)

    def race(number: int) -> None:
        try:
            with connect(
                login, lock_timeout_ms=_LOCK_TIMEOUT_MS, statement_timeout_ms=_STATEMENT_TIMEOUT_MS
            ) as connection:
                answers[number] = _one(connection, plan, sample, sample.copies[number], together)
        except (psycopg2.Error, OperatorError) as failure:
            together.abort()
            answers[number] = first_line(failure)

    threads = [threading.Thread(target=race, args=(number,), daemon=True) for number in range(_RACERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return [answer or "no answer" for answer in answers]


def _one(connection: Connection, plan: Plan, sample: _Sample, key: Row, together: threading.Barrier) -> str:
    try:
        with connection.cursor() as cursor:
            cursor.execute(WRITING)
            cursor.execute("SELECT pg_catalog.set_config('search_path', %s, true)", (sample.search_path,))
            statement, values = _insert(plan, sample), {**_named("sample", sample.key), **_named("copy", key)}
            with contextlib.suppress(threading.BrokenBarrierError):
                together.wait(10)
            try:
                cursor.execute(statement, values)
            except psycopg2.Error as failure:
                if failure.pgcode is None:
                    return first_line(failure)
                return " ".join(filter(None, (failure.pgcode, failure.diag.constraint_name)))
            return _LET_THROUGH if cursor.rowcount else say("nothing inserted: the copied row has left the rule")
    finally:
        connection.rollback()


def _insert(plan: Plan, sample: _Sample) -> sql.Composed:
    """The parameters are those of :func:`_named`, for the sample and for its copy."""
    made = {name: sql.Placeholder(f"copy{number}") for number, name in enumerate(plan.primary_key)}
    names = [name for name, column in sample.columns.items() if not column.generated]
    values = [
        sql.SQL("{}::{}").format(made[name], sql.SQL(sample.columns[name].type))
        if name in made
        else sql.Identifier(plan.table, name)
        for name in names
    ]
    return sql.SQL(_INSERT).format(
        table=sql.Identifier(plan.schema, plan.table),
        columns=sql.SQL(", ").join(map(sql.Identifier, names)),
        values=sql.SQL(", ").join(values),
        is_sample=_is(plan, sample, "sample"),
        predicate=predicate_sql(plan),
        keys=without_null_keys(plan),
    )


def _named(prefix: str, key: Row) -> dict[str, str]:
    return {f"{prefix}{number}": part for number, part in enumerate(key)}


def _is(plan: Plan, sample: _Sample, prefix: str) -> sql.Composed:
    """Whether a row has the primary key whose parts are parameters of this prefix."""
    return sql.SQL(" AND ").join(
        sql.SQL("{} = {}::{}").format(
            sql.Identifier(plan.table, name), sql.Placeholder(f"{prefix}{number}"), sql.SQL(sample.columns[name].type)
        )
        for number, name in enumerate(plan.primary_key)
    )


def _require_nothing_left(cursor: Cursor, plan: Plan, sample: _Sample) -> None:
    keys = {f"copy{number}_": key for number, key in enumerate(sample.copies)}
    copies = sql.SQL(" OR ").join(sql.SQL("({})").format(_is(plan, sample, prefix)) for prefix in keys)
    values = {name: part for prefix, key in keys.items() for name, part in _named(prefix, key).items()}
    cursor.execute(
        sql.SQL("SELECT count(*) FROM {} WHERE {}").format(sql.Identifier(plan.schema, plan.table), copies), values
    )
    ((left,),) = cursor.fetchall()
    if left:
        raise OperatorError(
            observed(
                "AMO-3625",
                "{left} rows of {schema}.{table} have the primary keys that were made up for the race.",
                left=left,
                schema=plan.schema,
                table=plan.table,
            ),
            expected=say("none: both inserts were rolled back."),
            next_step=say("compare the rows with the highest primary keys with what the service has written just now."),
            cause="race",
        )
