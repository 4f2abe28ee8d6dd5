"""database_rollback takes back what a deployment did in the database, in one call that proves and records it."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from at_most_one.duplicates import surplus_rows
from at_most_one.errors import OperatorError
from at_most_one.fence import write_fence
from at_most_one.migration import take_back as core
from at_most_one.plan import Plan, parse
from at_most_one.postgres import catalog_snapshot
from at_most_one.postgres.connection import Connection, Login, connect
from at_most_one.prisma import migration_history
from at_most_one.runs import journal, reached, way_back
from at_most_one.runs.controllers import Controller

from tests.database.cleaning import TABLE, ids, run
from tests.database.prisma_release import existing, rows
from tests.database.prisma_release import present as present  # fixtures
from tests.database.prisma_release import release as release

DETAILS = {"runs", "commit", "restored", "left", "left_count", "content", "differences"}


@dataclass
class Deployed:
    """A deployment that went as far as the migration; its fence is still up, and another run is to take it back."""

    deployment: str
    run_id: str
    rows_before: set[str]


def _open(login: Login, plan: Plan, commit: str = "b" * 40) -> str:
    with connect(login) as connection:
        before = {"hosts": {}, **catalog_snapshot.take(connection, plan).kept()}
        opening = journal.Opening(
            plan, "production", "minsu", Controller("gateway-2", 1), "a" * 40, commit, before=before
        )
        return journal.open_run(connection, opening).run_id


@pytest.fixture
def rows_before(connection: Connection, release: Path, seed_guide_example: Callable[[Connection], Any]) -> set[str]:
    """The rows of the guide's example, over the release."""
    run(connection, "DELETE FROM aedpics.user_profiles")  # the release's; the example has its own
    seed_guide_example(connection)
    connection.commit()
    return set(ids(connection))


def _clean(login: Login, connection: Connection, plan: Plan) -> str:
    """Open a deployment, raise its fence and remove the surplus rows. Returns its run."""
    deployment = _open(login, plan)
    found = surplus_rows.report(connection, plan)
    write_fence.raise_fence(connection, plan)
    surplus_rows.remove(connection, plan, rows=found.rows, digest=found.digest, run_id=deployment)
    return deployment


@pytest.fixture
def deployed(
    login: Login, connection: Connection, plan: Plan, rows_before: set[str], present: Callable[..., Any]
) -> Deployed:
    deployment = _clean(login, connection, plan)
    assert present(run_id=deployment, phase="migrate")["changed"]
    with connect(login) as other:
        journal.record(other, deployment, "cleanup", "ok", {"planned": 25})
        journal.close_run(other, deployment, "deployed")
    return Deployed(deployment, _open(login, plan), rows_before)


@pytest.fixture
def take_back(
    run_module: Callable[..., dict[str, Any]],
    login_args: dict[str, Any],
    plan_data: dict[str, Any],
    deployed: Deployed,
) -> Callable[..., dict[str, Any]]:
    """The rollback role's call."""

    def call(*, check: bool = False, **options: Any) -> dict[str, Any]:
        args = {"login": login_args, "plan": plan_data, "run_id": deployed.run_id, "rule": True, "phase": "rollback"}
        args |= {"archived_by": [deployed.deployment], "restore": "possible"}
        args |= {"phase_details": {"runs": [deployed.deployment], "commit": "a" * 40}}
        return run_module("database_rollback", {**args, **options}, check=check)

    return call


@pytest.fixture
def recorded(login: Login, deployed: Deployed) -> Callable[[], list[dict[str, Any]]]:
    def read() -> list[dict[str, Any]]:
        with connect(login) as connection:
            (found,) = journal.read(connection, run_id=deployed.run_id)
        return [phase["details"] for phase in found["phases"] if phase["name"] == "rollback"]

    return read


Call = Callable[..., dict[str, Any]]
Recorded = Callable[[], list[dict[str, Any]]]


