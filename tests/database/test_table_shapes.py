"""Whatever a table looks like: the run stops before its first row with the cause, or every row goes and comes back.

All tables of the schema are compared, by every row's text.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from at_most_one.duplicates import surplus_rows
from at_most_one.duplicates.restore import restore
from at_most_one.errors import OperatorError
from at_most_one.fence import write_fence
from at_most_one.indexes import definitions
from at_most_one.plan import Plan
from at_most_one.postgres.connection import Connection
from at_most_one.preflight.out_and_back import try_out
from hypothesis import given, settings
from hypothesis import strategies as st
from psycopg2.extras import execute_values

from tests.database import table_shapes as shapes
from tests.database.citext import make_citext
from tests.database.cleaning import run
from tests.database.table_shapes import Row, Shape

Content = dict[str, list[str]]


def mostly(usual: Any, others: Any) -> st.SearchStrategy[Any]:
    """One feature in five tables: with more at once hardly a run would get as far as its rows."""
    return st.integers(0, 4).flatmap(lambda n: st.sampled_from(sorted(others)) if n == 4 else st.just(usual))


_shape = st.builds(
    Shape,
    key=st.sampled_from(sorted(shapes.KEYS)),
    collation=st.sampled_from(["", "", *sorted(shapes.COLLATIONS)]),
    primary_key=st.sampled_from(sorted(shapes.PRIMARY_KEYS)),
    cargo=st.sampled_from(sorted(shapes.CARGO)),
    update=st.booleans(),
    relation=mostly("", shapes.RELATIONS),
    rule=mostly("", shapes.RULES),
    generated=mostly("", shapes.GENERATED),
    pointing=mostly("", shapes.POINTING),
    trigger=st.sampled_from(["", "", *sorted(shapes.TRIGGERS)]),
    only_x=st.booleans(),
    triggers_allowed=st.sampled_from([True, True, False]),
    writes_allowed=st.booleans(),
    fenced=st.booleans(),
).map(shapes.possible)
_rows = st.lists(
    st.tuples(
        st.sampled_from([0, 0, 0, 1, 1, 2, 3, None]),
        st.integers(0, 2),
        st.sampled_from([True, True, True, False]),
        st.sampled_from(["", "y", "x"]),
        st.sampled_from([0, 1, None]),
        st.sampled_from([False, False, False, True]),
        st.sampled_from([False, True]),
    ),
    min_size=4,
    max_size=18,
).flatmap(
    lambda drawn: st.permutations(range(len(drawn))).map(lambda ranks: [Row(*r) for r in zip_ranks(ranks, drawn)])
)


def zip_ranks(ranks: Sequence[int], drawn: Sequence[Any]) -> list[tuple[Any, ...]]:
    return [(rank, *row) for rank, row in zip(ranks, drawn, strict=True)]


def fill(connection: Connection, shape: Shape, rows: Sequence[Row]) -> None:
    run(connection, shape.create())
    values = [
        (
            *(shape.primary(row), shape.text(row), "open" if row.is_open else "closed", row.rank, row.note),
            None if row.cargo is None else shapes.CARGO[shape.cargo][row.cargo],
        )
        for row in rows
    ]
    types = [shape.primary_key.partition(" COLLATE")[0], shape.key.partition(" COLLATE")[0], "text", "int", "text"]
    template = ", ".join(f"%s::{kind}" for kind in [*types, shape.cargo])
    with connection, connection.cursor() as cursor:
        insert = "INSERT INTO shapes.t (id, key, status, rank, note, cargo) VALUES %s"
        execute_values(cursor, insert, values, template=f"({template})")
        cursor.execute(
            "INSERT INTO shapes.child SELECT rank, NULL FROM shapes.t WHERE rank = ANY (%s)",
            ([row.rank for row in rows if row.mentioned],),
        )
        cursor.execute(
            "INSERT INTO shapes.child SELECT NULL, id FROM shapes.t WHERE rank = ANY (%s)",
            ([row.rank for row in rows if row.pointed],),
        )
        cursor.execute(shape.meddle() or "SELECT")


def content(connection: Connection, *, without: Sequence[str] = ()) -> Content:
    """Every row of every table of the schema."""
    found = run(
        connection,
        "SELECT relname::text FROM pg_catalog.pg_class WHERE relnamespace = 'shapes'::regnamespace AND relkind = 'r'",
    )
    tables = [name for (name,) in found if f"shapes.{name}" not in without]
    query = " UNION ALL ".join(f"SELECT '{name}', t::text FROM ONLY shapes.{name} AS t" for name in tables)
    rows: Content = {name: [] for name in tables}
    for name, text in run(connection, f"{query} ORDER BY 1, 2"):
        rows[name].append(text)
    return rows


def images(connection: Connection) -> dict[int, dict[str, str | None]]:
    names = [
        name
        for (name,) in run(
            connection,
            "SELECT attname::text FROM pg_catalog.pg_attribute WHERE attrelid ="
            " 'shapes.t'::regclass AND attnum > 0 ORDER BY attnum",
        )
    ]
    rows = run(connection, f"SELECT {', '.join(f'{name}::text' for name in names)} FROM shapes.t")
    found = [dict(zip(names, row, strict=True)) for row in rows]
    return {int(row["rank"]): row for row in found}


def removed(connection: Connection, plan: Plan, shape: Shape) -> surplus_rows.Removal | OperatorError:
    """The run from prepare to the removal, or what has stopped it."""
    try:
        try_out(connection, plan)
        found = surplus_rows.report(connection, plan)
        given: dict[str, Any] = {"rows": found.rows, "digest": found.digest, "run_id": "run-1"}
        surplus_rows.remove(connection, plan, check=True, **given)
        if shape.fenced:
            write_fence.raise_fence(connection, plan)
        return surplus_rows.remove(connection, plan, **given)
    except OperatorError as stop:
        connection.rollback()
        return stop


def judge(connection: Connection, shape: Shape, rows: Sequence[Row]) -> str:
    """One table there and back; what came of it."""
    fill(connection, shape, rows)
    plan, surplus, words = shape.plan(), shape.surplus(rows), shape.in_the_way(rows)
    everything, before = content(connection), images(connection)
    kept = content(connection, without=shape.exempt)
    may_be_left = shape.may_be_left(rows)
    done = removed(connection, plan, shape)
    if isinstance(done, OperatorError):
        assert any(re.search(word, str(done)) for word in words), (words, str(done))
        assert content(connection) == everything, "it has stopped before anything has changed"
        return "stopped"
    assert not words or may_be_left, words
    assert (done.archived, done.unarchived, done.rows_left) == (len(surplus), [], 0)
    after = {**before}
    for rank in surplus:
        if shape.update:
            after[rank] = {**before[rank], "status": "closed"}
        else:
            del after[rank]
    for rank in may_be_left & set(after):
        after[rank]["stamp"] = images(connection)[rank]["stamp"]
    assert images(connection) == after
    if surplus:
        ((archived,),) = run(
            connection, 'SELECT json_agg(json_build_array("row", keeper)) FROM at_most_one.archived_row'
        )
        assert {int(row["rank"]): row for row, _ in archived} == {rank: before[rank] for rank in surplus}
        assert {int(row["rank"]): keeper["id"] for row, keeper in archived} == {
            rank: before[head]["id"] for rank, head in surplus.items()
        }
    if shape.fenced:
        write_fence.lower_fence(connection, plan)
    with connection, connection.cursor() as cursor:  # the judge of what "equal" means
        cursor.execute(definitions.create_statement(plan.rule_index, plan.schema))
        cursor.execute("DROP INDEX shapes.t_key")
    return came_back(connection, shape, plan, may_be_left, kept, before)


def came_back(
    connection: Connection,
    shape: Shape,
    plan: Plan,
    may_be_left: set[int],
    kept: Content,
    before: dict[int, dict[str, str | None]],
) -> str:
    expected = restore(connection, plan, run_id="run-1", check=True, possible=True)
    back = restore(connection, plan, run_id="run-1", possible=True)
    assert (back.restored, back.left) == (expected.restored, expected.left)
    left = {row for one in back.left for (row,) in one.rows}
    assert left == {before[rank]["id"] for rank in may_be_left}
    if left:
        why = "stamp would not come back" if "stamp" in shape.trigger else "triggers write to shapes"
        assert all(why in str(one) for one in back.left)
        others = [*shape.exempt, "shapes.t"]
        assert content(connection, without=others) == {
            n: rows for n, rows in kept.items() if f"shapes.{n}" not in others
        }
        there = images(connection)
        assert {rank: row for rank, row in there.items() if row["id"] not in left} == {
            rank: row for rank, row in before.items() if row["id"] not in left
        }
        return "left some"
    assert content(connection, without=shape.exempt) == kept, "every table is as it was"
    return "there and back" if back.restored else "nothing to do"


@pytest.mark.parametrize(
    "examples", [100, pytest.param(300, marks=pytest.mark.thorough, id="300: the same with more tables")]
)
def test_it_stops_with_the_cause_or_every_row_goes_and_comes_back(
    connection: Connection, examples: int, record_property: Callable[[str, object], None]
) -> None:
    run(connection, shapes.ONCE)
    make_citext(connection, "ext")
    outcomes: Counter[str] = Counter()

    @settings(max_examples=examples, deadline=None)
    @given(shape=_shape, rows=_rows)
    def holds(shape: Shape, rows: list[Row]) -> None:
        outcomes[judge(connection, shape, rows)] += 1

    holds()
    record_property("summary", f"{sum(outcomes.values())} shapes of tables: {dict(sorted(outcomes.items()))}")
    assert outcomes["there and back"] >= examples / 10
    assert outcomes["stopped"] >= examples / 10
