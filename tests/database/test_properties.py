"""The set-based clean-up against a plain Python oracle, on thousands of generated tables.

Many small tables lie side by side in one real table, each with keys of its own, so that one round trip judges all of
them; only NULL keys meet across them, where NULLS NOT DISTINCT makes them equal. The oracle looks at the real table as
a whole and knows nothing of SQL: it groups, filters and sorts.
"""

from __future__ import annotations

import hashlib
import math
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from at_most_one.duplicates import surplus_rows
from at_most_one.duplicates.restore import restore
from at_most_one.plan import Plan, parse
from at_most_one.postgres.connection import Connection
from hypothesis import given, settings
from hypothesis import strategies as st
from psycopg2 import sql
from psycopg2.extras import execute_values

SCHEMA, TABLE = 'Aed "pics"', "규칙's table"
SIDE_BY_SIDE = 14  # small tables in one round trip: with more of them hypothesis leaves most of them empty
ROUND_TRIPS = 19  # per shape
OPEN = ("active", "paused")
EVERY_LIMIT = {"max_rows": 10_000, "expected_groups": 10_000, "expected_rows": 10_000}

Row = dict[str, Any]


@dataclass(frozen=True)
class Shape:
    """One kind of table. ``key`` and ``primary_key`` are columns with their types."""

    name: str
    key: dict[str, str]
    primary_key: dict[str, str]
    status: str = "text"
    nulls_not_distinct: bool = False
    update: bool = False  # surplus rows are cancelled instead of deleted


SERIAL, DAY, DEVICE, NUMBER = {"일련 번호": "text"}, {"day": "integer"}, {"device": "uuid"}, {"Device No": "bigint"}
ROOM, UID, BIG = {"room": 'text COLLATE "C"', "no": "integer"}, {"id": "uuid"}, {"id": "bigint"}
SHAPES = [
    Shape("a text key, an enum status", SERIAL, UID, status="aedpics.session_status"),
    Shape("a key and a primary key of two columns", SERIAL | DAY, ROOM),
    Shape("a text key whose NULLs are equal", SERIAL, BIG, nulls_not_distinct=True),
    Shape("two key columns whose NULLs are equal", SERIAL | DAY, UID, nulls_not_distinct=True),
    Shape("a uuid key", DEVICE, ROOM, status="aedpics.session_status"),
    Shape("a bigint key", NUMBER, BIG),
    Shape("a text key, surplus rows updated", SERIAL, BIG, status="aedpics.session_status", update=True),
    Shape("two key columns, surplus rows updated", SERIAL | DAY, ROOM, nulls_not_distinct=True, update=True),
]

# Sorted by one at a time, or by several; few values each, so that ties are common.
SORTS: dict[str, tuple[str, Sequence[Any]]] = {
    "started at": (
        "timestamptz",
        [None, *(datetime(2025, 11, 1, tzinfo=UTC) + timedelta(days=n, microseconds=n) for n in range(3))],
    ),
    "rank": ("integer", [None, -1, 0, 7]),
    "score": ("double precision", [None, math.nan, math.inf, -math.inf, 0.0, -0.0, 1.5]),
    "label": ('text COLLATE "C"', [None, "", "가", "\u1100\u1161", "é", "e\u0301", "Z", "a", "😀", "\uffff"]),
}
RATES = [None, "", "5%", "100%"]  # 100% is outside the predicate
NOTES = [None, "", "it's 100% \\ done", '점검 "끝"\n\t', "%s %(name)s {} 😀"]
AWKWARD = [
    *("", " ", "가", "\u1100\u1161", "é", "e\u0301", "😀", "👨\u200d👩\u200d👧", "O'Neil", 'say "hi"', "back\\slash"),
    *("100%", "%s", "%(p0)s", "NULL", "null", "{a,b}", "a\nb", "A", "a", "ÿ", "$1", "--", "\u202eabc", "ﬁ", "Straße"),
]
_words = st.sampled_from(AWKWARD) | st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=3
)