def test_all_of_it_is_taken_back_and_recorded_once(
    login: Login, connection: Connection, plan: Plan, deployed: Deployed, take_back: Call, recorded: Recorded
) -> None:
    predicted = take_back(check=True)
    assert (predicted["changed"], predicted["restored"], recorded()) == (True, 25, [])
    assert write_fence.query(connection, plan)[0].state == "raised"
    assert len(existing(login, plan)) == 3

    done = take_back()
    assert (done["changed"], done["restored"], done["left_count"]) == (True, 25, 0)
    assert (done["history"], done["fence"], done["reached"]["differences"]) == ("rolled_back", "lowered", [])
    assert done["summary"].endswith("10 duplicate groups, 25 rows put back")
    assert len(done["diff"]) == len(predicted["diff"]) == 4, "fence, indexes, history and rows"
    assert done["diff"][:3] == predicted["diff"][:3]
    assert set(ids(connection)) == deployed.rows_before
    assert existing(login, plan) == ()
    assert all(row.rolled_back_at for row in rows(login, plan))
    (details,) = recorded()
    assert set(details) == DETAILS
    assert (details["restored"], details["content"]["back"], details["runs"]) == (25, 25, [deployed.deployment])

    again = take_back()
    assert (again["changed"], again["restored"], again["diff"]) == (False, 0, [])


def test_a_row_that_cannot_return_stops_it_where_all_must_and_the_next_call_ends_it(
    login: Login, connection: Connection, plan: Plan, deployed: Deployed, take_back: Call, recorded: Recorded
) -> None:
    run(
        connection,
        "CREATE FUNCTION aedpics.stamp() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE 'no'; END$$;"
        f" CREATE TRIGGER stamp BEFORE INSERT ON {TABLE} FOR EACH STATEMENT EXECUTE FUNCTION aedpics.stamp()",
    )
    connection.commit()
    stopped = take_back(restore="all")
    assert stopped["failed"]
    assert "cannot return" in stopped["msg"]
    assert {found["verdict"] for found in stopped["details"]["indexes"]} == {"missing"}, "as they are by then"
    assert recorded() == []
    run(connection, f"DROP TRIGGER stamp ON {TABLE}")
    connection.commit()
    done = take_back()
    assert (done["restored"], done["left_count"]) == (25, 0)
    assert set(ids(connection)) == deployed.rows_before
    assert len(recorded()) == 1


@pytest.mark.parametrize("rule_there", [True, False])
def test_rows_that_cannot_return_are_named_and_recorded(
    login: Login,
    connection: Connection,
    plan: Plan,
    deployed: Deployed,
    take_back: Call,
    recorded: Recorded,
    rule_there: bool,
) -> None:
    """Also where the rule is not there any more, or never was, as in a run that stopped before it was built."""
    for name in () if rule_there else existing(login, plan):
        run(connection, f"DROP INDEX aedpics.{name}")
    run(connection, f"UPDATE {TABLE} SET notes = notes")
    key = run(connection, "SELECT primary_key ->> 'id', row ->> 'inspector_id' FROM at_most_one.archived_row LIMIT 1")
    run(
        connection,
        f"INSERT INTO {TABLE} (id, equipment_serial, inspector_id, status) VALUES (%s, 'AED-new', %s, 'completed')",
        *key[0],
    )
    connection.commit()
    there = set(ids(connection))
    predicted = take_back(check=True)
    assert set(ids(connection)) == there
    done = take_back()
    assert (done["restored"], done["left_count"], done["content"]["pending"]) == (24, 1, 1)
    assert "primary key" in done["left"][0]["said"]
    assert {name: predicted[name] for name in ("restored", "left", "left_count")} == {
        name: done[name] for name in ("restored", "left", "left_count")
    }
    (details,) = recorded()
    assert (details["left_count"], details["left"]) == (1, done["left"])


def test_a_fence_that_cannot_be_dropped_is_told_although_the_drop_of_the_index_fails(
    login: Login, plan: Plan, deployed: Deployed, take_back: Call, recorded: Recorded
) -> None:
    told: list[str] = []
    with connect(login) as reader, reader.cursor() as cursor:
        cursor.execute(f"SELECT count(*) FROM {TABLE}")
        wanted = core.Wanted(rule=True, restore_rows=True, fence_wait_ms=100, drop_ms=100)
        with pytest.raises(OperatorError, match="did not end within its deadline") as stopped:
            core.take_back(login, plan, wanted, warn=told.append)
        reader.rollback()
    assert "was not dropped within 0.1 s" in told[0]
    assert len(stopped.value.details["indexes"]) == 3
    assert take_back()["restored"] == 25
    assert len(recorded()) == 1


