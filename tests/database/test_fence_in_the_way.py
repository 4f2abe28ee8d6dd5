"""The write fence among sessions that are in its way, and what it leaves of its own: settings, runs, other indexes."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from at_most_one.errors import OperatorError
from at_most_one.fence import write_fence
from at_most_one.indexes import brief_lock
from at_most_one.plan import Plan
from at_most_one.postgres.connection import Connection, Login, connect
from at_most_one.postgres.fence_names import name_of

from tests.database.test_fence import TABLE, run, until_somebody_waits
from tests.database.test_fence import app as app  # fixtures
from tests.database.test_fence import fenced as fenced
from tests.database.test_fence_states import LEGACY, found

SETTINGS = ("lock_timeout", "statement_timeout", "search_path")


@pytest.fixture
def legacy(connection: Connection, plan: Plan, example: Any) -> None:
    """The two triggers of an older release."""
    run(connection, LEGACY.format(function=name_of(plan.id).removeprefix("at_most_one_"), table=TABLE))


def settings(connection: Connection) -> list[Any]:
    assert not connection.autocommit
    return [run(connection, f"SHOW {name}") for name in SETTINGS]


@pytest.mark.parametrize("pause_ms", [500, -1], ids=["plain", "concurrent"])
def test_the_session_is_afterwards_as_before(
    login: Login, plan: Plan, example: Any, app: Connection, pause_ms: int
) -> None:
    with connect(login, lock_timeout_ms=1_234, statement_timeout_ms=56_789) as ours:
        before = settings(ours)
        write_fence.raise_fence(ours, plan, max_write_pause_ms=pause_ms)
        assert settings(ours) == before
        with app.cursor() as cursor:
            cursor.execute(f"SELECT count(*) FROM {TABLE}")
        assert write_fence.lower_fence(ours, plan, wait_ms=50).state == "partial"
        assert settings(ours) == before


def test_a_lock_timeout_does_not_bound_the_wait_for_a_reader(
    login: Login, plan: Plan, fenced: Any, app: Connection
) -> None:
    """Only wait_ms does: a drop that gives up at the lock_timeout would stay for nothing."""
    with app.cursor() as cursor:
        cursor.execute(f"SELECT count(*) FROM {TABLE}")
    with connect(login, lock_timeout_ms=20) as ours, ThreadPoolExecutor(1) as pool:
        lowering = pool.submit(write_fence.lower_fence, ours, plan, wait_ms=20_000)
        until_somebody_waits(login, "virtualxid")
        with pytest.raises(TimeoutError):
            lowering.result(0.3)
        app.commit()
        assert lowering.result(10).state == "lowered"


def test_a_deadlock_with_a_reader_leaves_it_for_the_next_run(
    login: Login, connection: Connection, plan: Plan, fenced: Any, app: Connection
) -> None:
    """The drop waits for the reader, who then asks for the lock that the drop holds."""
    with app.cursor() as cursor:
        cursor.execute("SET deadlock_timeout = '1min'")  # whoever looks for a deadlock is the one that gives up
        cursor.execute(f"SELECT count(*) FROM {TABLE}")
        with connect(login) as ours, ThreadPoolExecutor(1) as pool:
            lowering = pool.submit(write_fence.lower_fence, ours, plan, wait_ms=20_000)
            until_somebody_waits(login, "virtualxid")
            cursor.execute(f"LOCK TABLE {TABLE} IN SHARE UPDATE EXCLUSIVE MODE")
            lowered = lowering.result(10)
    assert (lowered.state, len(lowered.warnings)) == ("partial", 1)
    app.commit()
    assert write_fence.lower_fence(connection, plan).state == "lowered"


def test_a_drop_whose_session_is_ended_says_what_has_ended_it(
    login: Login, connection: Connection, plan: Plan, fenced: Any, app: Connection
) -> None:
    pids: list[int] = []

    def lower() -> None:
        with connect(login) as ours:
            pids.append(ours.info.backend_pid)
            write_fence.lower_fence(ours, plan, wait_ms=20_000)

    with app.cursor() as cursor:
        cursor.execute(f"SELECT count(*) FROM {TABLE}")
    with ThreadPoolExecutor(1) as pool:
        lowering = pool.submit(lower)
        until_somebody_waits(login, "virtualxid")
        run(connection, "SELECT pg_terminate_backend(%s)", *pids)
        with pytest.raises(OperatorError) as stop:
            lowering.result(10)
    assert stop.value.details["sqlstate"] in ("08000", "57P01"), "not that the connection is closed by now"


def test_a_drop_that_has_to_be_plain_is_left_to_the_next_run_where_a_reader_is_in_the_way(
    connection: Connection, plan: Plan, fenced: Any, app: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PostgreSQL drops no index concurrently where an event trigger writes before each command."""
    monkeypatch.setattr(brief_lock, "_ATTEMPTS", 1)
    run(
        connection,
        "CREATE TABLE aedpics.seen (tag text);"
        "CREATE FUNCTION aedpics.note() RETURNS event_trigger LANGUAGE plpgsql AS"
        " $$BEGIN INSERT INTO aedpics.seen VALUES (tg_tag); END$$;"
        "CREATE EVENT TRIGGER note ON ddl_command_start EXECUTE FUNCTION aedpics.note()",
    )
    with app.cursor() as cursor:
        cursor.execute(f"SELECT count(*) FROM {TABLE}")
    assert write_fence.lower_fence(connection, plan).state == "partial"
    app.commit()
    assert write_fence.lower_fence(connection, plan).state == "lowered"


