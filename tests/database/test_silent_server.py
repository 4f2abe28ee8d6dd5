"""A server whose processes are frozen, and whose kernel still acknowledges: it is given up, and a slow one is not."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from at_most_one.errors import OperatorError
from at_most_one.postgres import client_programs, silence
from at_most_one.postgres.connection import connect
from at_most_one.postgres.locks import Watch
from at_most_one.prisma.cli import call_prisma

from tests.support.postgres import Server
from tests.support.service_database import running_server


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same rule with shorter times."""
    monkeypatch.setattr(silence, "AFTER_S", 1.0)
    monkeypatch.setattr(silence, "TRY_S", 2)  # libpq's least


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A server of its own: it is stopped in the middle."""
    with running_server() as started:
        yield started


def _processes(server: Server) -> list[int]:
    """The postmaster, which accepts, and everything that it has forked by now."""
    (postmaster, *_) = (server.data / "postmaster.pid").read_text().splitlines()
    children = (Path("/proc") / postmaster / "task" / postmaster / "children").read_text().split()
    return [int(postmaster), *map(int, children)]


@contextlib.contextmanager
def frozen(server: Server, after_s: float = 60) -> Iterator[Callable[[], None]]:
    """Stop every process of the server a moment after the block has begun, or when the block says so, and let them go
    on in the end.

    After 30 seconds they go on at any rate: a wait that nobody ends then fails its test instead of hanging.
    """
    stopped: list[int] = []

    def freeze() -> None:
        for pid in _processes(server):
            os.kill(pid, signal.SIGSTOP)
            stopped.append(pid)

    def thaw() -> None:
        for pid in stopped:
            with contextlib.suppress(ProcessLookupError):  # it went on and ended already
                os.kill(pid, signal.SIGCONT)

    freezing, thawing = threading.Timer(after_s, freeze), threading.Timer(30, thaw)
    freezing.start()
    thawing.start()
    try:
        yield freeze
    finally:
        freezing.cancel()
        freezing.join()
        thawing.cancel()
        thaw()


def test_a_frozen_server_is_given_up_without_any_timeout_of_its_own(server: Server) -> None:
    began = time.monotonic()
    with (
        frozen(server, after_s=0.5),
        pytest.raises(OperatorError, match="has stopped answering: a new connection got no answer either"),
        connect(server.login, statement_timeout_ms=0) as connection,
        connection.cursor() as cursor,
    ):
        cursor.execute("SELECT pg_catalog.pg_sleep(35)")
    assert time.monotonic() - began < 30


def test_a_server_that_freezes_between_the_login_and_the_first_statement(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    began = time.monotonic()
    opened: list[Any] = []
    log_in = psycopg2.connect

    with frozen(server) as freeze:

        def log_in_and_freeze(**arguments: Any) -> Any:
            connection = log_in(**arguments)
            if not opened:
                opened.append(connection)
                freeze()
            return connection

        monkeypatch.setattr(psycopg2, "connect", log_in_and_freeze)
        with (
            pytest.raises(OperatorError, match="has stopped answering: a new connection got no answer either"),
            connect(server.login),
        ):
            pytest.fail("its settings are not known to be in force")
    assert time.monotonic() - began < 30
    assert opened[0].closed


def test_prisma_is_ended_with_its_server(server: Server, tmp_path: Path) -> None:
    """It waits by itself, longer than the server is frozen, and its own deadline is far away."""
    executable = tmp_path / "node_modules/.bin/prisma"
    executable.parent.mkdir(parents=True)
    executable.write_text(f"#!/bin/sh\necho $$ > {tmp_path}/pid\nexec sleep 50\n")
    executable.chmod(0o755)
    began = time.monotonic()
    with (
        frozen(server, after_s=1),
        pytest.raises(OperatorError, match="has stopped answering"),
        connect(server.login, autocommit=True) as connection,
    ):
        call_prisma("deploy", server.login, "aedpics", tmp_path, None, 1_000, 60, Watch(connection, "aedpics", []))
    assert time.monotonic() - began < 30
    assert not Path("/proc", (tmp_path / "pid").read_text().strip()).exists()


def test_a_program_of_postgresqls_is_ended_too(server: Server) -> None:
    command = [str(server.binaries / "psql"), "-X", "-c", "SELECT pg_sleep(35)"]
    with (
        frozen(server, after_s=0.5),
        client_programs.access(server.login) as access,
        pytest.raises(OperatorError, match="has stopped answering"),
    ):
        client_programs.run(command, access, [], "none")


def test_a_statement_that_takes_long_is_waited_for(server: Server) -> None:
    """Longer than the whole of what a frozen server is given."""
    with connect(server.login, statement_timeout_ms=0) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT pg_catalog.pg_sleep(7)")
        assert cursor.rowcount == 1


def test_a_server_that_refuses_another_connection_has_answered(server: Server) -> None:
    server.run("CREATE ROLE one LOGIN PASSWORD 'one' CONNECTION LIMIT 1")
    login = type(server.login)(**{**vars(server.login), "user": "one", "password": "one"})
    try:
        with connect(login, statement_timeout_ms=0) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT pg_catalog.pg_sleep(7)")
    finally:
        server.run("DROP ROLE one")
