"""Any table loses exactly what the rule says: against a plain Python oracle, and for keys of other shapes."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from at_most_one.duplicates import surplus_rows
from at_most_one.duplicates.restore import restore
from at_most_one.plan import Plan, SortKey, parse
from at_most_one.postgres.connection import Connection
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.database.cleaning import INSPECTOR, TABLE, ids, keys, remove, run

_EPOCH = datetime(2025, 11, 1, tzinfo=UTC)
_row = st.tuples(
    st.integers(0, 3),  # equipment
    st.sampled_from(["active", "paused", "completed", "cancelled"]),
    st.none() | st.integers(0, 3),  # days since the epoch: few, so that ties are common
)


def expected_surplus(rows: list[tuple[str, str, str, datetime | None]]) -> dict[str, str]:
    """The rule in plain Python: surplus id to the id that stays."""
    surplus = {}
    for serial in {row[1] for row in rows}:
        group = [row for row in rows if row[1] == serial and row[2] in ("active", "paused")]
        group.sort(key=lambda row: (row[3] is None, -(row[3] or _EPOCH).timestamp(), row[0]))
        surplus.update({row[0]: group[0][0] for row in group[1:]})
    return surplus


class TestAgainstAnOracle:
    @settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(rows=st.lists(_row, max_size=16))
    def test_any_table_loses_what_the_rule_says_and_gets_it_back(
        self, connection: Connection, plan: Plan, rows: list[tuple[int, str, int | None]]
    ) -> None:
        run(connection, f"TRUNCATE {TABLE}, aedpics.user_profiles; DROP SCHEMA IF EXISTS at_most_one CASCADE")
        run(connection, "INSERT INTO aedpics.user_profiles VALUES (%s, 'a@example.test', 'A')", INSPECTOR)
        made = [
            (
                f"00000000-0000-4000-8000-{number * 7919 % 997:012d}",
                f"AED-{equipment}",
                status,
                None if day is None else _EPOCH + timedelta(days=day),
            )
            for number, (equipment, status, day) in enumerate(rows)
        ]
        for identifier, serial, status, started in made:
            run(
                connection,
                f"INSERT INTO {TABLE} (id, equipment_serial, inspector_id, status, started_at)"
                " VALUES (%s, %s, %s, %s, %s)",
                *(identifier, serial, INSPECTOR, status, started),
            )
        content = run(connection, f"SELECT * FROM {TABLE} ORDER BY id")
        surplus = expected_surplus(made)
        found = surplus_rows.report(connection, plan)
        assert keys(found.rows) == set(surplus)
        done = remove(connection, plan, found, max_rows=100, expected_rows=100)
        assert sorted(done.removed_examples) == found.rows
        assert ids(connection) == {row[0] for row in made} - set(surplus)
        if surplus:  # otherwise there is no archive
            pairs = run(connection, "SELECT primary_key ->> 'id', keeper ->> 'id' FROM at_most_one.archived_row")
            assert dict(pairs) == surplus
        restore(connection, plan, run_id="run-1")
        assert run(connection, f"SELECT * FROM {TABLE} ORDER BY id") == content


class TestOtherShapes:
    """A key of two columns with NULLs, a case-insensitive collation, a primary key of two columns, ascending order."""

    @pytest.fixture
    def seats(self, connection: Connection, plan: Plan) -> Plan:
        run(
            connection,
            "CREATE COLLATION aedpics.any_case (provider = icu, locale = 'und-u-ks-level2', deterministic = false)",
        )
        run(
            connection,
            'CREATE TABLE aedpics."Seats" (room text, "no" int, holder text COLLATE aedpics.any_case, day date,'
            ' PRIMARY KEY (room, "no"))',
        )
        run(
            connection,
            """INSERT INTO aedpics."Seats" VALUES ('r1', 2, 'Kim', '2025-01-01'), ('r1', 10, 'KIM', '2025-01-01'),"""
            """ ('r2', 1, 'kim', NULL), ('r2', 2, NULL, NULL), ('r2', 3, NULL, NULL), ('r2', 4, 'Lee', NULL)""",
        )
        return replace(
            plan,
            table="Seats",
            primary_key=("room", "no"),
            key=("holder", "day"),
            predicate='"Seats"."no" > 0',
            keep=(SortKey("no", "asc", "last"),),
            show=("holder",),
        )

    def test_nulls_are_distinct_and_the_columns_own_comparison_counts(
        self, connection: Connection, seats: Plan
    ) -> None:
        found = surplus_rows.report(connection, seats)
        assert found.rows == [["r1", "10"]]
        assert found.groups[0].keep == {"room": "r1", "no": "2", "holder": "Kim"}
        assert remove(connection, seats, found).removed_examples == [["r1", "10"]]
        assert restore(connection, seats, run_id="run-1").rows == [["r1", "10"]]

    def test_nulls_are_equal_when_the_index_says_so(self, connection: Connection, seats: Plan) -> None:
        rule = replace(seats.rule_index, nulls_not_distinct=True)
        strict = replace(seats, rule_index=rule)
        found = surplus_rows.report(connection, strict)
        assert found.rows == [["r1", "10"], ["r2", "3"]]
        assert remove(connection, strict, found).rows_left == 0


def test_keys_are_equal_as_the_planned_index_compares_them(connection: Connection, plan_data: dict[str, Any]) -> None:
    """The column ignores case and the index does not, and the other way round: what the index allows stays."""
    run(
        connection,
        "CREATE COLLATION public.ci (provider = icu, locale = 'und-u-ks-level2', deterministic = false)",
    )
    for column, index, surplus in (("public.ci", '"C"', 1), ('"C"', "public.ci", 2), ("public.ci", None, 2)):
        run(connection, "DROP TABLE IF EXISTS aedpics.t")
        run(connection, f"CREATE TABLE aedpics.t (id int PRIMARY KEY, name text COLLATE {column})")
        run(connection, "INSERT INTO aedpics.t VALUES (1, 'a'), (2, 'A'), (3, 'a')")
        name = {"column": "name", **({"collation": index.strip('"')} if index else {})}
        plan = parse(
            {
                **plan_data,
                **{"table": "t", "key": ["name"], "predicate": "true", "show": ["name"], "primary_key": ["id"]},
                "keep": [{"column": "id", "direction": "asc", "nulls": "last"}],
                "indexes": [{"name": "t_name", "unique": True, "columns": [name], "predicate": "true"}],
            }
        )
        found = surplus_rows.report(connection, plan)
        assert found.row_count == surplus
        done = surplus_rows.remove(connection, plan, rows=found.rows, digest=found.digest, run_id="run-1")
        assert (done.removed, done.rows_left) == (surplus, 0)
        collate = f"COLLATE {index}" if index else ""
        run(connection, f"CREATE UNIQUE INDEX t_name ON aedpics.t (name {collate})")
