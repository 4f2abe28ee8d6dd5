"""Archived rows come back byte for byte, unless told otherwise all or none, and never against the rule."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from at_most_one.duplicates import surplus_rows
from at_most_one.duplicates.restore import restore
from at_most_one.errors import OperatorError
from at_most_one.plan import Plan, SortKey
from at_most_one.postgres.connection import Connection

from tests.database.cleaning import TABLE, content, run

OPEN = "status IN ('active', 'paused')"


@pytest.fixture
def archived(connection: Connection, plan: Plan, example: Any) -> Any:
    """The guide's example after its clean-up."""
    clean_up(connection, plan)
    return example


def clean_up(connection: Connection, plan: Plan, run_id: str = "run-1") -> surplus_rows.Report:
    found = surplus_rows.report(connection, plan)
    surplus_rows.remove(connection, plan, rows=found.rows, digest=found.digest, run_id=run_id)
    return found


class TestArchivedRow:
    def test_says_which_run_which_plan_which_keeper(self, connection: Connection, plan: Plan, archived: Any) -> None:
        rows = run(
            connection,
            "SELECT run_id, plan_id, table_schema, table_name, action, primary_key ->> 'id', keeper ->> 'id',"
            " row ->> 'equipment_serial', restored_at FROM at_most_one.archived_row",
        )
        assert {row[:5] for row in rows} == {("run-1", plan.id, "aedpics", "inspection_sessions", "delete")}
        assert {row[5] for row in rows} == archived.surplus
        assert all(archived.keep[serial] == keeper and restored is None for *_, keeper, serial, restored in rows)

    def test_the_hash_is_of_the_image(self, connection: Connection, archived: Any) -> None:
        query = (
            "SELECT bool_and(row_sha256 = encode(sha256(convert_to(row::text, 'UTF8')), 'hex')),"
            " count(DISTINCT row_sha256) FROM at_most_one.archived_row"
        )
        assert run(connection, query) == [(True, 25)]


