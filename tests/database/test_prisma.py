"""Prisma's history in a real database: read for what it means, repaired, and true again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from at_most_one.errors import OperatorError
from at_most_one.indexes import definitions
from at_most_one.plan import Plan
from at_most_one.postgres.connection import Login, connect
from at_most_one.prisma import migration_history

from tests.database.prisma_release import behave, calls, existing, open_session, rows
from tests.database.prisma_release import history as history  # fixtures
from tests.database.prisma_release import present as present
from tests.database.prisma_release import release as release
from tests.support.prisma_stand_in import EARLIER, MIGRATION, OURS, RULE


def test_forward_back_forward(
    login: Login,
    plan: Plan,
    plan_data: dict[str, Any],
    login_args: dict[str, Any],
    release: Path,
    present: Callable[..., dict[str, Any]],
    history: Callable[..., dict[str, Any]],
    run_module: Callable[..., dict[str, Any]],
) -> None:
    absent = {"login": login_args, "plan": plan_data, "state": "absent"}
    assert history()["verdict"] == "pending"

    predicted = present(check=True)
    assert (predicted["changed"], predicted["pending"], calls(release)) == (True, [OURS], 0)
    assert predicted["diff"]["before"] == ""
    assert predicted["diff"]["after"].count("CREATE ") == len(predicted["statements"]) == 3
    assert existing(login, plan) == ()

    built = present()
    assert (built["changed"], built["history"], built["attempts"], calls(release)) == (True, "applied", 1, 1)
    assert built["exact"]
    assert built["diff"]["after"].count("CREATE ") == 3

    again = present()
    assert (again["changed"], again["attempts"], calls(release)) == (False, 0, 1)

    refused = history("rolled_back")
    assert refused["failed"]
    assert RULE in refused["seen"]
    assert history("rolled_back", check=True)["existing"] == list(existing(login, plan))

    assert run_module("index_set", absent)["changed"]
    lost = history()
    assert (lost["verdict"], lost["indexes_exact"]) == ("applied_without_indexes", False)
    repaired = present()
    assert (repaired["strategy"], repaired["history"], calls(release)) == ("concurrent", "applied", 2)
    assert [text.split()[0] for text in repaired["statements"]] == ["CREATE"] * 3
    assert (history()["verdict"], len(rows(login, plan))) == ("applied", 1)

    assert run_module("index_set", absent)["changed"]
    migration = release / "prisma/migrations" / OURS / "migration.sql"
    applied = migration.read_text()
    for text, words in ((f"{applied}-- edited", "says edited"), (f"{applied};SELECT 1", "says edited")):
        migration.write_text(text)
        assert words in present()["seen"]
    migration.write_text(applied)

    assert history("rolled_back", check=True)["marked"] == 1
    assert rows(login, plan)[0].rolled_back_at is None
    marked = history("rolled_back")
    assert (marked["changed"], marked["marked"]) == (True, 1)
    assert marked["diff"]["before"].endswith("applied\n")
    assert rows(login, plan)[0].rolled_back_at is not None
    assert not history("rolled_back")["changed"]
    assert history()["verdict"] == "rolled_back"

    assert present()["changed"]
    assert history()["verdict"] == "applied"
    assert [row.applied for row in rows(login, plan)] == [False, True]


def test_the_history_reads_what_it_is_given(
    login: Login, release: Path, history: Callable[..., dict[str, Any]], present: Callable[..., dict[str, Any]]
) -> None:
    present()
    (release / "prisma/migrations" / OURS / "migration.sql").write_text(MIGRATION + "-- edited later\n")
    assert history()["verdict"] == "edited"
    assert present()["details"]["history"] == "edited"
    with connect(login) as connection, connection.cursor() as cursor:
        cursor.execute("DROP TABLE aedpics._prisma_migrations")
    assert history()["verdict"] == "absent_table"
    assert history("rolled_back")["changed"] is False


def test_earlier_migrations_stop_it_before_prisma_is_called(
    login: Login, release: Path, history: Callable[..., dict[str, Any]], present: Callable[..., dict[str, Any]]
) -> None:
    for statement, expected in (
        ("UPDATE aedpics._prisma_migrations SET finished_at = NULL", "earlier_failed"),
        ("DELETE FROM aedpics._prisma_migrations", "earlier_pending"),
    ):
        with connect(login) as connection, connection.cursor() as cursor:
            cursor.execute(statement)
        read = history()
        assert (read["verdict"], read["blocking"]) == (expected, [EARLIER] if expected == "earlier_failed" else [])
        for check in (True, False):
            stopped = present(check=check)
            assert expected in stopped["seen"]
            assert stopped["next_step"] == read["repair"]
    assert calls(release) == 0


def test_duplicates_stop_it_before_prisma_is_called(
    login: Login, release: Path, present: Callable[..., dict[str, Any]]
) -> None:
    with connect(login) as connection:
        open_session(connection, "AED-1")
        open_session(connection, "AED-1")
    assert present()["details"]["cause"] == "duplicates"
    assert calls(release) == 0
    assert present(check=True)["changed"]  # in check mode the clean-up before has removed nothing either


def test_a_duplicate_born_before_the_index_is_named_and_the_next_run_repairs(
    login: Login,
    plan: Plan,
    release: Path,
    history: Callable[..., dict[str, Any]],
    present: Callable[..., dict[str, Any]],
) -> None:
    behave(release, "late duplicate")
    stopped = present()
    assert stopped["details"]["cause"] == "duplicates"
    assert stopped["details"]["code"] == "P3018"
    assert "23505" in str(stopped["details"]["output"])
    assert "AED-late" not in str(stopped)
    read = history()
    assert read["verdict"] == "failed"
    assert read["row"]["logs"][0] == "Database error code: 23505"
    assert "AED-late" not in str(read)
    assert existing(login, plan) == ()

    with connect(login) as connection, connection.cursor() as cursor:
        cursor.execute("DELETE FROM aedpics.inspection_sessions")
    behave(release, "applies")
    assert present(check=True)["repaired"]
    assert history()["verdict"] == "failed"
    done = present()
    assert (done["repaired"], done["attempts"], done["history"]) == (True, 1, "applied")


def test_a_prisma_that_was_killed_leaves_a_row_that_the_next_run_repairs(
    release: Path, history: Callable[..., dict[str, Any]], present: Callable[..., dict[str, Any]]
) -> None:
    behave(release, "dies")
    stopped = present()
    assert (stopped["details"]["returncode"], stopped["details"]["history"]) == (-9, "failed")
    behave(release, "applies")
    assert present()["repaired"]
    assert history()["verdict"] == "applied"


def test_indexes_that_are_there_already_are_recorded_and_not_built_again(
    login: Login,
    plan: Plan,
    release: Path,
    history: Callable[..., dict[str, Any]],
    present: Callable[..., dict[str, Any]],
) -> None:
    with connect(login) as connection, connection.cursor() as cursor:
        for index in plan.indexes:
            cursor.execute(definitions.create_statement(index, plan.schema))
    assert "are there already" in history()["repair"]
    done = present()
    assert [text.split()[0] for text in done["statements"]] == ["INSERT"]
    assert history()["verdict"] == "applied"
    assert calls(release) == 1  # asked whether it agrees, and it does nothing


@pytest.mark.parametrize("built", [1, 2, 3])
def test_an_attempt_that_was_cut_off_between_its_statements_is_finished(
    login: Login,
    plan: Plan,
    release: Path,
    history: Callable[..., dict[str, Any]],
    present: Callable[..., dict[str, Any]],
    built: int,
) -> None:
    """Prisma's adapter sends a migration statement by statement, and would begin again with the first."""
    with connect(login) as connection, connection.cursor() as cursor:
        for index in plan.indexes[:built]:
            cursor.execute(definitions.create_statement(index, plan.schema))
        cursor.execute(
            "INSERT INTO aedpics._prisma_migrations (id, checksum, migration_name) VALUES ('x', 'y', %s)", (OURS,)
        )
    assert history()["verdict"] == ("failed_with_indexes" if built == 3 else "failed")
    done = present()
    creates = sum(statement.startswith("CREATE") for statement in done["statements"])
    assert (done["strategy"], creates, history()["verdict"]) == ("concurrent", 3 - built, "applied")
    assert present()["strategy"] == "none"


def test_what_more_a_cut_off_attempt_would_have_done_stops_it(
    login: Login, plan: Plan, release: Path, present: Callable[..., dict[str, Any]]
) -> None:
    migration = release / "prisma/migrations" / OURS / "migration.sql"
    migration.write_text(migration.read_text() + "ALTER TABLE aedpics.inspection_sessions ADD COLUMN more int;\n")
    with connect(login) as connection, connection.cursor() as cursor:
        cursor.execute(definitions.create_statement(plan.indexes[0], plan.schema))
        cursor.execute(
            "INSERT INTO aedpics._prisma_migrations (id, checksum, migration_name) VALUES ('x', 'y', %s)", (OURS,)
        )
    stopped = present()
    assert "statement 4 begins with ALTER TABLE" in stopped["seen"]
    assert f"{plan.indexes[0].name} exist already" in stopped["seen"]
    assert "rollback.yml" in stopped["next_step"]
    assert calls(release) == 0


def test_marking_needs_the_indexes_gone(login: Login, plan: Plan, release: Path) -> None:
    with connect(login) as connection, pytest.raises(OperatorError, match=RULE):
        migration_history.mark_rolled_back(connection, plan.schema, OURS, (RULE,))