@pytest.mark.parametrize("as_before", [True, False])
def test_a_difference_is_an_error_where_a_run_takes_itself_back(
    connection: Connection, deployed: Deployed, take_back: Call, recorded: Recorded, as_before: bool
) -> None:
    run(connection, f"CREATE INDEX somebodys ON {TABLE} (notes)")
    connection.commit()
    done = take_back(as_before=as_before)
    assert bool(done.get("failed")) is as_before
    if as_before:
        assert "yet it is not as before: + index CREATE INDEX somebodys" in done["msg"]
        assert recorded() == []
    else:
        assert len(recorded()[0]["differences"]) == 1


def test_without_the_rule_neither_fence_nor_index_is_touched(
    login: Login, connection: Connection, plan: Plan, take_back: Call, recorded: Recorded
) -> None:
    done = take_back(rule=False, restore_rows=False)
    assert not done["changed"]
    assert write_fence.query(connection, plan)[0].state == "raised"
    assert len(existing(login, plan)) == 3
    assert len(recorded()) == 1


@pytest.mark.parametrize("failed", [False, True], ids=["asked for", "of a run that failed"])
def test_an_index_that_was_there_before_stays_and_what_the_deployment_built_goes(
    login: Login,
    connection: Connection,
    plan: Plan,
    rows_before: set[str],
    present: Callable[..., Any],
    run_module: Callable[..., dict[str, Any]],
    login_args: dict[str, Any],
    plan_data: dict[str, Any],
    failed: bool,
) -> None:
    """As after somebody has dropped the rule's index alone: with one left, nothing was dropped and no row returned."""
    run(
        connection,
        "CREATE INDEX idx_inspection_schedules_active"
        " ON aedpics.inspection_schedules (aed_data_id, scheduled_for) WHERE status NOT IN ('cancelled')",
    )
    deployment = _clean(login, connection, plan)
    assert present(run_id=deployment, phase="migrate")["strategy"] == "concurrent"
    run_id = deployment
    if not failed:
        with connect(login) as other:
            journal.close_run(other, deployment, "deployed")
        run_id = _open(login, plan)

    args = {"login": login_args, "plan": plan_data, "run_id": run_id, "rule": True, "archived_by": [deployment]}
    args |= {"restore": "possible", **({"failed_run": run_id, "as_before": True} if failed else {})}
    predicted = run_module("database_rollback", args, check=True)
    done = run_module("database_rollback", args)
    assert (done["restored"], done["left_count"], done["fence"]) == (25, 0, "lowered")
    assert (done["history"], done["reached"]["differences"]) == ("rolled_back", [])
    assert (predicted["restored"], predicted["statements"]) == (25, done["statements"])
    assert existing(login, plan) == ("idx_inspection_schedules_active",)
    assert set(ids(connection)) == rows_before
    assert not run_module("database_rollback", args)["changed"]


def test_a_lost_run_takes_nothing_back(
    login: Login, connection: Connection, plan: Plan, deployed: Deployed, take_back: Call
) -> None:
    with connect(login) as other:
        opening = journal.Opening(plan, "production", "jiwoo", Controller("gateway-3", 1))
        journal.open_run(other, opening, takeover=True)
    stopped = take_back()
    assert "was closed as abandoned by run" in stopped["msg"]
    assert write_fence.query(connection, plan)[0].state == "raised"
    assert len(existing(login, plan)) == 3


def test_rows_that_nobody_accounts_for_stop_it(connection: Connection, take_back: Call, recorded: Recorded) -> None:
    stopped = take_back(archived_by=["20250101T000000Z-000000"])
    assert "25 rows are in the archive only, of which 0 cannot return" in stopped["msg"]
    assert recorded() == []
    assert take_back(archived_by=[])["restored"] == 25, "those of every run"


def test_rows_of_a_table_that_the_plan_does_not_name_stop_it(
    connection: Connection, take_back: Call, recorded: Recorded
) -> None:
    run(connection, "UPDATE at_most_one.archived_row SET table_name = 'was'")
    connection.commit()
    stopped = take_back()
    assert "25 rows are in the archive only, of which 0 cannot return" in stopped["msg"]
    assert recorded() == []


