"""The race of two inserts proves the rule by PostgreSQL's own answers, and leaves nothing behind."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from at_most_one.errors import OperatorError
from at_most_one.migration import race
from at_most_one.plan import Plan, parse
from at_most_one.postgres.connection import Login, connect

from tests.database.index_tools import RULE, open_session, query
from tests.database.index_tools import build as build  # fixtures
from tests.database.index_tools import run_sql as run_sql

CONTENT = "SELECT md5(string_agg(to_jsonb(s)::text, '|' ORDER BY id)), count(*) FROM aedpics.inspection_sessions AS s"
# nextval is kept when its transaction is rolled back: it tells whether the trigger was ever set off.
TRIGGER = """
CREATE SEQUENCE aedpics.fired;
CREATE FUNCTION aedpics.fire() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN PERFORM nextval('aedpics.fired'); RETURN NEW; END $$;
CREATE TRIGGER fires BEFORE INSERT ON aedpics.inspection_sessions FOR EACH ROW EXECUTE FUNCTION aedpics.fire()
"""
FIRED = "SELECT is_called FROM aedpics.fired"


@pytest.fixture
def sessions(login: Login, build: Callable[..., None]) -> None:
    """The indexes, an active session and one outside the rule."""
    build()
    with connect(login) as connection:
        open_session(connection, "AED-1")
        open_session(connection, "AED-1", status="completed")


@pytest.mark.usefixtures("sessions")
def test_both_inserts_are_refused_by_the_planned_index_and_nothing_is_left(login: Login, plan: Plan) -> None:
    before = query(login, CONTENT)
    seen = race.run(login, plan)
    assert seen == race.Race("proven", RULE, (f"23505 {RULE}",) * 2)
    assert query(login, CONTENT) == before


def test_without_a_row_inside_the_rule_nothing_is_tried(login: Login, plan: Plan, build: Callable[..., None]) -> None:
    build()
    with connect(login) as connection:
        open_session(connection, "AED-1", status="completed")
    seen = race.run(login, plan)
    assert (seen.verdict, seen.answers) == ("not tried", ())
    assert "no row is inside the rule" in seen.why


@pytest.mark.usefixtures("sessions")
def test_an_insert_that_goes_through_is_an_error_and_leaves_nothing_either(
    login: Login, plan: Plan, run_sql: Callable[..., None]
) -> None:
    run_sql(f"DROP INDEX aedpics.{RULE}")
    before = query(login, CONTENT)
    with pytest.raises(OperatorError) as broken:
        race.run(login, plan)
    assert "2 of 2 inserts of a key that is taken went through" in broken.value.seen
    assert query(login, CONTENT) == before


@pytest.mark.usefixtures("sessions")
@pytest.mark.parametrize("allowed", [False, True])
def test_a_trigger_is_only_set_off_where_the_plan_allows_it(login: Login, plan: Plan, allowed: bool) -> None:
    query(login, TRIGGER)
    before = query(login, CONTENT)
    if allowed:
        plan = replace(plan, surplus=replace(plan.surplus, triggers=("fires",)))
    seen = race.run(login, plan)
    assert seen.verdict == ("proven" if allowed else "not tried")
    assert ("fires" in seen.why) == (not allowed)
    assert query(login, FIRED) == [(allowed,)]
    assert query(login, CONTENT) == before


@pytest.mark.usefixtures("sessions")
def test_another_index_that_refuses_first_proves_nothing(
    login: Login, plan: Plan, run_sql: Callable[..., None]
) -> None:
    run_sql(f"ALTER INDEX aedpics.{RULE} RENAME TO moved")
    seen = race.run(login, plan)
    assert seen.verdict == "not tried"
    assert "23505 moved" in seen.why


@pytest.mark.usefixtures("sessions")
def test_a_row_that_somebody_holds_is_left_alone(login: Login, plan: Plan) -> None:
    with connect(login) as holder, holder.cursor() as cursor:
        cursor.execute("SELECT FROM aedpics.inspection_sessions FOR UPDATE")
        seen = race.run(login, plan)
        holder.rollback()
    assert (seen.verdict, seen.answers) == ("not tried", ("55P03",) * 2)


@pytest.mark.usefixtures("sessions")
def test_the_verify_phase_keeps_what_was_answered(
    login_args: dict[str, Any], plan_data: dict[str, Any], run_module: Callable[..., dict[str, Any]]
) -> None:
    args = {"login": login_args, "plan": plan_data, "state": "verified", "adapter": "sql", "race": True}
    assert run_module("index_set", args)["race"]["verdict"] == "proven"
    assert "race" not in run_module("index_set", args, check=True)


@pytest.mark.parametrize(
    ("primary_key", "row", "verdict"),
    [(["site", "n"], "'100% of %s', 7", "proven"), (["n"], "'x', 'NaN'", "not tried")],
    ids=["a percent sign", "no number"],
)
def test_a_primary_key_of_any_value_is_no_obstacle(
    login: Login, plan_data: dict[str, Any], primary_key: list[str], row: str, verdict: str
) -> None:
    query(
        login,
        f"CREATE TABLE aedpics.visits (site text, n numeric, serial text, PRIMARY KEY ({', '.join(primary_key)}));"
        f" INSERT INTO aedpics.visits VALUES ({row}, 'AED-1');"
        " CREATE UNIQUE INDEX one_visit ON aedpics.visits (serial) WHERE serial LIKE 'AED%'",
    )
    inside = "serial LIKE 'AED%'"
    index = {"name": "one_visit", "unique": True, "columns": ["serial"], "predicate": inside}
    changes: dict[str, Any] = {"table": "visits", "primary_key": primary_key, "key": ["serial"], "show": ["site"]}
    changes |= {"keep": [{"column": "n", "direction": "desc", "nulls": "last"}], "indexes": [index]}
    changes |= {"predicate": inside, "family": {"pattern": "^one_visit"}}
    seen = race.run(login, parse({**plan_data, **changes}))
    assert seen.verdict == verdict
    assert query(login, "SELECT count(*) FROM aedpics.visits") == [(1,)]
