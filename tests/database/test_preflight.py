"""What stops a run before anything is changed: each obstacle by a real one, all of them named at once."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import psycopg2
import psycopg2.errors
import pytest
from at_most_one.errors import OperatorError
from at_most_one.plan import Plan, Surplus, parse
from at_most_one.postgres import publications
from at_most_one.postgres.connection import Connection, Login, connect
from at_most_one.preflight import server_checks
from at_most_one.runs import journal
from at_most_one.runs.controllers import Controller

from tests.database.index_tools import wait_for
from tests.database.test_fence import open_as_app, run

LIMITS = server_checks.Limits(transaction_age_s=3600, replication_lag_s=30)
TABLE = "aedpics.inspection_sessions"
COLUMNS = (
    "id, equipment_serial, inspector_id, status, current_step, started_at, paused_at, completed_at, step_data, notes,"
    " created_at, updated_at"
)


def refusal(connection: Connection, plan: Plan, limits: server_checks.Limits = LIMITS) -> OperatorError:
    with pytest.raises(OperatorError) as stop:
        server_checks.read(connection, plan, limits)
    return stop.value


@pytest.fixture
def owner(login: Login, connection: Connection) -> Iterator[Login]:
    """An ordinary role that owns the service's tables."""
    run(connection, "CREATE ROLE keeper LOGIN PASSWORD 'keeper'; GRANT USAGE, CREATE ON SCHEMA aedpics TO keeper")
    run(connection, f"GRANT CREATE ON DATABASE {login.dbname} TO keeper")
    run(connection, f"ALTER TABLE {TABLE} OWNER TO keeper; ALTER TABLE aedpics.inspection_schedules OWNER TO keeper")
    yield replace(login, user="keeper", password="keeper")
    run(connection, "REASSIGN OWNED BY keeper TO CURRENT_USER; DROP OWNED BY keeper; DROP ROLE keeper")


def test_row_level_security_that_is_forced_on_the_owner_is_named(
    connection: Connection, plan: Plan, owner: Login
) -> None:
    run(connection, f"ALTER TABLE {TABLE} ENABLE ROW LEVEL SECURITY")
    with connect(owner) as owning:
        assert server_checks.read(owning, plan, LIMITS)["tables"]["inspection_sessions"]["policed"] is False
        run(connection, f"ALTER TABLE {TABLE} FORCE ROW LEVEL SECURITY")
        stop = refusal(owning, plan)
    assert f"Row level security of {TABLE} is forced on its owner" in stop.seen
    assert f"ALTER TABLE {TABLE} NO FORCE ROW LEVEL SECURITY" in stop.next_step


def sessions(connection: Connection, role: str) -> int:
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_stat_activity WHERE usename = %s", (role,))
        ((count,),) = cursor.fetchall()
    connection.commit()  # the next look is a new one
    return int(count)


@pytest.mark.versions
@pytest.mark.parametrize("limited", ["ROLE keeper", "DATABASE {database}"])
def test_too_few_connections_for_a_run_are_named(
    connection: Connection, login: Login, plan: Plan, owner: Login, limited: str
) -> None:
    whose, _, name = limited.format(database=login.dbname).partition(" ")
    there = 2 if whose == "DATABASE" else 1  # the test's own, and the one that asks
    with connect(owner) as owning:
        with connect(owner), owning.cursor() as cursor:  # a transaction that has seen another session
            cursor.execute("SELECT count(*) FROM pg_stat_activity")
        for left in (server_checks.CONNECTIONS, server_checks.CONNECTIONS - 1):
            wait_for(lambda: sessions(connection, "keeper") == 1)  # the second one of the look before is gone
            run(connection, f"ALTER {whose} {name} CONNECTION LIMIT {left + there}")
            if left >= server_checks.CONNECTIONS:
                assert server_checks.read(owning, plan, LIMITS)["connections_left"][whose.lower()] == left
            else:
                assert f"Of the {whose.lower()}, {left} more connections" in refusal(owning, plan).seen


def test_the_right_to_temporary_tables_is_asked_for(
    connection: Connection, login: Login, plan: Plan, owner: Login
) -> None:
    run(connection, f"REVOKE TEMPORARY ON DATABASE {login.dbname} FROM PUBLIC")
    with connect(owner) as owning:
        assert "may not create temporary tables" in refusal(owning, plan).seen


