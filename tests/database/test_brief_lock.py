"""A statement for whose lock others would queue asks for it for an instant, a few times, and leaves the session as it
was."""

from __future__ import annotations

import time

import psycopg2.errors
import pytest
from at_most_one.indexes import brief_lock
from at_most_one.postgres.connection import Connection, Login, connect
from psycopg2 import sql

from tests.database.cleaning import TABLE, run

DROP = sql.SQL("DROP INDEX aedpics.briefly")


@pytest.fixture
def pauses(connection: Connection, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """An index to be dropped, and the attempts after which there was a pause, which lasts no time here."""
    run(connection, f"CREATE INDEX briefly ON {TABLE} (notes)")
    seen: list[int] = []

    def pause_s(attempt: int, *, first_s: float, longest_s: float) -> float:
        seen.append(attempt)
        return 0.0

    monkeypatch.setattr(brief_lock, "pause_s", pause_s)
    return seen


def there(connection: Connection) -> bool:
    return run(connection, "SELECT to_regclass('aedpics.briefly') IS NOT NULL") == [(True,)]


def test_it_gives_up_after_six_instants(connection: Connection, login: Login, pauses: list[int]) -> None:
    with connect(login) as other, connect(login, lock_timeout_ms=0, autocommit=True) as own, own.cursor() as cursor:
        run_open(other, f"LOCK TABLE {TABLE} IN ACCESS SHARE MODE")
        began = time.monotonic()
        with pytest.raises(psycopg2.errors.LockNotAvailable):
            brief_lock.execute(cursor, DROP)
        assert 6 * 0.2 <= time.monotonic() - began < 5, "no reader waits for longer than 200 ms at once"
        assert pauses == [1, 2, 3, 4, 5]
        cursor.execute("SHOW lock_timeout")
        assert cursor.fetchone() == ("0",), "its limit is gone with it"
        other.rollback()
    assert there(connection)


def test_it_does_it_once_when_it_has_got_the_lock(
    connection: Connection, login: Login, pauses: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    with connect(login) as other, connect(login, lock_timeout_ms=0, autocommit=True) as own, own.cursor() as cursor:
        run_open(other, f"LOCK TABLE {TABLE} IN ACCESS SHARE MODE")

        def let_go(attempt: int, *, first_s: float, longest_s: float) -> float:
            pauses.append(attempt)
            if attempt == 2:
                other.rollback()
            return 0.0

        monkeypatch.setattr(brief_lock, "pause_s", let_go)
        brief_lock.execute(cursor, DROP)
    assert pauses == [1, 2]
    assert not there(connection)


def test_another_error_is_not_asked_for_again(connection: Connection, login: Login, pauses: list[int]) -> None:
    with connect(login, autocommit=True) as own, own.cursor() as cursor, pytest.raises(psycopg2.errors.UndefinedObject):
        brief_lock.execute(cursor, sql.SQL("DROP INDEX aedpics.never"))
    assert pauses == []


def run_open(connection: Connection, statement: str) -> None:
    """Run, and stay in the transaction."""
    with connection.cursor() as cursor:
        cursor.execute(statement)
