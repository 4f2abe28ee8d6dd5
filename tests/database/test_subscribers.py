"""A real subscriber: what would stop it is named before the first change, and what the next step says keeps it alive.

It is another database of a server that publishes to itself, so its slot is created apart from its subscription:
https://www.postgresql.org/docs/current/sql-createsubscription.html
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from at_most_one.duplicates import surplus_rows
from at_most_one.duplicates.restore import restore
from at_most_one.errors import OperatorError
from at_most_one.fence import write_fence
from at_most_one.plan import Plan, Surplus
from at_most_one.postgres.connection import Connection, Login, connect
from at_most_one.preflight import server_checks
from at_most_one.preflight.out_and_back import try_out
from at_most_one.runs import journal
from at_most_one.runs.controllers import Controller
from psycopg2 import sql
from psycopg2.extensions import make_dsn

from tests.conftest import ROOT
from tests.database.cleaning import TABLE, run
from tests.support.ports import wait_until
from tests.support.postgres import Server
from tests.support.service_database import TEMPLATE, running_server

LIMITS = server_checks.Limits(transaction_age_s=3600, replication_lag_s=30)
SERVICE = ("aedpics.inspection_sessions", "aedpics.inspection_schedules", "aedpics.aed_data", "aedpics.user_profiles")
OURS = ("at_most_one.run", "at_most_one.archived_row")
AS_DELETE = Surplus("delete", {}, "stop", publications=("everything",))
AS_UPDATE = replace(AS_DELETE, action="update", values={"status": "cancelled"})


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A server of its own: wal_level is a setting of the whole server."""
    logical = {"wal_level": "logical", "max_wal_senders": "10", "max_replication_slots": "10"}
    with running_server(**logical, wal_retrieve_retry_interval="50ms") as running:
        yield running


class Subscriber:
    """A database with the service's tables and a subscription, and both ends' connections."""

    def __init__(self, publisher: Connection, login: Login) -> None:
        self.publisher, self.login = publisher, login
        self.name = login.dbname
        with connect(login, autocommit=True) as connection, connection.cursor() as cursor:
            publishing = make_dsn(
                host=login.host,
                port=login.port,
                dbname=publisher.info.dbname,
                user=login.user,
                password=login.password,
            )
            run(publisher, "SELECT pg_catalog.pg_create_logical_replication_slot(%s, 'pgoutput')", self.name)
            subscribe = "CREATE SUBSCRIPTION {} CONNECTION {} PUBLICATION everything WITH (create_slot = false)"
            cursor.execute(sql.SQL(subscribe).format(sql.Identifier(self.name), sql.Literal(publishing)))

    def sql(self, statement: str) -> list[tuple[Any, ...]]:
        with connect(self.login, autocommit=True) as connection, connection.cursor() as cursor:
            cursor.execute(sql.SQL(statement).format(sql.Identifier(self.name)))
            return cursor.fetchall() if cursor.description else []

    def worker(self) -> int | None:
        """The process that applies changes; it ends at the first one that it cannot apply, and another one begins."""
        pid: int | None
        ((pid,),) = self.sql("SELECT max(pid) FROM pg_catalog.pg_stat_subscription WHERE relid IS NULL")
        return pid

    def confirmed(self) -> str:
        ((position,),) = run(
            self.publisher, "SELECT confirmed_flush_lsn::text FROM pg_replication_slots WHERE slot_name = %s", self.name
        )
        return str(position)

    def await_everything(self) -> None:
        """Wait until every change that the publisher has committed by now is applied here."""
        ((now,),) = run(self.publisher, "SELECT pg_catalog.pg_current_wal_lsn()::text")
        wait_until(lambda: run(self.publisher, "SELECT %s::pg_lsn >= %s::pg_lsn", self.confirmed(), now) == [(True,)])
        wait_until(lambda: self.sql("SELECT 1 FROM pg_catalog.pg_subscription_rel WHERE srsubstate <> 'r'") == [])

    def differing(self, *tables: str) -> list[str]:
        """The tables whose rows are not the publisher's."""
        query = "SELECT t::text FROM {} AS t ORDER BY 1"
        return [name for name in tables if self.sql(query.format(name)) != run(self.publisher, query.format(name))]

    def unsubscribe(self) -> None:
        self.sql("ALTER SUBSCRIPTION {0} DISABLE")
        self.sql("ALTER SUBSCRIPTION {0} SET (slot_name = NONE)")
        self.sql("DROP SUBSCRIPTION {0}")
        idle = "SELECT 1 FROM pg_replication_slots WHERE slot_name = %s AND active"
        wait_until(lambda: run(self.publisher, idle, self.name) == [])
        run(self.publisher, "SELECT pg_catalog.pg_drop_replication_slot(%s)", self.name)


@pytest.fixture
def subscribed(
    server: Server, connection: Connection, login: Login, example: Any
) -> Iterator[Callable[[str], Subscriber]]:
    """Make the publication ``everything`` of the kind that is given, and the subscriber, with all rows there."""
    made: list[Subscriber] = []
    name = f"{login.dbname}_subscriber"
    server.run(f"CREATE DATABASE {name} TEMPLATE {TEMPLATE}")

    def subscribe(kind: str) -> Subscriber:
        run(connection, f"CREATE PUBLICATION everything {kind}")
        made.append(Subscriber(connection, replace(login, dbname=name)))
        made[0].await_everything()
        assert made[0].differing(*SERVICE) == []
        return made[0]

    yield subscribe
    connection.rollback()
    for subscriber in made:
        subscriber.unsubscribe()
    server.run(f"DROP DATABASE {name} WITH (FORCE)")


