"""The forecast of the write pause against the plain build itself, and what asking for it costs and leaves."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
from at_most_one.errors import OperatorError
from at_most_one.indexes import definitions, write_pause
from at_most_one.plan import Plan
from at_most_one.postgres.connection import Connection, Login, connect

from tests.database.index_tools import in_thread, open_session, query, traces

ROWS = 100_000  # at a million the bench looks


def fill(login: Login, rows: int) -> None:
    query(
        login,
        "INSERT INTO aedpics.user_profiles VALUES ('00000000-0000-4000-a000-000000000001', 'a@example.test', 'A');"
        "INSERT INTO aedpics.inspection_sessions (equipment_serial, inspector_id, status, notes)"
        " SELECT 'AED-' || i, '00000000-0000-4000-a000-000000000001',"
        " (CASE i % 10 WHEN 0 THEN 'active' ELSE 'completed' END)::aedpics.session_status, 'note ' || i"
        f" FROM generate_series(1, {rows}) AS i;"
        "ALTER TABLE aedpics.inspection_schedules DISABLE TRIGGER ALL;"
        "INSERT INTO aedpics.inspection_schedules (aed_data_id, scheduled_for)"
        " SELECT 1 + i % 1000, '2025-11-10 00:00+09'::timestamptz + (i * 7919 % 100000) * interval '1 minute'"
        f" FROM generate_series(1, {rows}) AS i;"
        "ALTER TABLE aedpics.inspection_schedules ENABLE TRIGGER ALL",
    )


def predict(login: Login, plan: Plan) -> write_pause.Forecast:
    with connect(login) as connection:
        found = write_pause.write_pause(connection, plan)
        connection.rollback()
    return found


def build_ms(connection: Connection, plan: Plan) -> float:
    """What Prisma's transaction takes, rolled back."""
    started = time.monotonic()
    with connection.cursor() as cursor:
        for index in plan.indexes:
            cursor.execute(definitions.create_statement(index, plan.schema))
    took = 1000 * (time.monotonic() - started)
    connection.rollback()
    return took


def test_it_is_within_a_factor_of_two_of_the_build(login: Login, plan: Plan) -> None:
    fill(login, ROWS)
    rounds = []
    for _ in range(5):  # one against the other in turn: the load of the machine meets both
        predicted = predict(login, plan)
        with connect(login) as connection:
            rounds.append((predicted.write_pause_ms, build_ms(connection, plan)))
        assert predicted.seconds < 5  # under any load; a fraction of a second on a machine of its own
        assert 0.8 * ROWS < predicted.rows["inspection_sessions"] < 1.25 * ROWS
        assert predicted.tables["inspection_sessions"] > predicted.tables["inspection_schedules"]
    ratios = sorted(expected / actual for expected, actual in rounds)
    print(f"forecast by build at {ROWS} rows: {[round(ratio, 2) for ratio in ratios]}")
    assert 0.5 <= ratios[len(ratios) // 2] <= 2.0, rounds


def test_the_pause_that_a_writer_sees_is_what_was_foretold(login: Login, plan: Plan) -> None:
    fill(login, ROWS)
    ratios = []
    for _ in range(3):
        predicted = predict(login, plan).write_pause_ms
        with connect(login) as builder, connect(login) as writer:
            with builder.cursor() as cursor:
                cursor.execute(definitions.create_statement(plan.indexes[0], plan.schema))
            started = time.monotonic()
            with in_thread(lambda: open_session(writer, "AED-new", status="completed")):
                with builder.cursor() as cursor:
                    for index in plan.indexes[1:]:
                        cursor.execute(definitions.create_statement(index, plan.schema))
                builder.rollback()
            paused = 1000 * (time.monotonic() - started)
            writer.rollback()
        ratios.append(predicted / paused)
    assert 0.5 <= sorted(ratios)[1] <= 3.0, ratios  # the first index was built before the writer came


def test_it_leaves_nothing_and_works_with_duplicates_in_the_table(login: Login, plan: Plan) -> None:
    with connect(login) as connection:
        open_session(connection, "AED-1", 3)
    before = traces(login)
    with connect(login) as connection, connection.cursor() as cursor:
        first = write_pause.write_pause(connection, plan)
        second = write_pause.write_pause(connection, plan)  # the names of the samples are free again
        cursor.execute("SELECT count(*) FROM pg_catalog.pg_locks WHERE pid = pg_backend_pid() AND mode = 'ShareLock'")
        assert cursor.fetchone() == (0,)  # it locks nobody out
    assert first.rows == second.rows == {"inspection_sessions": 3, "inspection_schedules": 0}
    assert first.write_pause_ms < 500
    assert traces(login) == before


def test_the_order_of_the_script_decides_which_table_waits_longest(login: Login, plan: Plan) -> None:
    fill(login, 20_000)
    backwards = tuple(reversed(plan.indexes))
    with connect(login) as connection:
        found = write_pause.write_pause(connection, plan, backwards)
    assert found.tables["inspection_schedules"] > found.tables["inspection_sessions"]
    assert found.write_pause_ms == found.tables["inspection_schedules"]
    with connect(login) as connection:
        assert write_pause.write_pause(connection, plan, ()).write_pause_ms == 0


def test_a_partitioned_table_is_sampled_by_its_partitions(login: Login, plan: Plan) -> None:
    query(
        login,
        "ALTER TABLE aedpics.inspection_schedules RENAME TO one_year;"
        "CREATE TABLE aedpics.inspection_schedules (LIKE aedpics.one_year) PARTITION BY RANGE (scheduled_for);"
        "ALTER TABLE aedpics.inspection_schedules ATTACH PARTITION aedpics.one_year"
        " FOR VALUES FROM ('2000-01-01') TO ('2100-01-01');"
        "ALTER TABLE aedpics.one_year DISABLE TRIGGER ALL;"
        "INSERT INTO aedpics.one_year (aed_data_id, scheduled_for) SELECT i, '2025-11-10' FROM"
        " generate_series(1, 150000) AS i",
    )
    found = predict(login, plan)  # 1,100 pages or more: not read whole
    assert 0.7 * 150_000 < found.rows["inspection_schedules"] < 1.3 * 150_000
    assert found.rows["inspection_schedules"] != 150_000


@pytest.mark.parametrize(
    ("pages", "most", "memory_mb", "workers"),
    [
        (0, 2, 64, 0),
        (1_023, 2, 64, 0),
        (1_024, 2, 64, 1),
        (100_000, 2, 64, 1),  # 32 MB for each of two
        (100_000, 2, 128, 2),
        (3_072, 4, 1024, 2),
        (9_215, 4, 1024, 2),
        (9_216, 4, 1024, 3),
        (9_216, 0, 1024, 0),
        (9_216, 2, 16, 0),
    ],
)
def test_how_many_workers_help_is_what_postgresql_decides(pages: int, most: int, memory_mb: int, workers: int) -> None:
    assert write_pause.workers(pages, 1_024, most, memory_mb * 1024**2) == workers


def test_a_table_that_may_not_be_read_is_no_forecast_of_zero(login: Login, plan: Plan) -> None:
    with connect(login) as connection, pytest.raises(OperatorError, match="could not be measured") as stop:
        write_pause.write_pause(connection, plan, [replace(plan.indexes[0], table="inspection_plans")])
    assert stop.value.details["cause"] == "forecast"
