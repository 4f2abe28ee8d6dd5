"""The verdicts on half-built, abandoned and locked indexes."""

from __future__ import annotations

import threading
from collections.abc import Callable

import psycopg2
import psycopg2.errors
import pytest
from at_most_one.errors import OperatorError
from at_most_one.indexes import verification
from at_most_one.plan import Plan
from at_most_one.postgres.connection import Login, connect

from tests.database.index_tools import (
    ACTIVE,
    DATE,
    IN_RULE,
    RULE,
    inspect,
    open_session,
    parts,
    query,
    verdict,
    wait_for,
)
from tests.database.index_tools import build as build  # fixtures
from tests.database.index_tools import duplicates as duplicates
from tests.database.index_tools import run_sql as run_sql


@pytest.mark.usefixtures("duplicates")
def test_an_index_abandoned_over_duplicates_is_invalid(
    login: Login, plan: Plan, build: Callable[..., None], run_sql: Callable[..., None]
) -> None:
    build(without=(RULE,))
    with pytest.raises(psycopg2.errors.UniqueViolation):
        run_sql(f"CREATE UNIQUE INDEX CONCURRENTLY {RULE} ON inspection_sessions (equipment_serial) {IN_RULE}")

    inspection = inspect(login, plan)
    found = verdict(login, plan)

    assert (found.verdict, found.valid, found.ready, found.building) == ("invalid", False, False, None)
    assert parts(found) == {"valid", "ready"}
    assert inspection.duplicates_left == 2
    assert inspection.existing == (RULE, DATE, ACTIVE)
    with pytest.raises(OperatorError, match=r"is invalid .*2 duplicate group"):
        verification.require_exact(inspection, plan)


@pytest.mark.usefixtures("duplicates")
def test_an_invalid_index_with_another_definition_is_different(
    login: Login, plan: Plan, run_sql: Callable[..., None]
) -> None:
    with pytest.raises(psycopg2.errors.UniqueViolation):
        run_sql(f"CREATE UNIQUE INDEX CONCURRENTLY {RULE} ON inspection_sessions (equipment_serial, status)")
    found = verdict(login, plan)
    assert (found.verdict, parts(found)) == ("different", {"columns", "predicate", "valid", "ready"})


def test_an_index_that_is_being_built_now_is_not_called_abandoned(login: Login, plan: Plan) -> None:
    """A concurrent build waits for a writer of another session: valid=f now, valid=t once the writer has gone."""
    query(login, f"CREATE INDEX {DATE} ON aedpics.inspection_schedules (aed_data_id, scheduled_for)")
    with connect(login) as writer, writer.cursor() as cursor:
        open_session(writer, "AED-1")
        cursor.execute("UPDATE aedpics.inspection_sessions SET notes = 'held'")
        failures: list[BaseException] = []

        def build() -> None:
            try:
                with connect(login, lock_timeout_ms=0, autocommit=True) as connection, connection.cursor() as builder:
                    builder.execute(
                        f"CREATE UNIQUE INDEX CONCURRENTLY {RULE} ON aedpics.inspection_sessions"
                        f" (equipment_serial) {IN_RULE}"
                    )
            except BaseException as failure:  # handed to the test's own thread
                failures.append(failure)

        thread = threading.Thread(target=build)
        thread.start()
        try:
            found = wait_for(lambda: verdict(login, plan), lambda v: v.verdict != "missing" and v.building is not None)
            assert (found.verdict, found.valid) == ("invalid", False)
            assert found.building is not None
            assert found.building.phase == "waiting for writers before build"
            assert "still being built" in str(found.fault())
            assert verdict(login, plan, DATE).building is None
            with pytest.raises(OperatorError) as stop:
                verification.require_exact(inspect(login, plan), plan)
            assert stop.value.next_step.startswith("wait")
        finally:
            writer.rollback()
            thread.join(30)
    assert failures == []
    assert verdict(login, plan).verdict == "present"


def test_a_table_locked_by_somebody_else_is_no_verdict(login: Login, plan: Plan) -> None:
    with connect(login) as other, other.cursor() as cursor:
        cursor.execute("LOCK TABLE aedpics.inspection_sessions IN ACCESS EXCLUSIVE MODE")
        with (
            connect(login, lock_timeout_ms=100) as connection,
            pytest.raises(OperatorError, match="did not end in time"),
        ):
            verification.inspect(connection, plan)