class TestRestore:
    @pytest.mark.versions
    def test_puts_every_row_back_byte_for_byte_and_only_once(
        self, connection: Connection, plan: Plan, example: Any
    ) -> None:
        before = content(connection)
        clean_up(connection, plan)
        assert len(restore(connection, plan, run_id="run-1").rows) == 25
        assert content(connection) == before
        assert restore(connection, plan, run_id="run-1").rows == []
        assert run(connection, "SELECT count(*) FROM at_most_one.archived_row WHERE restored_at IS NULL") == [(0,)]

    def test_check_mode_says_which_and_writes_nothing(self, connection: Connection, plan: Plan, archived: Any) -> None:
        before = content(connection)
        predicted = restore(connection, plan, run_id="run-1", check=True)
        assert {row[0] for row in predicted.rows} == archived.surplus
        assert predicted.rows == sorted(predicted.rows)
        (statement,) = predicted.statements
        assert 'INSERT INTO "aedpics"."inspection_sessions"' in statement
        assert content(connection) == before
        assert restore(connection, plan, run_id="run-1").rows == predicted.rows

    def test_another_run_or_no_archive_restores_nothing(self, connection: Connection, plan: Plan, example: Any) -> None:
        assert restore(connection, plan, run_id="run-1").rows == []
        clean_up(connection, plan)
        assert restore(connection, plan, run_id="run-2").rows == []

    def test_rows_of_another_plan_or_of_another_table_stay(
        self, connection: Connection, plan: Plan, archived: Any
    ) -> None:
        run(connection, f"CREATE TABLE aedpics.beside (LIKE {TABLE} INCLUDING ALL)")
        before = content(connection)
        for other in (replace(plan, id="another"), replace(plan, table="beside")):
            for run_id in ("run-1", None):
                assert restore(connection, other, run_id=run_id).rows == []
        assert (content(connection), content(connection, "aedpics.beside")) == (before, [])

    def test_what_an_earlier_run_has_put_back_is_not_marked_again(
        self, connection: Connection, plan: Plan, archived: Any
    ) -> None:
        marked = "SELECT id, restored_at FROM at_most_one.archived_row WHERE run_id = 'run-1' ORDER BY id"
        restore(connection, plan, run_id="run-1")
        before = run(connection, marked)
        clean_up(connection, plan, "run-2")
        assert len(restore(connection, plan, run_id="run-2").rows) == 25
        assert run(connection, marked) == before

    @pytest.mark.parametrize("check", [True, False])
    def test_a_taken_primary_key_refuses_all(
        self, connection: Connection, plan: Plan, archived: Any, check: bool
    ) -> None:
        taken = min(archived.surplus)
        inspector = "00000000-0000-4000-a000-000000000001"
        run(
            connection,
            f"INSERT INTO {TABLE} (id, equipment_serial, inspector_id, status) VALUES (%s, 'X', %s, 'completed')",
            *(taken, inspector),
        )
        before = content(connection)
        with pytest.raises(OperatorError, match="their primary key is in the table again") as stop:
            restore(connection, plan, run_id="run-1", check=check)
        assert stop.value.details["refused"] == [[taken]]
        assert content(connection) == before

    @pytest.mark.parametrize("check", [True, False])
    def test_the_rules_index_refuses_all_before_anything_is_written(
        self, connection: Connection, plan: Plan, archived: Any, check: bool
    ) -> None:
        run(
            connection,
            f"CREATE UNIQUE INDEX {plan.rule_index.name} ON {TABLE} (equipment_serial) WHERE {plan.predicate}",
        )
        before = content(connection)
        with pytest.raises(OperatorError, match=f"{plan.rule_index.name} is there") as stop:
            restore(connection, plan, run_id="run-1", check=check)
        assert {row[0] for row in stop.value.details["refused"]} == archived.surplus
        assert content(connection) == before

    def test_the_rules_index_lets_the_one_row_of_a_free_key_in(
        self, connection: Connection, plan: Plan, example: Any
    ) -> None:
        group = surplus_rows.report(connection, plan).groups[0]
        row = [[group.surplus[0]["id"] or ""]]
        surplus_rows.remove(connection, plan, rows=row, digest=surplus_rows.digest(row), run_id="run-1")
        clean_up(connection, plan, "run-2")
        run(
            connection,
            f"CREATE UNIQUE INDEX {plan.rule_index.name} ON {TABLE} (equipment_serial) WHERE {plan.predicate}",
        )
        run(connection, f"UPDATE {TABLE} SET status = 'completed' WHERE id = %s", group.keep["id"])
        assert restore(connection, plan, run_id="run-1").rows == row

    def test_another_constraint_refuses_all_and_is_named(
        self, connection: Connection, plan: Plan, archived: Any
    ) -> None:
        run(connection, f"ALTER TABLE {TABLE} ADD CONSTRAINT few_steps CHECK (current_step > 0) NOT VALID")
        before = content(connection)
        for check in (True, False):
            with pytest.raises(OperatorError, match=r"25 of .*: constraint few_steps rejects them. No row") as stop:
                restore(connection, plan, run_id="run-1", check=check)
            assert "AED-" not in str(stop.value)
            assert content(connection) == before

    def test_a_column_added_since_gets_its_default(self, connection: Connection, plan: Plan, archived: Any) -> None:
        run(connection, f"ALTER TABLE {TABLE} ADD COLUMN source text NOT NULL DEFAULT 'web'")
        restore(connection, plan, run_id="run-1")
        assert run(connection, f"SELECT DISTINCT source FROM {TABLE} WHERE {OPEN}") == [("web",)]

    def test_a_column_dropped_since_refuses_all(self, connection: Connection, plan: Plan, archived: Any) -> None:
        run(connection, f"ALTER TABLE {TABLE} DROP COLUMN notes")
        with pytest.raises(OperatorError, match="no longer has column notes"):
            restore(connection, plan, run_id="run-1")

    def test_a_trigger_that_changes_rows_is_noticed(self, connection: Connection, plan: Plan, archived: Any) -> None:
        run(
            connection,
            "CREATE FUNCTION aedpics.touch() RETURNS trigger LANGUAGE plpgsql AS"
            " 'BEGIN NEW.updated_at := clock_timestamp(); RETURN NEW; END'",
        )
        run(
            connection,
            f"CREATE TRIGGER touch BEFORE INSERT ON {TABLE} FOR EACH ROW EXECUTE FUNCTION aedpics.touch()",
        )
        before = content(connection)
        with pytest.raises(OperatorError, match=r"25 of .*: updated_at would not come back as archived"):
            restore(connection, plan, run_id="run-1")
        assert content(connection) == before

    @pytest.mark.versions
    def test_every_kind_of_value_comes_back(self, connection: Connection, plan: Plan) -> None:
        """Generated and identity columns, and text whose ::text form is not what psql prints."""
        run(
            connection,
            """CREATE TABLE aedpics.kinds (
                 id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, "key" text,
                 "Case" text, "a ""quoted"" one" text, fixed char(5), bit3 bit(3), many text[][], raw bytea,
                 precise double precision, amount numeric, short varchar(3), ok boolean, since timestamptz,
                 age interval, ip inet, doc json, docb jsonb, span tstzrange, x xml, row text,
                 twice numeric GENERATED ALWAYS AS (amount * 2) STORED, status aedpics.session_status)""",
        )
        values = (
            "'k', '점검', E'tab\\t\\\\ ''quote''', 'ab', B'101', '{{a,NULL},{\"b c\",\"\"}}', '\\x00ff',"
            " 'NaN', 1.500, 'abc', false, '0044-03-15 10:00:00.000001+00 BC', '1 mon -1 day 00:00:01', '10.0.0.1/8',"
            " '{\"b\": 1,  \"a\": 2}', '{\"b\": 1, \"a\": 2}', '[2025-01-01,)', '<a>1</a>', 'row', 'active'"
        )
        columns = (
            '"key", "Case", "a ""quoted"" one", fixed, bit3, many, raw, precise, amount, short, ok, since, age, ip,'
            " doc, docb, span, x, row, status"
        )
        for _ in range(3):
            run(connection, f"INSERT INTO aedpics.kinds ({columns}) VALUES ({values})")
        run(connection, "INSERT INTO aedpics.kinds (\"key\", status) VALUES ('k', 'paused')")  # all the others NULL
        kinds = replace(
            plan, table="kinds", key=("key",), keep=(SortKey("id", "desc", "last"),), show=('a "quoted" one',)
        )
        before = content(connection, "aedpics.kinds")
        clean_up(connection, kinds)
        assert len(content(connection, "aedpics.kinds")) == 1
        restore(connection, kinds, run_id="run-1")
        assert content(connection, "aedpics.kinds") == before
