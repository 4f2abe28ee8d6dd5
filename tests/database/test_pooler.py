"""Behind a real PgBouncer: what its modes do to a session, and that nothing is sent through one that loses settings."""

from __future__ import annotations

import contextlib
import os
import re
import socket
from collections.abc import Callable, Iterator
from typing import Any

import psycopg2
import psycopg2.errors
import pytest
from at_most_one.errors import OperatorError
from at_most_one.plan import Plan
from at_most_one.postgres.connection import Connection, Login, connect
from at_most_one.preflight import server_checks

from tests.database.index_tools import query, wait_for
from tests.database.pgbouncer import pgbouncer
from tests.support.postgres import Server

LIMITS = server_checks.Limits(transaction_age_s=3600, replication_lag_s=30)
MODES = ["session", "transaction"]
DROPS = {"ignore_startup_parameters": "options"}  # accepts what we ask for at connect, and does nothing about it


@contextlib.contextmanager
def client(login: Login) -> Iterator[Connection]:
    """As an application connects: it asks for nothing at connect."""
    connection = psycopg2.connect(
        host=login.host, port=login.port, dbname=login.dbname, user=login.user, password=login.password
    )
    connection.autocommit = True
    with contextlib.closing(connection):
        yield connection


def ask(connection: Connection, statement: str) -> Any:
    with connection.cursor() as cursor:
        cursor.execute(statement)
        return cursor.fetchone()[0] if cursor.description else None  # type: ignore[index]  # each asks for one row


def refusal(login: Login) -> OperatorError:
    with pytest.raises(OperatorError) as stop, connect(login):
        pytest.fail("connected")
    return stop.value


class TestRefused:
    @pytest.mark.parametrize("mode", MODES)
    def test_as_it_comes_it_refuses_the_settings_and_is_told_from_a_dead_server(
        self, server: Server, login: Login, mode: str
    ) -> None:
        with pgbouncer(server, login, mode) as pooled:
            stop = refusal(pooled)
        assert "is a connection pooler, not the server: " in stop.seen
        assert "unsupported startup parameter" in stop.seen
        assert "the server's own address" in stop.next_step

    @pytest.mark.parametrize("pool_size", ["1", "20"])
    @pytest.mark.parametrize("mode", MODES)
    def test_one_that_drops_the_settings_is_found_out(
        self, server: Server, login: Login, mode: str, pool_size: str
    ) -> None:
        with pgbouncer(server, login, mode, default_pool_size=pool_size, **DROPS) as pooled:
            stop = refusal(pooled)
            with client(pooled) as application:  # gets the server connection that the refused one had
                assert ask(application, "SHOW row_security") == "on"
                assert ask(application, "SHOW search_path") == '"$user", public'
        assert stop.seen.endswith("not the server: the settings that the connection asked for are not in force.")
        assert stop.details["database"] == pooled.where()

    def test_settings_that_the_pool_sets_for_everybody_are_not_ours(self, server: Server, login: Login) -> None:
        as_ours = "SET row_security TO off; SET search_path TO ''; SET lock_timeout TO '3s'; SET timezone TO 'UTC'"
        with pgbouncer(server, login, "transaction", connect_query=as_ours, **DROPS) as pooled:
            assert "are not in force" in refusal(pooled).seen

    def test_a_pool_with_nothing_to_spare_is_no_lost_connection(self, server: Server, login: Login) -> None:
        full = {"default_pool_size": "1", "query_wait_timeout": "1"}
        with pgbouncer(server, login, "session", **full, **DROPS) as pooled, client(pooled) as application:
            ask(application, "SELECT 1")
            assert re.search("is a connection pooler, not the server: .*query_wait_timeout", refusal(pooled).seen)

    @pytest.mark.parametrize("settings", [{}, DROPS])
    def test_no_module_writes_through_it(
        self,
        server: Server,
        login: Login,
        login_args: dict[str, Any],
        plan_data: dict[str, Any],
        run_module: Callable[..., dict[str, Any]],
        settings: dict[str, str],
    ) -> None:
        """The first two that write: neither waits for the preflight when a phase is started alone."""
        opening = {"environment": "local", "who": "minsu", "controller": socket.gethostname()}
        with pgbouncer(server, login, "transaction", **settings) as pooled:
            for module, args in (
                ("deploy_run", {"state": "opened", "controller_pid": os.getpid(), **opening}),
                ("write_fence", {"state": "raised"}),
            ):
                given = {"login": {**login_args, "port": pooled.port}, "plan": plan_data, **args}
                assert "is a connection pooler, not the server" in run_module(module, given)["seen"]
        assert query(login, "SELECT to_regnamespace('at_most_one')") == [(None,)]
        assert query(login, "SELECT count(*) FROM pg_catalog.pg_class WHERE relname ~ 'fence'") == [(0,)]


