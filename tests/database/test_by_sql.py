"""The planned indexes without Prisma: built by our own statements, kept in our own journal, dropped by the way back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg2
import pytest
from at_most_one.errors import OperatorError
from at_most_one.migration import build as options_of
from at_most_one.migration import by_sql
from at_most_one.plan import Plan
from at_most_one.postgres import catalog_snapshot
from at_most_one.postgres.connection import Connection, Login, connect
from at_most_one.runs import journal
from at_most_one.runs.controllers import Controller

from tests.database.index_tools import (
    ACTIVE,
    DATE,
    IN_RULE,
    RULE,
    in_thread,
    open_session,
    query,
    traces,
    verdicts,
    wait_for,
)
from tests.database.index_tools import run_sql as run_sql  # fixtures
from tests.support.prisma_stand_in import MIGRATION

Module = Callable[..., dict[str, Any]]
COMMENT = "SELECT obj_description('aedpics.{}'::regclass)"
WAITING = "SELECT count(*) FROM pg_locks WHERE mode = 'ShareLock' AND NOT granted"


@pytest.fixture
def present(run_module: Module, login_args: dict[str, Any], plan_data: dict[str, Any]) -> Module:
    """Runs index_set with state=present and adapter=sql; there is no release and no history."""

    def run(*, check: bool = False, **options: Any) -> dict[str, Any]:
        args = {"login": login_args, "plan": plan_data, "state": "present", "adapter": "sql", "strategy": "auto"}
        return run_module("index_set", {**args, **options}, check=check, diff=True)

    return run


@pytest.fixture
def filled(login: Login) -> None:
    """Enough rows for a forecast that is not zero."""
    query(login, "INSERT INTO aedpics.user_profiles VALUES ('00000000-0000-4000-a000-000000000001', 'a@x.test', 'A')")
    query(
        login,
        "INSERT INTO aedpics.inspection_sessions (equipment_serial, inspector_id, status) SELECT 'AED-' || i,"
        " '00000000-0000-4000-a000-000000000001', 'active' FROM generate_series(1, 20000) AS i",
    )


def opened(login: Login, plan: Plan) -> str:
    with connect(login) as connection:
        before = {"hosts": {}, **catalog_snapshot.take(connection, plan).kept()}
        return journal.open_run(
            connection, journal.Opening(plan, "shop", "minsu", Controller("runner", 1), before=before)
        ).run_id


def options(strategy: str = "auto", **more: Any) -> options_of.Options:
    given: dict[str, Any] = {"max_write_pause_ms": 60_000, "attempts": 2, "deadline_s": 30, "prisma_timeout_s": 0}
    return options_of.Options(strategy, **{**given, "lock_timeout_ms": 200, "statement_timeout_ms": 10_000, **more})


@pytest.mark.usefixtures("filled")
@pytest.mark.parametrize(("limit_ms", "strategy"), [(60_000, "locked"), (1, "concurrent")], ids=["under", "over"])
def test_auto_chooses_by_the_limit_and_says_first_what_it_will_run(
    login: Login, plan: Plan, present: Module, limit_ms: int, strategy: str
) -> None:
    before = traces(login)
    predicted = present(max_write_pause_ms=limit_ms, check=True)
    assert (predicted["changed"], predicted["strategy"], predicted["history"]) == (True, strategy, "pending")
    creates = [text for text in predicted["statements"] if text.startswith("CREATE")]
    assert len(creates) == 3
    assert all((" CONCURRENTLY " in text) == (strategy == "concurrent") for text in creates)
    assert any("IN SHARE MODE" in text for text in predicted["statements"]) == (strategy == "locked")
    assert traces(login) == before

    done = present(max_write_pause_ms=limit_ms)
    assert (done["changed"], done["strategy"], done["history"]) == (True, strategy, "applied")
    assert done["attempts"] == (1 if strategy == "locked" else 0)
    assert done["write_pause_predicted_ms"] > 1
    assert verdicts(login, plan) == ["present"] * 3
    assert query(login, "SELECT to_regclass('aedpics._prisma_migrations')") == [(None,)]

    again = present(max_write_pause_ms=limit_ms)
    assert (again["changed"], again["strategy"], again["statements"]) == (False, "none", [])


@pytest.mark.parametrize("strategy", ["locked", "concurrent"])
def test_the_plans_migration_is_compared_and_its_comments_are_made(
    login: Login, plan: Plan, present: Module, strategy: str
) -> None:
    text = MIGRATION.replace('"inspection_', '"aedpics"."inspection_')
    done = present(strategy=strategy, migration_sql=f"{text}COMMENT ON INDEX aedpics.{RULE} IS 'one at a time';")
    assert (done["changed"], verdicts(login, plan)) == (True, ["present"] * 3)
    assert query(login, COMMENT.format(RULE)) == [("one at a time",)]
    assert query(login, COMMENT.format(DATE)) == [(None,)]


@pytest.mark.parametrize(
    ("text", "cause", "seen"),
    [
        (f"{MIGRATION}ALTER TABLE inspection_sessions ADD COLUMN x int;", "migration_does_more", "begins with ALTER"),
        ("SELECT 1;", "migration_does_more", f"no statement builds {ACTIVE}"),
        (MIGRATION.replace("CREATE UNIQUE", "CREATE"), "migration_differs", "unique: expected yes, seen no"),
    ],
    ids=["more", "none", "differs"],
)
def test_a_migration_that_is_not_the_plans_is_refused_before_the_build(
    login: Login, present: Module, run_module: Module, login_args: Any, plan_data: Any, text: str, cause: str, seen: str
) -> None:
    before = traces(login)
    refused = present(migration_sql=text)
    assert (refused["details"]["cause"], traces(login)) == (cause, before)
    assert seen in refused["seen"]
    args = {"login": login_args, "plan": plan_data, "adapter": "sql", "migration_sql": text}
    early = run_module("database_preflight", args)
    assert seen in early["history"]["refusal"]
    assert (early["complete"], early["history"]["strategy"]) == (False, "none")


@pytest.mark.parametrize(("adapter", "strategy"), [("sql", "prisma"), ("prisma", "locked")])
def test_a_strategy_of_the_other_adapter_is_refused(login: Login, present: Module, adapter: str, strategy: str) -> None:
    before = traces(login)
    refused = present(adapter=adapter, strategy=strategy, release_path="/nowhere")
    assert f"strategy is {strategy} and adapter is {adapter}" in refused["seen"]
    assert traces(login) == before


def test_without_its_release_prisma_is_refused(present: Module) -> None:
    assert "release_path is missing" in present(adapter="prisma")["seen"]


class TestLocks:
    """Somebody has written to a planned table and is still in the transaction."""

    @pytest.fixture
    def writer(self, login: Login, filled: None) -> Any:
        with connect(login) as connection:
            open_session(connection, "AED-writer")
            yield connection
            if not connection.closed:
                connection.rollback()

    def test_locked_gives_up_after_its_attempts_and_names_the_session(
        self, login: Login, plan: Plan, writer: Connection
    ) -> None:
        before = traces(login)
        with pytest.raises(OperatorError) as refused:
            by_sql.carry_out(login, plan, options("locked"), by_sql.decide(login, plan, "", options("locked")))
        assert "within 2 attempts" in refused.value.seen
        assert f"pid {writer.info.backend_pid}" in refused.value.seen
        assert traces(login) == before

    def test_locked_goes_on_once_the_session_has_ended(self, login: Login, plan: Plan, writer: Connection) -> None:
        patient = options("locked", lock_timeout_ms=20_000)
        intent = by_sql.decide(login, plan, "", patient)
        with in_thread(lambda: by_sql.carry_out(login, plan, patient, intent)) as results:
            wait_for(lambda: query(login, WAITING), lambda found: found == [(1,)])
            writer.rollback()
        assert (results[0].strategy, results[0].attempts) == ("locked", 1)
        assert verdicts(login, plan) == ["present"] * 3

    def test_a_deadlock_is_a_lock_that_was_not_obtained(self, login: Login, plan: Plan, writer: Connection) -> None:
        """The application writes to the tables in the other order, and who finds the deadlock gives up: the build."""
        patient = options("locked", lock_timeout_ms=2_000)
        intent = by_sql.decide(login, plan, "", patient)
        with in_thread(lambda: by_sql.carry_out(login, plan, patient, intent)) as results:
            with writer.cursor() as cursor:
                cursor.execute("SET deadlock_timeout = '1min'")
                wait_for(lambda: query(login, WAITING), [(1,)].__eq__)
                cursor.execute("LOCK TABLE aedpics.inspection_schedules IN ROW EXCLUSIVE MODE")
            writer.rollback()
        assert (results[0].strategy, results[0].attempts) == ("locked", 2)
        assert verdicts(login, plan) == ["present"] * 3

    def test_auto_builds_concurrently_when_it_gets_no_lock(self, login: Login, plan: Plan, writer: Connection) -> None:
        chosen = options(attempts=1, lock_timeout_ms=1500)
        intent = by_sql.decide(login, plan, "", chosen)
        assert intent.strategy == "locked"
        with in_thread(lambda: by_sql.carry_out(login, plan, chosen, intent)) as results:
            for waiting in (1, 0):  # the only attempt has begun, and has ended
                wait_for(lambda: query(login, WAITING), [(waiting,)].__eq__)
            writer.rollback()
        assert (results[0].strategy, results[0].attempts) == ("concurrent", 1)
        assert results[0].stalled_by
        assert verdicts(login, plan) == ["present"] * 3


def test_a_duplicate_that_was_committed_meanwhile_is_for_another_clean_up(
    login: Login, plan: Plan, filled: None
) -> None:
    intent = by_sql.decide(login, plan, "", options("locked"))
    with connect(login) as connection:
        open_session(connection, "AED-twice", 2)
        connection.commit()
    before = traces(login)
    with pytest.raises(OperatorError) as refused:
        by_sql.carry_out(login, plan, options("locked"), intent)
    assert refused.value.details["cause"] == "duplicates"
    assert "AED-twice" not in str(refused.value)
    assert traces(login) == before


def test_the_deadline_ends_a_build_under_the_lock(login: Login, plan: Plan, filled: None) -> None:
    short = options("locked", deadline_s=0)
    intent = by_sql.decide(login, plan, "", short)
    before = traces(login)
    with pytest.raises(OperatorError) as refused:
        by_sql.carry_out(login, plan, short, intent)
    assert "migrate_deadline_s" in refused.value.next_step
    assert traces(login) == before


def test_what_an_earlier_build_has_left_is_kept_or_repaired_concurrently(
    login: Login, plan: Plan, present: Module, run_sql: Callable[..., None]
) -> None:
    with connect(login) as connection:
        open_session(connection, "AED-1", 2)
    with pytest.raises(psycopg2.errors.UniqueViolation):
        run_sql(f"CREATE UNIQUE INDEX CONCURRENTLY {RULE} ON inspection_sessions (equipment_serial) {IN_RULE}")
    run_sql("DELETE FROM inspection_sessions")
    assert verdicts(login, plan)[0] == "invalid"
    done = present(strategy="locked")
    assert (done["strategy"], verdicts(login, plan)) == ("concurrent", ["present"] * 3)
    assert done["statements"][0].startswith("DROP INDEX CONCURRENTLY")


def test_from_the_run_to_the_way_back_the_journal_alone_keeps_what_was_done(
    login: Login,
    login_args: dict[str, Any],
    plan: Plan,
    plan_data: dict[str, Any],
    run_module: Module,
    present: Module,
) -> None:
    with connect(login) as connection:
        before = catalog_snapshot.take(connection, plan)
    run_id = opened(login, plan)
    run = {"login": login_args, "plan": plan_data, "run_id": run_id}

    assert present(run_id=run_id, phase="migrate")["changed"]
    verified = {**run, "state": "verified", "adapter": "sql", "lower_fence": True, "phase": "verify"}
    assert run_module("index_set", verified)["exact"]
    closing = {**run, "state": "closed", "phases": ["migrate", "verify"], "outcome": "deployed"}
    closed = run_module("deploy_run", closing)
    assert closed["outcome"] == "deployed"
    migrate, verify = closed["run"]["phases"]
    assert (migrate["details"]["adapter"], migrate["details"]["strategy"]) == ("sql", "locked")
    assert sum(text.startswith("CREATE ") for text in migrate["details"]["statements"]) == 3
    assert verify["details"]["adapter"] == "sql"
    monitored = run_module("monitor_database_info", {"login": login_args, "plan": plan_data, "keep_days": 90})
    assert monitored["history"] == {"verdict": "not_kept", "repair": None, "against": []}
    assert monitored["verified"]["exact"]

    query(login, "CREATE INDEX of_somebody_else ON aedpics.inspection_sessions (equipment_serial)")
    back = {"login": login_args, "plan": plan_data, "run_id": opened(login, plan), "rule": True, "phase": "rollback"}
    done = run_module("database_rollback", back)
    assert [text.rsplit('"', 2)[1] for text in done["statements"]] == [RULE, DATE, ACTIVE]
    assert "The catalog is" in done["sentence"]
    assert "Prisma" not in done["sentence"]
    with connect(login) as connection:
        now = catalog_snapshot.take(connection, plan)
    assert catalog_snapshot.differences(before.kept(), now) == [
        "+ index CREATE INDEX of_somebody_else ON aedpics.inspection_sessions USING btree (equipment_serial)"
    ]


def test_a_run_that_was_verified_with_prisma_is_still_asked_for_its_history(
    login: Login,
    login_args: dict[str, Any],
    plan: Plan,
    plan_data: dict[str, Any],
    run_module: Module,
    present: Module,
) -> None:
    run_id = opened(login, plan)
    assert present()["changed"]
    with connect(login) as connection:
        journal.record(connection, run_id, "verify", "ok", {})
    args = {"login": login_args, "plan": plan_data, "run_id": run_id, "state": "closed"}
    refused = run_module("deploy_run", {**args, "phases": ["verify"], "outcome": "deployed"})
    assert "Prisma's history of" in refused["seen"]