def test_triggers_of_an_older_release_that_a_reader_keeps(
    login: Login, connection: Connection, plan: Plan, legacy: None, app: Connection
) -> None:
    with app.cursor() as cursor:
        cursor.execute(f"SELECT count(*) FROM {TABLE}")
    with connect(login, lock_timeout_ms=50) as ours:
        lowered = write_fence.lower_fence(ours, plan)
        raised = write_fence.raise_fence(ours, plan)
    assert (lowered.state, raised.state) == ("partial", "raised")
    for (warning,) in (lowered.warnings, raised.warnings):
        assert f"pid {app.info.backend_pid}" in warning
        assert f"{name_of(plan.id)}_insert, {name_of(plan.id)}_update" in warning
    app.commit()
    assert write_fence.lower_fence(connection, plan).warnings == []
    assert run(connection, "SELECT count(*) FROM pg_trigger WHERE NOT tgisinternal") == [(0,)]


@pytest.mark.parametrize("left", ["index", "triggers"])
@pytest.mark.parametrize("change", [write_fence.lower_fence, write_fence.raise_fence])
def test_a_run_that_was_taken_over_drops_nothing(
    connection: Connection, plan: Plan, example: Any, change: Callable[..., Any], left: str
) -> None:
    """It is asked right before each drop, not only when the change begins."""
    if left == "index":
        write_fence.raise_fence(connection, plan)
        run(connection, f"COMMENT ON INDEX aedpics.{name_of(plan.id)} IS 'of another plan'")
    else:
        run(connection, LEGACY.format(function=name_of(plan.id).removeprefix("at_most_one_"), table=TABLE))
    asked = 0

    def lost_later(_: Connection) -> None:
        nonlocal asked
        asked += 1
        if asked > (change is write_fence.raise_fence):  # the build asks once
            raise OperatorError("lost", expected="the run", next_step="none.")

    with pytest.raises(OperatorError, match="lost"):
        change(connection, plan, hold=lost_later)
    if left == "index":
        assert name_of(plan.id) in [name for name, *_ in found(connection)]
    else:
        assert run(connection, "SELECT count(*) FROM pg_trigger WHERE NOT tgisinternal") == [(2,)]


def test_an_index_of_the_same_name_on_another_table_is_not_the_fence(
    connection: Connection, plan: Plan, example: Any
) -> None:
    run(connection, f"CREATE INDEX {name_of(plan.id)} ON aedpics.inspection_schedules (scheduled_for)")
    assert write_fence.query(connection, plan)[0].state == "lowered"
    assert write_fence.lower_fence(connection, plan).statements == []


def test_a_trigger_of_the_same_name_on_another_table_is_not_the_fence(
    connection: Connection, plan: Plan, legacy: None
) -> None:
    name, function = f"{name_of(plan.id)}_insert", f"at_most_one.{name_of(plan.id).removeprefix('at_most_one_')}()"
    for table in (TABLE, "aedpics.inspection_schedules"):
        mine = "mine" if table == TABLE else name
        run(connection, f"CREATE TRIGGER {mine} AFTER INSERT ON {table} FOR EACH ROW EXECUTE FUNCTION {function}")
    warned = write_fence.lower_fence(connection, plan, check=True)
    assert len([one for one in warned.statements if one.startswith("DROP TRIGGER")]) == 2