@pytest.mark.versions
def test_a_fit_server_has_its_facts_read(connection: Connection, plan: Plan) -> None:
    facts = server_checks.read(connection, plan, LIMITS)
    assert facts["version_num"] == connection.server_version
    assert (facts["in_recovery"], facts["pooled"], facts["long_transactions"]) == (False, False, [])
    assert facts["tables"]["inspection_sessions"]["kind"] == "table"
    assert facts["tables"]["inspection_schedules"]["owned"] is True


def test_every_obstacle_is_named_at_once(connection: Connection, login: Login, plan_data: dict[str, Any]) -> None:
    data = copy.deepcopy(plan_data)
    data["show"] = ["no_such_column"]
    data["indexes"][1]["table"] = "no_such_table"
    run(connection, "CREATE ROLE visitor LOGIN PASSWORD 'visitor'; GRANT pg_read_all_stats TO visitor")
    holder = open_as_app(login)
    run(holder, "SELECT 1")
    with holder.cursor() as cursor:
        cursor.execute("SELECT 1")
    try:
        with connect(replace(login, user="visitor", password="visitor")) as visiting:
            stop = refusal(visiting, parse(data), server_checks.Limits(transaction_age_s=0, replication_lag_s=30))
    finally:
        holder.close()
        run(connection, "DROP OWNED BY visitor; DROP ROLE visitor")
    for words in ("may not create a schema", "has been open for", "There is no table aedpics.no_such_table",
                  "does not own aedpics.inspection_sessions", "has no column no_such_column"):  # fmt: skip
        assert words in stop.seen
    names = [one.name.partition(":")[0] for one in stop.findings]
    assert {*names} == {"schema_privilege", "transaction", "owner", "table", "columns"}


class TestReplicaIdentity:
    """PostgreSQL refuses a DELETE of what it could not tell the subscribers: better before the run than in it."""

    @pytest.mark.versions
    @pytest.mark.parametrize(
        ("publication", "identity", "refused"),
        [
            ("FOR TABLE aedpics.inspection_sessions", "NOTHING", True),
            ("FOR ALL TABLES", "NOTHING", True),
            ("FOR ALL TABLES WITH (publish = 'insert')", "NOTHING", False),
            ("FOR TABLE aedpics.aed_data", "NOTHING", False),
            ("FOR ALL TABLES", "DEFAULT", False),
            ("FOR ALL TABLES", "FULL", False),
        ],
    )
    def test_the_verdict_is_what_a_delete_meets(
        self, connection: Connection, plan: Plan, example: Any, publication: str, identity: str, refused: bool
    ) -> None:
        run(connection, f"CREATE PUBLICATION subscribers {publication}")
        run(connection, f"ALTER TABLE {TABLE} REPLICA IDENTITY {identity}")
        if not refused:
            server_checks.read(connection, plan, LIMITS)
            run(connection, f"DELETE FROM {TABLE}")
            return
        with pytest.raises(psycopg2.errors.ObjectNotInPrerequisiteState):  # 55000
            run(connection, f"DELETE FROM {TABLE}")
        seen = refusal(connection, plan).seen
        assert f"{TABLE} is published (subscribers) and has no replica identity" in seen
        assert "refuses each delete of a row with 55000" in seen

    def test_a_table_without_primary_key_has_none_by_default(self, connection: Connection, plan: Plan) -> None:
        run(connection, "CREATE PUBLICATION subscribers FOR ALL TABLES")
        run(connection, f"ALTER TABLE {TABLE} DROP CONSTRAINT inspection_sessions_pkey, ADD UNIQUE (id)")
        assert "has no replica identity" in refusal(connection, plan).seen
        run(connection, f"ALTER TABLE {TABLE} REPLICA IDENTITY USING INDEX inspection_sessions_id_key")
        server_checks.read(connection, plan, LIMITS)