@pytest.mark.parametrize(
    ("mode", "settings"),
    [
        *((mode, {"server_round_robin": order}) for mode in MODES for order in ("0", "1")),
        ("transaction", {"default_pool_size": "1"}),
    ],
)
def test_behind_one_that_passes_settings_on_the_preflight_tells_its_mode(
    server: Server, login: Login, plan: Plan, monkeypatch: pytest.MonkeyPatch, mode: str, settings: dict[str, str]
) -> None:
    """PgBouncer passes none on; with the mark in each of its connections it stands for a pooler that does."""
    monkeypatch.setattr("secrets.token_hex", lambda _: "known")
    mark = "SET at_most_one.session TO 'known'"
    with pgbouncer(server, login, mode, connect_query=mark, server_reset_query="", **settings, **DROPS) as through:
        if "default_pool_size" not in settings:
            leave_two_idle(through)
        with connect(through) as pooled:
            if mode == "session":
                assert server_checks.read(pooled, plan, LIMITS)["pooled"] is False
                return
            with pytest.raises(OperatorError, match="goes through a pooler in transaction mode: changing backends"):
                server_checks.read(pooled, plan, LIMITS)


def leave_two_idle(pooled: Login) -> None:
    """Two server connections that rest in the pool, so that a turn is taken where turns are taken."""
    with client(pooled) as one, client(pooled) as two:
        one.autocommit = False
        first = ask(one, "SELECT pg_backend_pid()")
        assert ask(two, "SELECT pg_backend_pid()") != first
        one.rollback()


class TestSession:
    """Why: what the deployment relies on stays with a client in session mode, and not in transaction mode."""

    @pytest.fixture(params=MODES)
    def mode(self, request: pytest.FixtureRequest) -> str:
        return str(request.param)

    @pytest.fixture
    def pooled(self, server: Server, login: Login, mode: str) -> Iterator[Login]:
        with pgbouncer(server, login, mode) as through:
            yield through

    def test_a_session_lock_keeps_others_out(self, pooled: Login, mode: str) -> None:
        with client(pooled) as one, client(pooled) as two:
            ask(one, "SELECT pg_advisory_lock(42)")
            assert ask(two, "SELECT pg_try_advisory_lock(42)") is (mode == "transaction")

    def test_a_session_lock_ends_with_its_client(self, pooled: Login, login: Login, mode: str) -> None:
        with client(pooled) as one:
            ask(one, "SELECT pg_advisory_lock(43)")
        held = "SELECT count(*) FROM pg_catalog.pg_locks WHERE locktype = 'advisory' AND objid = 43"
        if mode == "session":
            wait_for(lambda: query(login, held), lambda counted: counted == [(0,)])
        else:
            with client(pooled) as another:  # the pool has dealt with the first one's end
                ask(another, "SELECT 1")
            assert query(login, held) == [(1,)]

    def test_a_setting_is_its_clients_own(self, pooled: Login, mode: str) -> None:
        with client(pooled) as one, client(pooled) as two:
            ask(one, "SET lock_timeout TO '1234ms'")
            assert ask(two, "SHOW lock_timeout") == ("1234ms" if mode == "transaction" else "0")

    @pytest.mark.parametrize(
        ("before", "after"),
        [("CREATE TEMP TABLE work AS SELECT 1", "TABLE work"), ("PREPARE p AS SELECT 1", "EXECUTE p")],
    )
    def test_what_a_session_made_is_there_in_its_next_transaction(
        self, pooled: Login, mode: str, before: str, after: str
    ) -> None:
        with client(pooled) as one, client(pooled) as two:
            ask(one, before)
            two.autocommit = False
            ask(two, "SELECT 1")  # has the backend, and keeps it
            gone = (psycopg2.errors.UndefinedTable, psycopg2.errors.InvalidSqlStatementName)
            with pytest.raises(gone) if mode == "transaction" else contextlib.nullcontext():
                assert ask(one, after) == 1
