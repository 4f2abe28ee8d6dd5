"""Tables that the clean-up would not understand are refused by name, before anything changes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from at_most_one.duplicates import surplus_rows
from at_most_one.duplicates.restore import restore
from at_most_one.errors import OperatorError
from at_most_one.plan import Plan, SortKey, parse
from at_most_one.postgres.connection import Connection
from at_most_one.preflight.out_and_back import try_out

_ROWS = "(id int PRIMARY KEY, name text, status text)"


@pytest.mark.parametrize(
    ("statement", "seen"),
    [
        ("CREATE TABLE odd.t (id int, PRIMARY KEY (id)) PARTITION BY RANGE (id)", "t is partitioned by id"),
        (f"CREATE TABLE odd.t {_ROWS}; CREATE TABLE odd.child () INHERITS (odd.t)", "other tables inherit from it"),
        (f"CREATE TABLE odd.base {_ROWS}; CREATE VIEW odd.t AS SELECT * FROM odd.base", "it is a view"),
        (
            "CREATE FOREIGN DATA WRAPPER w; CREATE SERVER s FOREIGN DATA WRAPPER w;"
            " CREATE FOREIGN TABLE odd.t (id int) SERVER s",
            "it is a foreign table",
        ),
        (
            f"CREATE TABLE odd.t {_ROWS}; CREATE RULE keep AS ON DELETE TO odd.t DO INSTEAD NOTHING",
            "it has the rule keep",
        ),
        (f'CREATE TABLE odd.t {_ROWS}; ALTER TABLE odd.t ADD COLUMN "rate %" int', "the name rate % holds a percent"),
        ("CREATE TABLE odd.t (id int UNIQUE DEFERRABLE NOT NULL, name text)", "does not identify a row"),
        ("CREATE TABLE odd.t (id int UNIQUE, name text)", "does not identify a row"),
    ],
)
def test_it_is_refused(connection: Connection, plan: Plan, statement: str, seen: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(f"CREATE SCHEMA odd; {statement}")
    connection.commit()
    odd = replace(
        plan, schema="odd", table="t", key=("name",), predicate="true", keep=(SortKey("id", "asc", "last"),), show=()
    )
    with pytest.raises(OperatorError, match=seen):
        surplus_rows.report(connection, odd)
    for check in (True, False):
        with pytest.raises(OperatorError, match=seen):
            surplus_rows.remove(connection, odd, rows=[], digest=surplus_rows.digest([]), run_id="run-1", check=check)


def test_an_operator_class_with_an_equality_of_its_own_is_refused(connection: Connection, plan_data: Any) -> None:
    """To the index 1.0 and 1.00 are two values, to PARTITION BY they are one: rows would leave that the rule allows."""
    with connection.cursor() as cursor:
        cursor.execute(
            "CREATE TYPE aedpics.pair AS (one numeric, two text); CREATE TABLE aedpics.t (id int PRIMARY KEY)"
        )
        cursor.execute("ALTER TABLE aedpics.t ADD COLUMN pair aedpics.pair, ADD COLUMN name text")
        cursor.execute("INSERT INTO aedpics.t VALUES (1, '(1.0,a)', 'a'), (2, '(1.00,a)', 'a'), (3, '(2,a)', 'b')")
    connection.commit()

    def planned(column: str, opclass: str) -> Plan:
        index = {"name": "one", "table": "t", "unique": True, "columns": [{"column": column, "opclass": opclass}]}
        return parse(
            {
                **{**plan_data, "indexes": [{**index, "predicate": "true"}]},
                **{
                    "table": "t",
                    "key": [column],
                    "predicate": "true",
                    "keep": [{"column": "id", "direction": "asc", "nulls": "last"}],
                    "show": [],
                },
            }
        )

    odd = planned("pair", "pg_catalog.record_image_ops")
    seen = (
        r"compares pair with pg_catalog\.\*= of pg_catalog\.record_image_ops; the column's type does with pg_catalog\.="
    )
    with pytest.raises(OperatorError, match=seen):
        surplus_rows.report(connection, odd)
    with pytest.raises(OperatorError, match=seen):
        surplus_rows.remove(connection, odd, rows=[["2"]], digest=surplus_rows.digest([["2"]]), run_id="run-1")
    with pytest.raises(OperatorError, match=seen):
        try_out(connection, odd)
    for column, opclass in (("pair", "record_ops"), ("name", "text_pattern_ops")):
        assert surplus_rows.report(connection, planned(column, opclass)).rows == [["2"]]


class TestTriggersOfTheService:
    """They run as in a session of the service, or stop the batch with their own words."""

    @pytest.fixture
    def log(self, connection: Connection, example: Any) -> None:
        with connection.cursor() as cursor:
            cursor.execute(
                """CREATE TABLE public.gone (id uuid);
                   CREATE FUNCTION aedpics.log() RETURNS trigger LANGUAGE plpgsql AS
                     $$BEGIN INSERT INTO gone VALUES (coalesce(OLD.id, NEW.id)); RETURN OLD; END$$;
                   CREATE TRIGGER log AFTER DELETE OR INSERT ON aedpics.inspection_sessions FOR EACH ROW
                     EXECUTE FUNCTION aedpics.log()"""
            )
        connection.commit()

    def clean_up(self, connection: Connection, plan: Plan) -> surplus_rows.Removal:
        found = surplus_rows.report(connection, plan)
        return surplus_rows.remove(connection, plan, rows=found.rows, digest=found.digest, run_id="run-1")

    def test_a_table_without_its_schema_is_found(
        self, connection: Connection, plan: Plan, example: Any, log: None
    ) -> None:
        """Both ways, and although the image of a row with a name in it is made under another search_path."""
        with connection.cursor() as cursor:
            named = "ADD COLUMN source regclass DEFAULT 'aedpics.aed_data'"
            cursor.execute(f"ALTER TABLE aedpics.inspection_sessions {named}")
        connection.commit()
        allowing = replace(plan, surplus=replace(plan.surplus, triggers=("log",), writes=("public.gone",)))
        assert self.clean_up(connection, allowing).removed == 25
        with connection.cursor() as cursor:
            cursor.execute("SELECT array_agg(id::text) FROM public.gone")
            assert set(cursor.fetchall()[0][0]) == example.surplus
        connection.commit()
        assert restore(connection, allowing, run_id="run-1").restored == 25
        with connection.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM public.gone")
            assert cursor.fetchall() == [(50,)]

    def test_one_that_raises_stops_and_nothing_has_gone(
        self, connection: Connection, plan: Plan, example: Any, log: None
    ) -> None:
        with connection.cursor() as cursor:
            cursor.execute("ALTER TABLE public.gone ADD CHECK (id IS NULL)")
        connection.commit()
        with pytest.raises(OperatorError, match="gone_id_check") as stop:
            self.clean_up(connection, plan)
        assert stop.value.details["removed"] == 0
        assert surplus_rows.report(connection, plan).row_count == 25
