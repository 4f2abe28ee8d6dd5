"""surplus.action update: the row stays, outside the rule; it gets its old values back if nobody changed it since."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from at_most_one.duplicates.restore import restore
from at_most_one.errors import OperatorError
from at_most_one.plan import Plan, Surplus
from at_most_one.postgres.connection import Connection

from tests.database.cleaning import TABLE, clean_up, content

_SERVICE_PATH = """DO $$BEGIN
    EXECUTE format('ALTER DATABASE %I SET search_path = aedpics', current_database());
END$$"""


def run(connection: Connection, statement: str, *values: Any) -> list[tuple[Any, ...]]:
    with connection, connection.cursor() as cursor:
        cursor.execute(statement, values or None)
        return cursor.fetchall() if cursor.description else []


def updating(plan: Plan, **values: str | None) -> Plan:
    return replace(plan, surplus=Surplus("update", values, "stop"))


@pytest.fixture
def cancelling(plan: Plan) -> Plan:
    return updating(plan, status="cancelled", completed_at="now", notes=None)


@pytest.mark.versions
def test_surplus_rows_get_the_values_and_everything_comes_back(
    connection: Connection, cancelling: Plan, example: Any
) -> None:
    before = content(connection)
    run(connection, "CREATE TABLE aedpics.beside (status int GENERATED ALWAYS AS IDENTITY)")
    predicted = clean_up(connection, cancelling, check=True)
    assert content(connection) == before
    done = clean_up(connection, cancelling)
    assert (predicted.removed, done.removed, done.rows_left, done.kept_meanwhile) == (25, 25, 0, 0)
    assert done.statements == predicted.statements
    changed = run(
        connection,
        f"SELECT id::text FROM {TABLE} WHERE status = 'cancelled' AND notes IS NULL"
        " AND completed_at > now() - interval '1 minute'",
    )
    assert {identifier for (identifier,) in changed} == example.surplus
    assert run(connection, "SELECT DISTINCT action FROM at_most_one.archived_row") == [("update",)]
    assert restore(connection, cancelling, run_id="run-1", check=True).restored == 25
    assert restore(connection, cancelling, run_id="run-1").restored == 25
    assert content(connection) == before


def test_a_value_may_hold_a_percent_sign(connection: Connection, plan: Plan, example: Any) -> None:
    marked = updating(plan, status="cancelled", notes="100% of %s")
    assert [clean_up(connection, marked, check=check).removed for check in (True, False)] == [25, 25]
    count = f"SELECT count(*) FROM {TABLE} WHERE status = 'cancelled' AND notes = %s"
    assert run(connection, count, "100% of %s") == [(25,)]


def test_a_row_that_was_changed_since_is_not_overwritten(
    connection: Connection, cancelling: Plan, example: Any
) -> None:
    clean_up(connection, cancelling)
    changed = min(example.surplus)
    run(connection, f"UPDATE {TABLE} SET notes = 'newer' WHERE id = %s", changed)
    before = content(connection)
    for check in (True, False):
        with pytest.raises(OperatorError, match="newer data is never overwritten") as stop:
            restore(connection, cancelling, run_id="run-1", check=check)
        assert stop.value.details["refused"] == [[changed]]
    assert content(connection) == before


def test_what_the_services_trigger_writes_is_part_of_the_row_as_we_left_it(
    connection: Connection, cancelling: Plan, example: Any
) -> None:
    """The trigger names its table without a schema, as the service's sessions may."""
    run(
        connection,
        """CREATE TABLE aedpics.touched (id uuid);
           CREATE FUNCTION aedpics.touch() RETURNS trigger LANGUAGE plpgsql AS
             $$BEGIN INSERT INTO touched VALUES (NEW.id); NEW.updated_at := '2030-01-01'; RETURN NEW; END$$;
           CREATE TRIGGER touch BEFORE UPDATE ON aedpics.inspection_sessions FOR EACH ROW
             WHEN (NEW.status = 'cancelled') EXECUTE FUNCTION aedpics.touch()""",
    )
    run(
        connection,
        _SERVICE_PATH,
    )
    before = content(connection)
    allowed = replace(cancelling, surplus=replace(cancelling.surplus, writes=("aedpics.touched",)))
    assert clean_up(connection, allowed).removed == 25
    assert run(connection, "SELECT count(*) FROM aedpics.touched") == [(25,)]
    assert restore(connection, allowed, run_id="run-1").restored == 25
    assert content(connection) == before


@pytest.mark.parametrize(
    ("values", "seen"),
    [
        ({"state": "cancelled"}, "no such column"),
        ({"id": "00000000-0000-4000-8000-000000000000"}, "part of the primary key"),
        ({"notes": "x"}, "25 surplus rows of .* would still be inside"),
        ({"status": "paused"}, "would still be inside"),
        ({"equipment_serial": "other"}, "would still be inside"),
        ({"status": "closed"}, "invalid input value for enum"),
    ],
)
def test_values_that_cannot_do_are_refused_before_anything_changes(
    connection: Connection, plan: Plan, example: Any, values: dict[str, str], seen: str
) -> None:
    before = content(connection)
    for check in (True, False):
        with pytest.raises(OperatorError, match=seen):
            clean_up(connection, updating(plan, **values), check=check)
    assert content(connection) == before
    assert run(connection, "SELECT to_regnamespace('at_most_one')") == [(None,)]


def test_only_the_rows_that_are_to_go_are_judged(connection: Connection, plan: Plan, example: Any) -> None:
    """The rows that stay would be inside with these values, too, and do not get them."""
    kept = list(example.keep.values())
    run(connection, f"UPDATE {TABLE} SET current_step = 9 WHERE id = ANY (%s::uuid[])", kept)
    noted = replace(plan, predicate=f"{plan.predicate} AND (notes <> 'closed' OR current_step = 9)")
    assert clean_up(connection, updating(noted, notes="closed")).rows_left == 0


def test_a_generated_column_is_refused_and_a_predicate_over_one_is_judged_as_it_will_be(
    connection: Connection, plan: Plan, example: Any
) -> None:
    earlier = f"(LIKE {TABLE}, is_open boolean GENERATED ALWAYS AS (false) STORED)"
    run(connection, f"CREATE TABLE aedpics.earlier {earlier}")
    run(
        connection,
        f"ALTER TABLE {TABLE} ADD COLUMN is_open boolean GENERATED ALWAYS AS (status IN ('active', 'paused')) STORED",
    )
    run(connection, "CREATE TABLE aedpics.later (LIKE aedpics.earlier INCLUDING GENERATED)")
    generated = replace(plan, predicate="is_open")
    with pytest.raises(OperatorError, match=r"is_open cannot be written .* the column is generated"):
        clean_up(connection, updating(generated, is_open="false"))
    with pytest.raises(OperatorError, match="would still be inside"):
        clean_up(connection, updating(generated, status="paused"))
    assert clean_up(connection, updating(generated, status="cancelled")).rows_left == 0


def test_a_reference_is_no_obstacle_because_the_row_stays(
    connection: Connection, cancelling: Plan, example: Any
) -> None:
    run(connection, f"CREATE TABLE aedpics.photos (session_id uuid REFERENCES {TABLE} (id) ON DELETE CASCADE)")
    run(connection, "INSERT INTO aedpics.photos VALUES (%s)", min(example.surplus))
    assert clean_up(connection, cancelling).removed == 25
    assert run(connection, "SELECT session_id::text FROM aedpics.photos") == [(min(example.surplus),)]