class TestPublications:
    def test_one_that_carries_our_tables_to_a_subscriber_is_named(
        self, connection: Connection, plan: Plan, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The slot is a row of a table of ours: a real one needs a server with wal_level = logical."""
        run(connection, "CREATE TABLE aedpics.slots (slot_type text PRIMARY KEY, database name)")
        monkeypatch.setattr(publications, "_SLOTS", "aedpics.slots")
        run(connection, "CREATE PUBLICATION everything FOR ALL TABLES")
        server_checks.read(connection, plan, LIMITS)  # nobody listens
        run(connection, "INSERT INTO aedpics.slots VALUES ('logical', current_database())")
        stop = refusal(connection, plan)
        assert "Publication everything is FOR ALL TABLES" in stop.seen
        assert "publications: [everything]" in stop.next_step
        opening = journal.Opening(plan, "production", "minsu", Controller("here", os.getpid()))
        for opens in (journal.look, journal.open_run):  # before the journal's first row would be sent
            with pytest.raises(OperatorError, match="Publication everything is FOR ALL TABLES"):
                opens(connection, opening)
            connection.rollback()
        assert run(connection, "SELECT to_regnamespace('at_most_one')") == [(None,)]
        allowed = replace(plan, surplus=replace(plan.surplus, publications=("everything",)))
        server_checks.read(connection, allowed, LIMITS)
        run(connection, "UPDATE aedpics.slots SET slot_type = 'physical'")
        server_checks.read(connection, plan, LIMITS)
        run(connection, "UPDATE aedpics.slots SET slot_type = 'logical', database = 'another'")
        server_checks.read(connection, plan, LIMITS)
        run(connection, "UPDATE aedpics.slots SET database = current_database()")
        run(connection, "CREATE PUBLICATION all_too FOR ALL TABLES")
        both = refusal(connection, plan).seen
        assert both.index("Publication all_too is") < both.index("Publication everything is")
        run(connection, "DROP PUBLICATION all_too")
        for publish, named in (("delete, truncate", False), ("update", True), ("insert", True)):
            run(connection, f"ALTER PUBLICATION everything SET (publish = '{publish}')")
            found = publications.obstacles(connection, plan)
            assert [one.seen.split(" is ")[0] for one in found] == ["Publication everything"] * named
        connection.rollback()
        run(connection, "DROP PUBLICATION everything; CREATE PUBLICATION ours FOR TABLE aedpics.aed_data")
        server_checks.read(connection, plan, LIMITS)
        if connection.server_version >= 150000:
            run(connection, "CREATE PUBLICATION services FOR TABLES IN SCHEMA aedpics")
            server_checks.read(connection, plan, LIMITS)
            run(connection, "CREATE SCHEMA at_most_one; CREATE PUBLICATION one FOR TABLES IN SCHEMA at_most_one")
            assert "services" not in refusal(connection, plan).seen
            assert "Publication one is FOR TABLES IN SCHEMA at_most_one" in refusal(connection, plan).seen

    @pytest.mark.parametrize(
        ("table", "identity", "what"),
        [
            (f"{TABLE} WHERE (equipment_serial <> 'x')", "DEFAULT", "row filter"),
            (f"{TABLE} WHERE (equipment_serial <> 'x')", "FULL", None),
            (f"{TABLE} WHERE (id IS NOT NULL)", "DEFAULT", None),
            (f"{TABLE} (notes)", "DEFAULT", "column list"),
            (f"{TABLE} (id, notes)", "DEFAULT", None),
            (f"{TABLE} ({COLUMNS})", "FULL", "column list"),
            (f"{TABLE} (id, notes) WHERE (notes <> 'x')", "DEFAULT", "row filter"),
            (f"{TABLE} WHERE (notes <> 'x')", "USING INDEX by_notes", None),
            (f"{TABLE} WHERE (id IS NOT NULL)", "USING INDEX by_notes", "row filter"),
            (f"{TABLE} WHERE (equipment_serial <> 'x') WITH (publish = 'insert, update')", "DEFAULT", None),
        ],
    )
    def test_a_filter_that_would_refuse_the_removal_is_named(
        self, connection: Connection, plan: Plan, example: Any, table: str, identity: str, what: str | None
    ) -> None:
        if connection.server_version < 150000:
            return
        run(
            connection,
            f"CREATE TABLE aedpics.beside (LIKE {TABLE} INCLUDING ALL); CREATE SCHEMA other;"
            f"CREATE TABLE other.inspection_sessions (LIKE {TABLE} INCLUDING ALL);"
            f"ALTER TABLE {TABLE} ALTER notes SET NOT NULL; CREATE UNIQUE INDEX by_notes ON {TABLE} (notes);"
            "CREATE PUBLICATION others FOR TABLE aedpics.beside WHERE (notes <> 'x'),"
            " other.inspection_sessions (notes);"
            f"CREATE PUBLICATION of_new_rows FOR TABLE {TABLE} WHERE (notes <> 'x') WITH (publish = 'insert')",
        )
        run(connection, f"CREATE PUBLICATION narrow FOR TABLE {table}")
        run(connection, f"ALTER TABLE {TABLE} REPLICA IDENTITY {identity}")
        if what is None:
            server_checks.read(connection, plan, LIMITS)
            run(connection, f"DELETE FROM {TABLE}")
            return
        with pytest.raises(psycopg2.errors.InvalidColumnReference):  # 42P10
            run(connection, f"DELETE FROM {TABLE}")
        seen = refusal(connection, plan).seen
        assert f"The {what} of publication narrow does not fit" in seen
        assert "others" not in seen
        assert "of_new_rows" not in seen

    def test_a_filter_that_would_refuse_the_update_is_named(self, connection: Connection, plan: Plan) -> None:
        if connection.server_version < 150000:
            return
        run(connection, f"CREATE PUBLICATION narrow FOR TABLE {TABLE} (notes) WITH (publish = 'update')")
        server_checks.read(connection, plan, LIMITS)
        closing = replace(plan, surplus=Surplus("update", {"status": "cancelled"}, "stop", (), ()))
        assert "refuses each update of a row with 42P10" in refusal(connection, closing).seen


@pytest.mark.parametrize(
    ("definition", "words"),
    [
        ("CREATE TABLE aedpics.odd () INHERITS (aedpics.inspection_sessions)",
         "aedpics.odd is a part of inspection_sessions."),
        ("CREATE TABLE aedpics.odd (LIKE aedpics.inspection_sessions);"
         "CREATE TABLE aedpics.child () INHERITS (aedpics.odd)",
         "Other tables inherit from aedpics.odd."),
        ("CREATE VIEW aedpics.odd AS SELECT * FROM aedpics.inspection_sessions", "aedpics.odd is a view."),
    ],
)  # fmt: skip
def test_what_is_no_table_of_its_own_is_named(connection: Connection, plan: Plan, definition: str, words: str) -> None:
    run(connection, definition)
    assert words in refusal(connection, replace(plan, table="odd")).seen


def test_module_fails_with_the_obstacles_and_their_facts(
    login_args: dict[str, Any], plan_data: dict[str, Any], run_module: Callable[..., dict[str, Any]]
) -> None:
    assert run_module("database_preflight", {"login": login_args, "plan": plan_data})["facts"]["pooled"] is False
    failed = run_module("database_preflight", {"login": login_args, "plan": {**plan_data, "show": ["nothing"]}})
    assert "has no column nothing" in failed["seen"]
    assert failed["details"]["facts"]["tables"]["inspection_sessions"]["kind"] == "table"


def test_a_primary_that_only_reads_is_named_wherever_something_is_written(login: Login, connection: Connection) -> None:
    """By its setting; tests/deploy/test_injected_faults.py has a real standby."""
    run(connection, f"ALTER DATABASE {login.dbname} SET default_transaction_read_only = on")
    with (
        pytest.raises(OperatorError, match="takes no writes: cannot execute CREATE SCHEMA") as stop,
        connect(login) as c,
    ):
        run(c, "CREATE SCHEMA at_most_one")
    if connection.server_version < 140000:  # it does not report which of the two it is
        assert "look for default_transaction_read_only" in stop.value.next_step
        return
    assert "It is the primary, and default_transaction_read_only is on" in stop.value.seen
    assert stop.value.expected == "off, PostgreSQL's default, where a run is to write."
    assert f"ALTER ROLE {login.user} RESET default_transaction_read_only" in stop.value.next_step


def test_what_only_the_transaction_forbids_is_not_called_a_setting(login: Login) -> None:
    with pytest.raises(OperatorError, match="takes no writes") as stop, connect(login) as c:
        run(c, "SET TRANSACTION READ ONLY; CREATE SCHEMA at_most_one")
    assert "It is the primary" not in stop.value.seen


def test_a_primary_that_only_reads_is_an_obstacle_before_anything_is_written(
    login: Login, connection: Connection, plan: Plan
) -> None:
    """In check mode nothing is written, so that nothing else would tell."""
    run(connection, f"ALTER DATABASE {login.dbname} SET default_transaction_read_only = on")
    with connect(login) as reading:
        stop = refusal(reading, plan)
    assert stop.seen == (
        f"default_transaction_read_only is on in the sessions of {login.user}, so that a run could write nothing."
    )
    assert f"ALTER ROLE {login.user} RESET default_transaction_read_only" in stop.next_step
