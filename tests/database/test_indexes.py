"""The verdicts against a real catalog: right names, wrong definitions."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
from at_most_one.errors import OperatorError
from at_most_one.indexes import definitions, verification
from at_most_one.plan import Plan, parse
from at_most_one.postgres.connection import Login, connect

from tests.database.index_tools import (
    ACTIVE,
    DATE,
    IN_RULE,
    ON_SESSIONS,
    RULE,
    inspect,
    open_session,
    parts,
    query,
    verdict,
)
from tests.database.index_tools import build as build  # fixtures
from tests.database.index_tools import duplicates as duplicates
from tests.database.index_tools import run_sql as run_sql


def other_plan(plan_data: dict[str, Any], name: str = RULE, **changes: Any) -> Plan:
    """The shipped plan with one index declared differently."""
    data = copy.deepcopy(plan_data)
    index = next(entry for entry in data["indexes"] if entry["name"] == name)
    index.update(changes)
    return parse(data)


def test_the_planned_set_is_missing_then_exact(login: Login, plan: Plan, build: Callable[..., None]) -> None:
    before = inspect(login, plan)
    assert [found.verdict for found in before.verdicts] == ["missing"] * 3
    assert before.existing == ()
    assert not before.exact

    build()

    after = inspect(login, plan)
    assert [(found.verdict, found.valid, found.ready, found.live) for found in after.verdicts] == [
        ("present", True, True, True)
    ] * 3
    assert after.exact
    assert after.faults() == []
    assert after.summary() == "3 of 3 planned indexes present and valid, 0 unexpected, 0 duplicate groups"
    verification.require_exact(after, plan)


def test_inspection_leaves_nothing_behind(login: Login, plan: Plan, build: Callable[..., None]) -> None:
    build()
    with connect(login) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_catalog.pg_class")
        before = cursor.fetchone()
        verification.inspect(connection, plan)
        verification.inspect(connection, plan)  # the names of the shadow tables are free again
        cursor.execute("SELECT count(*) FROM pg_catalog.pg_class")
        assert cursor.fetchone() == before


# How somebody else may have made it: the wording differs, the index is the same.
@pytest.mark.parametrize(
    "statement",
    [
        f"{ON_SESSIONS} (equipment_serial) WHERE status = ANY (ARRAY['active', 'paused']::session_status[])",
        f"{ON_SESSIONS} USING btree (equipment_serial ASC NULLS LAST) WHERE (((status IN ('active', 'paused'))))",
        f"{ON_SESSIONS} (equipment_serial text_ops) {IN_RULE}",
        f"CREATE UNIQUE INDEX CONCURRENTLY {RULE} ON inspection_sessions (equipment_serial) {IN_RULE}",
        f"{ON_SESSIONS} (equipment_serial) WITH (fillfactor = 70) {IN_RULE}",  # storage is not the rule's business
    ],
)
def test_other_words_for_the_same_index(
    login: Login, plan: Plan, build: Callable[..., None], run_sql: Callable[..., None], statement: str
) -> None:
    build(without=(RULE,))
    run_sql(statement)
    assert inspect(login, plan).exact


@pytest.mark.parametrize(
    ("statement", "differing"),
    [
        pytest.param(
            f"{ON_SESSIONS} (equipment_serial, status) {IN_RULE}", {"columns"}, id="the guide's (equipment, status)"
        ),
        pytest.param(f"{ON_SESSIONS} (inspector_id) {IN_RULE}", {"columns"}, id="another column"),
        pytest.param(f"{ON_SESSIONS} (lower(equipment_serial)) {IN_RULE}", {"columns"}, id="an expression"),
        pytest.param(f"{ON_SESSIONS} (equipment_serial)", {"predicate"}, id="no predicate"),
        pytest.param(f"{ON_SESSIONS} (equipment_serial) WHERE status = 'active'", {"predicate"}, id="active only"),
        pytest.param(
            f"{ON_SESSIONS} (equipment_serial) WHERE status IN ('active', 'paused', 'in_progress')",
            {"predicate"},
            id="one status more",
        ),
        pytest.param(
            f"CREATE INDEX {RULE} ON aedpics.inspection_sessions (equipment_serial) {IN_RULE}",
            {"unique"},
            id="not unique",
        ),
        pytest.param(f"{ON_SESSIONS} (equipment_serial DESC) {IN_RULE}", {"order"}, id="descending"),
        pytest.param(f"{ON_SESSIONS} (equipment_serial NULLS FIRST) {IN_RULE}", {"order"}, id="nulls first"),
        pytest.param(
            f"{ON_SESSIONS} (equipment_serial text_pattern_ops) {IN_RULE}", {"opclass"}, id="another operator class"
        ),
        pytest.param(
            f'{ON_SESSIONS} (equipment_serial COLLATE "POSIX") {IN_RULE}', {"collation"}, id="another collation"
        ),
        pytest.param(f"{ON_SESSIONS} (equipment_serial) INCLUDE (status) {IN_RULE}", {"include"}, id="included column"),
        pytest.param(
            f"CREATE INDEX {RULE} ON aedpics.inspection_sessions USING hash (equipment_serial) {IN_RULE}",
            {"method", "unique"},
            id="another method",
        ),
        pytest.param(
            f"CREATE UNIQUE INDEX {RULE} ON aedpics.aed_data (equipment_serial)",
            {"table", "predicate"},
            id="another table",
        ),
        pytest.param(
            f"ALTER TABLE aedpics.inspection_sessions ADD CONSTRAINT {RULE}"
            " UNIQUE (equipment_serial) DEFERRABLE INITIALLY DEFERRED",
            {"predicate", "deferrable"},
            id="a deferrable constraint",
        ),
        pytest.param(f"CREATE VIEW aedpics.{RULE} AS SELECT 1", {"kind"}, id="no index at all"),
    ],
)
def test_right_name_wrong_definition(
    login: Login,
    plan: Plan,
    build: Callable[..., None],
    run_sql: Callable[..., None],
    statement: str,
    differing: set[str],
) -> None:
    build(without=(RULE,))
    run_sql(statement)

    found = verdict(login, plan)

    assert (found.verdict, parts(found)) == ("different", differing)
    with pytest.raises(OperatorError, match=RULE) as stop:
        verification.require_exact(inspect(login, plan), plan)
    assert all(f"{part}: expected" in stop.value.seen for part in differing)


def test_nulls_not_distinct_is_part_of_the_definition(
    login: Login, plan: Plan, build: Callable[..., None], run_sql: Callable[..., None], plan_data: dict[str, Any]
) -> None:
    with connect(login) as connection:
        if connection.server_version < 150_000:  # the clause does not exist: asking for it must not pass in silence
            with pytest.raises(OperatorError, match="does not fit the database"):
                verification.inspect(connection, other_plan(plan_data, nulls_not_distinct=True))
            return
    build(without=(RULE,))
    run_sql(f"{ON_SESSIONS} (equipment_serial) NULLS NOT DISTINCT {IN_RULE}")
    assert parts(verdict(login, plan)) == {"nulls_not_distinct"}
    assert inspect(login, other_plan(plan_data, nulls_not_distinct=True)).exact


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        (DATE, {"columns": [{"column": "aed_data_id", "order": "desc", "nulls": "last"}, "scheduled_for"]}),
        (DATE, {"columns": ["aed_data_id"], "include": ["scheduled_for", "status"]}),
        (DATE, {"columns": [{"expression": "scheduled_for AT TIME ZONE 'UTC'"}, "status"]}),
        (DATE, {"columns": [{"column": "notes", "collation": "pg_catalog.C", "opclass": "text_pattern_ops"}]}),
        (ACTIVE, {"predicate": "notes LIKE '100%' AND scheduled_for > '2025-01-01 00:00+09'::timestamptz"}),
        (ACTIVE, {"columns": [{"column": "aed_data_id", "opclass": "pg_catalog.int4_ops"}], "method": "hash"}),
    ],
)
def test_what_a_plan_declares_is_what_it_builds(
    login: Login, plan_data: dict[str, Any], run_sql: Callable[..., None], name: str, changes: dict[str, Any]
) -> None:
    run_sql("ALTER TABLE inspection_schedules ADD COLUMN notes text")
    declared = other_plan(plan_data, name, **changes)
    with connect(login) as connection, connection.cursor() as cursor:
        for index in declared.indexes:
            cursor.execute(definitions.create_statement(index, declared.schema))
    assert inspect(login, declared).exact


def test_names_are_looked_up_in_the_plans_schema_only(
    login: Login, plan: Plan, build: Callable[..., None], run_sql: Callable[..., None]
) -> None:
    build(without=(RULE,))
    run_sql(
        "CREATE TABLE public.inspection_sessions (LIKE aedpics.inspection_sessions)",
        f"CREATE UNIQUE INDEX {RULE} ON public.inspection_sessions (equipment_serial) {IN_RULE}",
        "CREATE INDEX idx_inspection_sessions_active_elsewhere ON public.inspection_sessions (status)",
    )
    found = inspect(login, plan)
    assert verdict(login, plan).verdict == "missing"
    assert [v.verdict for v in found.verdicts] == ["missing", "present", "present"]


def test_dropped_columns_do_not_shift_the_comparison(
    login: Login, plan: Plan, build: Callable[..., None], run_sql: Callable[..., None]
) -> None:
    run_sql(
        "ALTER TABLE aedpics.inspection_schedules DROP COLUMN created_at, DROP COLUMN scheduled_for",
        "ALTER TABLE aedpics.inspection_schedules ADD COLUMN scheduled_for timestamptz(6)",
    )
    build()
    assert inspect(login, plan).exact


def test_a_fourth_of_the_family_is_a_fault_and_a_neighbour_is_not(
    login: Login, plan: Plan, build: Callable[..., None], run_sql: Callable[..., None]
) -> None:
    build()
    strangers = [f"idx_inspection_sessions_active_by_{name}" for name in ("status", "paused_at")]
    for name in strangers:
        run_sql(f"CREATE INDEX {name} ON inspection_sessions ({name.rpartition('by_')[2]})")

    found = inspect(login, plan)

    assert [(v.name, v.verdict) for v in found.verdicts if v.verdict != "present"] == [
        (name, "unexpected") for name in sorted(strangers)
    ]
    assert not found.exact
    with pytest.raises(OperatorError, match="idx_inspection_sessions_active_by_status is unexpected"):
        verification.require_exact(found, plan)


def test_null_keys_are_duplicates_only_when_the_index_says_so(
    login: Login, plan: Plan, plan_data: dict[str, Any], run_sql: Callable[..., None]
) -> None:
    run_sql("ALTER TABLE inspection_sessions ALTER equipment_serial DROP NOT NULL")
    with connect(login) as connection:
        open_session(connection, "AED-1")
        open_session(connection, "AED-1", status="completed")
        with connection.cursor() as cursor:
            for _ in range(2):
                cursor.execute(
                    "INSERT INTO aedpics.inspection_sessions (inspector_id) VALUES"
                    " ('00000000-0000-4000-a000-000000000001')"
                )
        assert definitions.violations(connection, plan.schema, plan.rule_index) == 0
        strict = other_plan(plan_data, nulls_not_distinct=True).rule_index
        assert definitions.violations(connection, plan.schema, strict) == 1


def test_a_plan_that_does_not_fit_names_the_index(login: Login, plan_data: dict[str, Any]) -> None:
    with pytest.raises(OperatorError, match='database: idx_inspection_schedules_active: column "cancelled_at"'):
        inspect(login, other_plan(plan_data, ACTIVE, predicate="cancelled_at IS NULL"))
    with pytest.raises(OperatorError, match=f"{DATE}: functions in index expression must be marked IMMUTABLE"):
        inspect(login, other_plan(plan_data, DATE, columns=[{"expression": "date(scheduled_for)"}]))
    with pytest.raises(OperatorError, match=r"aedpics\.inspection_plans: relation .* does not exist"):
        inspect(login, other_plan(plan_data, DATE, table="inspection_plans"))


def test_row_level_security_is_no_false_zero(login: Login, plan: Plan, run_sql: Callable[..., None]) -> None:
    run_sql(
        "DROP ROLE IF EXISTS at_most_one_test_reader",
        "CREATE ROLE at_most_one_test_reader",
        "GRANT USAGE ON SCHEMA aedpics TO at_most_one_test_reader",
        "GRANT SELECT ON ALL TABLES IN SCHEMA aedpics TO at_most_one_test_reader",
        "ALTER TABLE inspection_sessions ENABLE ROW LEVEL SECURITY",
    )
    try:
        with connect(login) as connection, connection.cursor() as cursor:
            cursor.execute("SET ROLE at_most_one_test_reader")
            with pytest.raises(OperatorError, match=r"may not inspect .* row-level security"):
                verification.inspect(connection, plan)
    finally:
        run_sql("DROP OWNED BY at_most_one_test_reader", "DROP ROLE at_most_one_test_reader")


def test_a_connection_that_ends_is_no_plan_that_does_not_fit(login: Login, plan: Plan) -> None:
    def inspect_without_backend() -> None:
        with connect(login) as connection:
            query(login, f"SELECT pg_terminate_backend({connection.info.backend_pid})")
            definitions.expected(connection, plan)

    with pytest.raises(OperatorError, match=r"The connection to .* was lost") as stop:
        inspect_without_backend()
    assert "goes on from there" in stop.value.next_step