# One small table: the words its keys are made of, and its rows: which key, which second part, status, then choices.
_small_table = st.tuples(
    st.lists(_words, min_size=3, max_size=3),
    st.lists(
        st.tuples(
            st.sampled_from([0, 0, 0, 0, 1, 1, 2, None]),
            st.sampled_from([0, 0, 0, 0, 0, 1, None]),
            st.sampled_from(["active", "active", "active", "paused", "completed", "cancelled"]),
            st.sampled_from([0, 0, 0, 1, 1, 2, 3]),
            st.sampled_from(range(len(NOTES))),
            *(st.sampled_from(range(len(values))) for _, values in SORTS.values()),
        ),
        min_size=3,
        max_size=8,
    ),
)
_keep = st.lists(
    st.tuples(st.sampled_from(sorted(SORTS)), st.sampled_from(["asc", "desc"]), st.sampled_from(["first", "last"])),
    min_size=1,
    max_size=3,
    unique_by=lambda sort: sort[0],
)


def key_part(column: str, number: int, word: str, first: int, second: int | None) -> Any:
    """A value of a key column for small table ``number``: no other table has the same key."""
    if column == "일련 번호":
        return word + (f"#{number}" if number and second is None else "")
    if column == "day":
        return None if second is None else number * 10 + second
    if column == "device":
        return uuid.UUID(int=first << 96 | number)
    return (-1) ** number * (first * 2**40 + number)


def identity(columns: dict[str, str], position: int) -> Row:
    """A primary key whose order is not that of insertion."""
    mixed = position * 7919 % 1_000_003
    values = {"room": ["", "나", "r'1", "😀"][mixed % 4], "no": -mixed, "id": mixed - 500_000}
    if columns == UID:
        values["id"] = uuid.UUID(int=mixed << 64 | position)
    return {name: values[name] for name in columns}


def rows_of(shape: Shape, tables: Sequence[Any]) -> list[Row]:
    rows: list[Row] = []
    for number, (words, drawn) in enumerate(tables):
        for first, second, status, rate, note, *sorts in drawn:
            with_day = second if "day" in shape.key else None
            key = {
                name: None if first is None else key_part(name, number, words[first], first, with_day)
                for name in shape.key
            }
            if "day" in shape.key:  # its two parts are NULL independently of each other
                key["day"] = key_part("day", number, "", 0, second)
            rows.append(
                {
                    **identity(shape.primary_key, len(rows) + 1),
                    **key,
                    "상태": status,
                    "rate (old)": RATES[rate],
                    "note": NOTES[note],
                    **{name: SORTS[name][1][choice] for name, choice in zip(SORTS, sorts, strict=True)},
                }
            )
    return rows


# --- the oracle: no SQL in it -----------------------------------------------------------------------------------------


def comparable(value: Any) -> Any:
    """PostgreSQL's order of floats: NaN after infinity, equal to itself; -0 equal to 0."""
    return (math.isnan(value), 0.0 if math.isnan(value) else value) if isinstance(value, float) else value


def oracle(shape: Shape, rows: Sequence[Row], keep: Sequence[tuple[str, str, str]]) -> list[list[Row]]:
    """The groups of two and more rows, each with the row to keep first."""
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        key = tuple(row[name] for name in shape.key)
        if row["상태"] not in OPEN or row["rate (old)"] == "100%":
            continue
        if None in key and not shape.nulls_not_distinct:
            continue
        groups.setdefault(key, []).append(row)
    for group in groups.values():
        group.sort(key=lambda row: tuple(row[name] for name in shape.primary_key))
        for column, direction, nulls in reversed(keep):  # each sort is stable: the most significant comes last
            known = [row for row in group if row[column] is not None]
            unknown = [row for row in group if row[column] is None]
            known = descending(known, column) if direction == "desc" else ascending(known, column)
            group[:] = unknown + known if nulls == "first" else known + unknown
    return [group for group in groups.values() if len(group) > 1]


def ascending(rows: list[Row], column: str) -> list[Row]:
    return sorted(rows, key=lambda row: comparable(row[column]))


def descending(rows: list[Row], column: str) -> list[Row]:
    return sorted(rows, key=lambda row: comparable(row[column]), reverse=True)  # stable: ties keep their order


