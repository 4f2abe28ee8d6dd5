"""What a run has reached is read from the catalog and the archive, against what was there when it began."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from typing import Any

import pytest
from at_most_one.duplicates.restore import restore
from at_most_one.plan import Plan
from at_most_one.postgres import catalog_snapshot, own_schema
from at_most_one.postgres.connection import Connection, Login, connect

Module = Callable[..., dict[str, Any]]
RULE = "idx_inspection_sessions_active_session_per_equipment"
BUILD = (
    f"CREATE UNIQUE INDEX {RULE} ON aedpics.inspection_sessions (equipment_serial) WHERE status IN ('active', 'paused')"
)


@pytest.fixture
def deploy_run(run_module: Module, login_args: dict[str, Any], plan_data: dict[str, Any]) -> Module:
    def run(state: str, **options: Any) -> dict[str, Any]:
        args: dict[str, Any] = {"login": login_args, "state": state}
        if state == "opened":
            args |= {"environment": "local", "who": "minsu", "controller_pid": os.getpid()}
            args |= {"controller": socket.gethostname(), "commit_before": "a" * 40, "commit_after": "b" * 40}
        return run_module("deploy_run", {**args, "plan": plan_data, **options})

    return run


@pytest.fixture
def reached(run_module: Module, login_args: dict[str, Any], plan_data: dict[str, Any]) -> Module:
    """What a run has reached, as deploy_changes_info reads it; the same in check mode."""

    def read(**options: Any) -> dict[str, Any]:
        args = {"login": login_args, "plan": plan_data, **options}
        found, checked = (run_module("deploy_changes_info", args, check=check)["reached"] for check in (False, True))
        assert found == checked
        return dict(found)

    return read


def execute(login: Login, *statements: str) -> None:
    with connect(login) as connection, connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)


def archive_rows(login: Login, plan: Plan, run_id: str, *, where: str) -> None:
    """As a clean-up does it: out of the table, into the archive, as the text of each column."""
    with connect(login) as connection, connection.cursor() as cursor:
        own_schema.ensure(connection)
        cursor.execute(
            "SELECT attname FROM pg_attribute WHERE attrelid = 'aedpics.inspection_sessions'::regclass"
            " AND attnum > 0 AND NOT attisdropped"
        )
        pairs = ", ".join(f"'{name}', t.{name}::text" for (name,) in cursor.fetchall())
        cursor.execute(
            f"WITH gone AS (DELETE FROM aedpics.inspection_sessions t WHERE {where}"
            f" RETURNING t.id::text AS id, jsonb_build_object({pairs}) AS image)"
            " INSERT INTO at_most_one.archived_row (run_id, plan_id, table_schema, table_name, primary_key, keeper,"
            " row, row_sha256, action) SELECT %s, %s, %s, %s, jsonb_build_object('id', id), '{}', image,"
            " encode(sha256(convert_to(image::text, 'UTF8')), 'hex'), 'delete' FROM gone",
            (run_id, plan.id, plan.schema, plan.table),
        )


def test_from_nothing_to_the_migration_and_back(
    login: Login, plan: Plan, example: Any, deploy_run: Module, reached: Module
) -> None:
    serves = {"web-1": {"commit": "a" * 40, "release": "/srv/app", "in_place": True}}
    run_id = deploy_run("opened", hosts=serves)["run_id"]

    begun = reached(run_id=run_id)
    assert (begun["point"], begun["differences"], begun["recorded"]) == ("nothing", [], True)
    assert (begun["runs"], begun["hosts"], begun["commit_before"]) == ([run_id], serves, "a" * 40)

    ids = ", ".join(f"'{row}'" for row in sorted(example.surplus))
    archive_rows(login, plan, run_id, where=f"id IN ({ids})")
    rows = reached(run_id=run_id)
    assert (rows["point"], rows["differences"], rows["content"]["pending"]) == ("rows", [], 25)

    execute(login, BUILD.replace(" ON ", " ON ", 1), "INSERT INTO aedpics.aed_data (equipment_serial) VALUES ('new')")
    migration = reached(run_id=run_id)
    assert (migration["point"], migration["built"], migration["kept"]) == ("migration", [RULE], [])
    assert len(migration["differences"]) == 1
    assert migration["differences"][0].startswith("+ index CREATE UNIQUE INDEX")

    execute(login, f"DROP INDEX aedpics.{RULE}")
    with connect(login) as connection:
        restore(connection, plan, run_id=run_id)
    back = reached(run_id=run_id)
    assert (back["point"], back["differences"]) == ("nothing", []), "another table's new row is no fault"
    assert (back["content"]["archived"], back["content"]["back"]) == (25, 25)
    assert back["content"]["archived_sha256"] == back["content"]["table_sha256"]


def test_a_run_that_began_with_the_indexes_says_what_is_there_now(
    login: Login, plan: Plan, example: Any, deploy_run: Module, reached: Module
) -> None:
    """As a rollback does: what it found is not its own, and is gone once it has dropped it."""
    ids = ", ".join(f"'{row}'" for row in sorted(example.surplus))
    execute(login, f"DELETE FROM aedpics.inspection_sessions WHERE id IN ({ids})", BUILD)
    run_id = deploy_run("opened")["run_id"]
    found = reached(run_id=run_id)
    assert (found["there"], found["kept"], found["built"]) == ([RULE], [RULE], [])
    execute(login, f"DROP INDEX aedpics.{RULE}")
    found = reached(run_id=run_id)
    assert (found["there"], found["kept"], found["built"]) == ([], [RULE], [])


def test_an_index_that_a_changed_plan_names_no_more_is_named_while_it_is_there(
    login: Login, deploy_run: Module, reached: Module
) -> None:
    run_id = deploy_run("opened")["run_id"]
    for name in ("idx_gone", "idx_new"):
        execute(login, f"CREATE INDEX {name} ON aedpics.inspection_sessions (status)")
    present = [{"name": name, "verdict": "present"} for name in (RULE, "idx_gone", "idx_never")]
    details = {"indexes": [*present, {"name": "idx_new", "verdict": "unexpected"}]}
    deploy_run("recorded", run_id=run_id, phase="verify", status="ok", details=details)
    assert reached(run_id=run_id)["unplanned"] == ["idx_gone"]
    execute(login, "DROP INDEX aedpics.idx_gone")
    assert reached(run_id=run_id)["unplanned"] == []


def test_what_the_service_changes_afterwards_is_counted_and_is_no_fault(
    login: Login, plan: Plan, example: Any, deploy_run: Module, reached: Module
) -> None:
    run_id = deploy_run("opened")["run_id"]
    one, two, three = sorted(example.surplus)[:3]
    archive_rows(login, plan, run_id, where=f"id IN ('{one}', '{two}', '{three}')")
    with connect(login) as connection:
        restore(connection, plan, run_id=run_id)
    execute(
        login,
        f"UPDATE aedpics.inspection_sessions SET status = 'completed' WHERE id = '{one}'",
        f"DELETE FROM aedpics.inspection_sessions WHERE id = '{two}'",
    )
    content = reached(run_id=run_id)["content"]
    assert {name: content[name] for name in ("pending", "back", "changed", "absent", "taken")} == {
        **{"pending": 0, "back": 1, "changed": 1, "absent": 1},
        "taken": [],
    }
    assert content["archived_sha256"] != content["table_sha256"]


def test_a_row_that_came_back_by_itself_is_named(
    login: Login, plan: Plan, example: Any, deploy_run: Module, reached: Module
) -> None:
    run_id = deploy_run("opened")["run_id"]
    one = min(example.surplus)
    archive_rows(login, plan, run_id, where=f"id = '{one}'")
    execute(
        login,
        "INSERT INTO aedpics.inspection_sessions SELECT (jsonb_populate_record(t, jsonb_build_object('id',"
        f" '{one}', 'status', 'completed'))).* FROM aedpics.inspection_sessions t LIMIT 1",
    )
    content = reached(run_id=run_id)["content"]
    assert (content["pending"], content["taken"]) == (1, [{"id": one}])


def test_rows_of_a_table_that_the_plan_does_not_name_any_more_are_counted_apart(
    login: Login, plan: Plan, example: Any, deploy_run: Module, reached: Module
) -> None:
    """After ALTER TABLE ... RENAME the plan has to name the new table; the archive keeps the name that it knew."""
    run_id = deploy_run("opened")["run_id"]
    one, two = sorted(example.surplus)[:2]
    archive_rows(login, plan, run_id, where=f"id IN ('{one}', '{two}')")
    assert reached(run_id=run_id)["content"]["elsewhere"] == {}
    execute(login, f"UPDATE at_most_one.archived_row SET table_name = 'was' WHERE primary_key ->> 'id' = '{one}'")
    content = reached(run_id=run_id)["content"]
    assert (content["pending"], content["elsewhere"]) == (1, {"aedpics.was": 1})
    with connect(login) as connection:
        assert restore(connection, plan, run_id=run_id).restored == 1
    assert reached(run_id=run_id)["content"]["elsewhere"] == {"aedpics.was": 1}


def test_archived_rows_are_looked_up_in_the_table_by_its_index(
    login: Login, plan: Plan, example: Any, deploy_run: Module
) -> None:
    """Compared as text, all of a large table would be read, for longer than a statement may last: no way back then."""
    run_id = deploy_run("opened")["run_id"]
    archive_rows(login, plan, run_id, where=f"id = '{min(example.surplus)}'")
    with connect(login) as connection, connection.cursor() as cursor:
        cursor.execute("SET LOCAL enable_seqscan = off")  # the example's table is a small one
        catalog_snapshot.content(connection, plan, [run_id])
        cursor.execute(
            "SELECT seq_scan, idx_scan > 0 FROM pg_stat_xact_user_tables"
            " WHERE relid = 'aedpics.inspection_sessions'::regclass"
        )
        assert cursor.fetchall() == [(0, True)]


def test_rows_that_a_rollback_had_to_leave_are_found_by_their_runs(
    login: Login, plan: Plan, example: Any, deploy_run: Module, reached: Module
) -> None:
    """Also under a later deployment, whose own archive is no remainder."""
    one, two, three = sorted(example.surplus)[:3]
    for number, row in enumerate((one, two, three)):
        run_id = deploy_run("opened")["run_id"]
        archive_rows(login, plan, run_id, where=f"id = '{row}'")
        taken_back = number < 2
        if taken_back:
            deploy_run("recorded", run_id=run_id, phase="rollback", status="ok", details={"runs": [run_id]})
        deploy_run("closed", run_id=run_id, outcome="rolled_back" if taken_back else "deployed")
        if number == 0:
            with connect(login) as connection:
                restore(connection, plan, run_id=run_id)
        if number == 1:
            left = run_id
    behind = reached()["left_behind"]
    assert (behind["runs"], behind["content"]["pending"]) == ([left], 1)


def test_an_index_that_was_there_before_is_not_the_runs(login: Login, deploy_run: Module, reached: Module) -> None:
    execute(login, BUILD)
    run_id = deploy_run("opened")["run_id"]
    found = reached(run_id=run_id)
    assert (found["point"], found["built"], found["kept"]) == ("nothing", [], [RULE])


def test_an_invalid_index_counts_as_built_and_never_as_kept(login: Login, deploy_run: Module, reached: Module) -> None:
    """Its beginning had a broken one already: what this run leaves under that name is its own to drop."""
    execute(login, BUILD, "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'aedpics." + RULE + "'::regclass")
    run_id = deploy_run("opened")["run_id"]
    found = reached(run_id=run_id)
    assert (found["built"], found["kept"], found["differences"]) == ([RULE], [], [])


DIFFERENCES = {
    "a column": "ALTER TABLE aedpics.inspection_sessions ADD COLUMN extra text DEFAULT 'x'",
    "a column's default": "ALTER TABLE aedpics.inspection_sessions ALTER COLUMN notes SET DEFAULT 'x'",
    "a column that may be NULL no more": "ALTER TABLE aedpics.inspection_schedules ALTER scheduled_for DROP NOT NULL",
    "a constraint": "ALTER TABLE aedpics.inspection_sessions ADD CONSTRAINT c CHECK (notes <> 'x') NOT VALID",
    "another index": "CREATE INDEX someone_elses ON aedpics.inspection_schedules (id)",
    "a trigger": "CREATE TRIGGER t BEFORE UPDATE ON aedpics.inspection_sessions FOR EACH ROW"
    " EXECUTE FUNCTION suppress_redundant_updates_trigger()",
}


@pytest.mark.parametrize("case", DIFFERENCES)
def test_sees(login: Login, connection: Connection, plan: Plan, case: str) -> None:
    before = catalog_snapshot.take(connection, plan)
    connection.rollback()
    assert catalog_snapshot.differences(before.kept(), catalog_snapshot.take(connection, plan)) == []
    connection.rollback()
    execute(login, DIFFERENCES[case])
    now = catalog_snapshot.take(connection, plan)
    assert catalog_snapshot.differences(before.kept(), now) != []
    assert now.kept()["sha256"] != before.kept()["sha256"]


def test_the_history_is_compared_by_its_meaning(login: Login, connection: Connection, plan: Plan) -> None:
    """One that was rolled back counts as one that never was; another one that failed blocks every deployment."""

    def meaning(*rows: str) -> tuple[str, ...]:
        execute(
            login,
            "CREATE TABLE IF NOT EXISTS aedpics._prisma_migrations (id text DEFAULT gen_random_uuid(), checksum text,"
            " finished_at timestamptz, migration_name text, logs text, rolled_back_at timestamptz,"
            " started_at timestamptz DEFAULT now(), applied_steps_count int DEFAULT 0)",
            "DELETE FROM aedpics._prisma_migrations",
            *(
                f"INSERT INTO aedpics._prisma_migrations (migration_name, finished_at, rolled_back_at) VALUES ({row})"
                for row in rows
            ),
        )
        connection.rollback()
        return catalog_snapshot.take(connection, plan).migrations

    ours = plan.migration
    assert meaning() == ()
    assert meaning(f"'{ours}', now(), now()") == ()
    assert meaning(f"'{ours}', NULL, NULL") == ()
    assert meaning(f"'{ours}', NULL, now()", f"'{ours}', now(), NULL") == (f"migration {ours} applied",)
    assert meaning("'theirs', NULL, NULL") == ("migration theirs failed",)