def test_after_a_table_was_renamed_nothing_is_lost_and_the_statement_that_is_named_brings_the_rows_back(
    login: Login, connection: Connection, plan_data: dict[str, Any], deployed: Deployed, take_back: Call
) -> None:
    """The plan names it by its new name, as it has to; the archive knows the old one."""
    run(connection, f"ALTER TABLE {TABLE} RENAME TO sessions")
    unnamed = take_back()
    assert (unnamed["failed"], "aedpics.inspection_sessions" in unnamed["msg"]) == (True, True), "by its old name"
    assert run(connection, "SELECT count(*) FROM at_most_one.archived_row WHERE restored_at IS NULL") == [(25,)]
    renamed = {**copy.deepcopy(plan_data), "table": "sessions"}
    stopped = take_back(plan=renamed)
    assert "25 rows are in the archive only" in stopped["msg"]
    assert "rows of aedpics.inspection_sessions are kept" in stopped["msg"]
    plan = parse(renamed)
    found = reached.read(connection, plan)
    (forbids,) = way_back.asked_for(plan, found, way_back.Asked(), {}).findings
    connection.rollback()
    named = re.search(r"(UPDATE at_most_one\.archived_row SET .*? restored_at IS NULL);", forbids.next_step)
    assert named
    run(
        connection,
        "INSERT INTO at_most_one.archived_row SELECT nextval('at_most_one.archived_row_id_seq'), 'of-another', plan_id,"
        " table_schema, 'never_renamed', primary_key, keeper, row, row_sha256, action, archived_at, NULL, after_sha256"
        " FROM at_most_one.archived_row LIMIT 1",
    )
    run(connection, named[1])
    assert run(connection, "SELECT count(*) FROM at_most_one.archived_row WHERE table_name = 'never_renamed'") == [(1,)]
    assert take_back(plan=renamed)["restored"] == 25
    assert {row for (row,) in run(connection, "SELECT id::text FROM aedpics.sessions")} == deployed.rows_before


def test_another_migration_is_waited_for_before_anything_is_dropped(
    login: Login,
    connection: Connection,
    plan: Plan,
    deployed: Deployed,
    take_back: Call,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of whatever service: Prisma's lock is the database's. It would stop with the index dropped and the rows away."""
    monkeypatch.setattr(core, "_MIGRATION_LOCK_S", 0.2)
    with connect(login, autocommit=True) as other, other.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_lock(%s)", (migration_history.ADVISORY_LOCK,))
        with pytest.raises(OperatorError) as stopped:
            core.take_back(login, plan, core.Wanted(rule=True, restore_rows=True), warn=print)
        assert stopped.value.details["holder"]["pid"] == other.info.backend_pid
        assert write_fence.query(connection, plan)[0].state == "raised"
        assert len(existing(login, plan)) == 3
    assert take_back()["restored"] == 25


def test_what_a_run_on_the_way_to_another_commit_has_archived_returns_with_the_next_rollback(
    login: Login, connection: Connection, plan: Plan, rows_before: set[str], present: Callable[..., Any]
) -> None:
    """A stopped after ten rows; B, of another commit, went on and was deployed. Each takes back its own."""

    def clean(run_id: str, most: int) -> None:
        rows = surplus_rows.report(connection, plan).rows[:most]
        surplus_rows.remove(connection, plan, rows=rows, digest=surplus_rows.digest(rows), run_id=run_id)

    def take_back(run_id: str) -> list[str]:
        told: list[str] = []
        back = _open(login, plan)
        core.take_back(login, plan, core.Wanted(rule=True, restore_rows=True, archived_by=(run_id,)), warn=told.append)
        with connect(login) as other:
            journal.record(other, back, "rollback", "ok", {"runs": [run_id]})
            journal.close_run(other, back, "rolled_back")
        return told

    first = _open(login, plan, "c" * 40)
    clean(first, 10)
    with connect(login) as other:
        journal.record(other, first, "cleanup", "failed", {"removed": 10})
        journal.close_run(other, first, "stopped", failed_phase="cleanup")
    second = _open(login, plan)
    clean(second, 25)
    assert present(run_id=second, phase="migrate")["changed"]
    with connect(login) as other:
        journal.record(other, second, "cleanup", "ok", {"planned": 15})
        journal.close_run(other, second, "deployed")

    found = reached.read(connection, plan)
    connection.rollback()
    assert (found["runs"], found["begun_before"]) == ((second,), {first: 10})
    (told,) = take_back(second)
    assert told.startswith("10 rows are in the archive of runs that were on the way to another commit")
    assert first in told
    assert len(rows_before - ids(connection)) == 10
    found = reached.read(connection, plan)
    connection.rollback()
    assert (found["runs"], found["content"]["pending"], found["begun_before"]) == ((first,), 10, {})
    assert take_back(first) == []
    assert ids(connection) == rows_before