# --- the database -----------------------------------------------------------------------------------------------------


def plan_of(shape: Shape, keep: Sequence[tuple[str, str, str]]) -> Plan:
    predicate = """"상태" IN ('active', 'paused') AND "rate (old)" IS DISTINCT FROM '100%'"""
    rule = {"name": "one per key", "unique": True, "columns": list(shape.key), "predicate": predicate}
    surplus = (
        {"action": "update", "values": {"상태": "cancelled", "note": None}} if shape.update else {"action": "delete"}
    )
    return parse(
        {
            "id": f"property: {shape.name}",
            "title": {"en": shape.name, "ko": shape.name},
            "schema": SCHEMA,
            "table": TABLE,
            "primary_key": list(shape.primary_key),
            "key": list(shape.key),
            "predicate": predicate,
            "keep": [dict(zip(("column", "direction", "nulls"), sort, strict=True)) for sort in keep],
            "show": ["note"],
            "surplus": surplus,
            "ceiling": 10_000,
            "indexes": [{**rule, "nulls_not_distinct": shape.nulls_not_distinct}],
            "family": {"pattern": "^one per"},
            "migration": "20251110_properties",
        }
    )


class Bench:
    """The real table of one shape."""

    def __init__(self, connection: Connection, shape: Shape) -> None:
        self.connection, self.shape = connection, shape
        self.columns = {
            **shape.primary_key,
            **shape.key,
            "상태": shape.status,
            "rate (old)": "text",
            "note": "text",
            **{name: kind for name, (kind, _) in SORTS.items()},
        }
        self.table = sql.Identifier(SCHEMA, TABLE)
        columns = [sql.SQL("{} " + kind).format(sql.Identifier(name)) for name, kind in self.columns.items()]
        primary_key = sql.SQL("PRIMARY KEY ({})").format(sql.SQL(", ").join(map(sql.Identifier, shape.primary_key)))
        self.run(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(SCHEMA)))
        self.run(
            sql.SQL("CREATE TABLE {} ({})").format(self.table, sql.SQL(", ").join([*columns, primary_key])),
        )

    def run(self, statement: sql.Composable, *values: Any) -> list[tuple[Any, ...]]:
        with self.connection, self.connection.cursor() as cursor:
            cursor.execute(statement, values or None)
            return cursor.fetchall() if cursor.description else []

    def load(self, rows: Sequence[Row]) -> None:
        self.run(sql.SQL("TRUNCATE {}").format(self.table))
        self.run(sql.SQL("DROP TABLE IF EXISTS at_most_one.archived_row"))
        names = sql.SQL(", ").join(map(sql.Identifier, self.columns))
        with self.connection, self.connection.cursor() as cursor:
            text = sql.SQL("INSERT INTO {} ({}) VALUES %s").format(self.table, names).as_string(cursor)
            casts = ", ".join("%s::" + kind.partition(" COLLATE")[0] for kind in self.columns.values())
            values = [[str(v) if isinstance(v, uuid.UUID) else v for v in row.values()] for row in rows]
            if values:
                execute_values(cursor, text, values, template=f"({casts})", page_size=10_000)

    def images(self) -> dict[tuple[str, ...], dict[str, str | None]]:
        """Every row as the text of its columns, by primary key."""
        texts = sql.SQL(", ").join(sql.SQL("{}::text").format(sql.Identifier(name)) for name in self.columns)
        found = self.run(sql.SQL("SELECT {} FROM {}").format(texts, self.table))
        size = len(self.shape.primary_key)
        return {tuple(row[:size]): dict(zip(self.columns, row, strict=True)) for row in found}

    def digest(self) -> str:
        """One hash over all rows."""
        rows = self.run(sql.SQL("SELECT t::text FROM {} AS t ORDER BY 1").format(self.table))
        return hashlib.sha256("\n".join(row for (row,) in rows).encode()).hexdigest()

    def primary_key(self, row: Row) -> tuple[str, ...]:
        return tuple(str(row[name]) for name in self.shape.primary_key)