def create_tables(subscriber: Subscriber) -> None:
    """As the next step says."""
    script = [sys.executable, "scripts/subscriber_tables.py"]
    printed = subprocess.run(script, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    subscriber.sql(printed.replace("{", "{{").replace("}", "}}"))


def opening(plan: Plan) -> journal.Opening:
    return journal.Opening(plan, "production", "minsu", Controller("here", os.getpid()))


def clean_up(connection: Connection, plan: Plan) -> str:
    """A run's changes up to the removal. Returns its name."""
    run_id = journal.open_run(connection, opening(plan)).run_id
    connection.commit()
    write_fence.raise_fence(connection, plan, max_write_pause_ms=500)
    found = surplus_rows.report(connection, plan)
    done = surplus_rows.remove(connection, plan, rows=found.rows, digest=found.digest, run_id=run_id)
    assert done.archived == 25
    return run_id


def both_ways(connection: Connection, plan: Plan, subscriber: Subscriber, *more: str) -> None:
    """A clean-up and its way back, at both ends, by one and the same worker."""
    worker = subscriber.worker()
    before = run(connection, f"SELECT t::text FROM {TABLE} AS t ORDER BY 1")
    assert try_out(connection, plan).rows == 5  # leaves nothing, for the subscriber either
    run_id = clean_up(connection, plan)
    subscriber.await_everything()
    assert subscriber.differing(*SERVICE, *more) == []
    assert len(subscriber.sql(f"SELECT 1 FROM {TABLE} WHERE status IN ('active', 'paused')")) == 11
    write_fence.lower_fence(connection, plan)
    assert restore(connection, plan, run_id=run_id).restored == 25
    subscriber.await_everything()
    assert subscriber.differing(*SERVICE, *more) == []
    assert subscriber.sql(f"SELECT t::text FROM {TABLE} AS t ORDER BY 1") == before
    assert (subscriber.worker(), worker is None) == (worker, False)


@pytest.mark.parametrize("schema", [False, True], ids=["all tables", "tables in schema"])
def test_it_is_named_before_anything_changes(
    connection: Connection, plan: Plan, subscribed: Callable[[str], Subscriber], schema: bool
) -> None:
    kind = "FOR ALL TABLES"
    if schema:
        if connection.server_version < 150000:
            return
        run(connection, "CREATE SCHEMA at_most_one")
        kind = "FOR TABLES IN SCHEMA aedpics, at_most_one"
    subscriber = subscribed(kind)
    worker = subscriber.worker()
    named = f"Publication everything is {'FOR TABLES IN SCHEMA at_most_one' if schema else kind}"
    with pytest.raises(OperatorError, match=named) as stop:
        server_checks.read(connection, plan, LIMITS)
    assert "scripts/subscriber_tables.py" in stop.value.next_step
    assert "publications: [everything]" in stop.value.next_step
    connection.rollback()
    for opens in (journal.look, journal.open_run):
        with pytest.raises(OperatorError, match=named):
            opens(connection, opening(plan))
        connection.rollback()
    ours = "SELECT relname FROM pg_catalog.pg_class WHERE relnamespace = to_regnamespace('at_most_one')"
    assert run(connection, ours) == []
    assert (subscriber.differing(*SERVICE), subscriber.worker()) == ([], worker)


@pytest.mark.parametrize("surplus", [AS_DELETE, AS_UPDATE], ids=["delete", "update"])
def test_with_the_tables_it_gets_every_change_and_ours_too_once_it_is_refreshed(
    connection: Connection, plan: Plan, subscribed: Callable[[str], Subscriber], surplus: Surplus
) -> None:
    subscriber, plan = subscribed("FOR ALL TABLES"), replace(plan, surplus=surplus)
    create_tables(subscriber)
    server_checks.read(connection, plan, LIMITS)
    connection.rollback()
    both_ways(connection, plan, subscriber)
    subscriber.sql("ALTER SUBSCRIPTION {0} REFRESH PUBLICATION")
    subscriber.await_everything()
    assert subscriber.differing(*OURS) == []
    run(connection, "UPDATE at_most_one.run SET finished_at = now(), outcome = 'stopped'")
    both_ways(connection, plan, subscriber, *OURS)


def test_without_them_it_stops_and_goes_on_by_itself_once_they_are_there(
    connection: Connection, plan: Plan, subscribed: Callable[[str], Subscriber]
) -> None:
    """The control: what prepare says of such a publication is what happens."""
    subscriber, plan = subscribed("FOR ALL TABLES"), replace(plan, surplus=AS_DELETE)
    worker = subscriber.worker()
    clean_up(connection, plan)
    wait_until(lambda: subscriber.worker() != worker)  # it has ended; those after it end too fast to be seen
    assert subscriber.differing(*SERVICE) == [TABLE]
    create_tables(subscriber)
    subscriber.await_everything()
    assert subscriber.differing(*SERVICE) == []


def test_a_publication_of_the_service_alone_needs_nothing_of_the_subscriber(
    connection: Connection, plan: Plan, subscribed: Callable[[str], Subscriber]
) -> None:
    """The other next step: another publication in the place of that one, which is dropped."""
    subscriber = subscribed("FOR ALL TABLES")
    tables = f"TABLE {', '.join(SERVICE)}" if connection.server_version < 150000 else "TABLES IN SCHEMA aedpics"
    run(connection, f"CREATE PUBLICATION service FOR {tables}")
    subscriber.sql("ALTER SUBSCRIPTION {0} SET PUBLICATION service")
    subscriber.await_everything()
    run(connection, "DROP PUBLICATION everything")
    server_checks.read(connection, plan, LIMITS)
    connection.rollback()
    both_ways(connection, plan, subscriber)
    assert subscriber.sql("SELECT to_regnamespace('at_most_one')") == [(None,)]