def judge(bench: Bench, rows: Sequence[Row], keep: Sequence[tuple[str, str, str]]) -> int:
    """The whole round trip; returns how many rows were surplus."""
    shape, connection, plan = bench.shape, bench.connection, plan_of(bench.shape, keep)
    bench.load(rows)
    before, hash_before = bench.images(), bench.digest()
    groups = oracle(shape, rows, keep)
    ranked = [[bench.primary_key(row) for row in group] for group in groups]
    keeper = {surplus: group[0] for group in ranked for surplus in group[1:]}

    found = surplus_rows.report(connection, plan)
    assert {tuple(row) for row in found.rows} == set(keeper)
    assert (found.group_count, found.row_count) == (len(groups), len(keeper))
    assert found.open_total == sum(row["상태"] in OPEN and row["rate (old)"] != "100%" for row in rows)
    shown = [[tuple(map(row.get, shape.primary_key)) for row in (g.keep, *g.surplus)] for g in found.groups]
    assert sorted(shown) == sorted(ranked)

    work: dict[str, Any] = {"rows": found.rows, "digest": found.digest, "run_id": "run-1", **EVERY_LIMIT}
    predicted = surplus_rows.remove(connection, plan, **work, check=True)
    assert (predicted.archived, predicted.groups_left, predicted.rows_left) == (len(keeper), 0, 0)
    assert bench.digest() == hash_before

    done = surplus_rows.remove(connection, plan, **work)
    assert (done.archived, done.groups_left, done.rows_left) == (len(keeper), 0, 0)
    assert bench.images() == after(shape, before, set(keeper)), "exactly these rows went, and every other one stayed"
    assert surplus_rows.report(connection, plan).row_count == 0
    if keeper:
        kept = bench.run(
            sql.SQL('SELECT primary_key, keeper, "row", row_sha256, action, run_id FROM at_most_one.archived_row')
        )
        assert {by_name(shape, pk): by_name(shape, stays) for pk, stays, *_ in kept} == keeper
        assert {by_name(shape, pk): image for pk, _, image, *_ in kept} == {pk: before[pk] for pk in keeper}
        assert len(kept) == len(keeper)
        assert {action for *_, action, _ in kept} == {plan.surplus.action}

    restore(connection, plan, run_id="run-1")
    assert bench.digest() == hash_before
    assert bench.images() == before
    return len(keeper)


def after(
    shape: Shape, before: dict[tuple[str, ...], Any], surplus: set[tuple[str, ...]]
) -> dict[tuple[str, ...], Any]:
    if not shape.update:
        return {pk: image for pk, image in before.items() if pk not in surplus}
    changed = {"상태": "cancelled", "note": None}
    return {pk: {**image, **changed} if pk in surplus else image for pk, image in before.items()}


def by_name(shape: Shape, primary_key: dict[str, str]) -> tuple[str, ...]:
    return tuple(primary_key[name] for name in shape.primary_key)


@pytest.mark.parametrize(
    "shape",
    [*SHAPES[:-1], pytest.param(SHAPES[-1], marks=pytest.mark.versions)],
    ids=lambda shape: shape.name,
)
def test_what_goes_what_stays_and_what_comes_back_is_what_the_oracle_says(
    connection: Connection, shape: Shape, record_property: Callable[[str, object], None]
) -> None:
    bench = Bench(connection, shape)
    tables = surplus = 0

    @settings(max_examples=ROUND_TRIPS, deadline=None)
    @given(
        drawn=st.lists(_small_table, min_size=SIDE_BY_SIDE, max_size=SIDE_BY_SIDE),
        keep=_keep,
    )
    def holds(drawn: list[Any], keep: list[tuple[str, str, str]]) -> None:
        nonlocal tables, surplus
        surplus += judge(bench, rows_of(shape, drawn), keep)
        tables += len(drawn)

    holds()
    record_property("summary", f"{shape.name}: {tables} tables, {surplus} surplus rows, 0 differences")
    assert tables >= 2_000 / len(SHAPES)
    assert surplus >= tables / 4, "tables without surplus rows prove little"
