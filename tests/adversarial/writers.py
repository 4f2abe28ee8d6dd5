"""Eight writers that do what applications do, all the time, on a few hot keys.

They look, take a moment and insert; they close, reopen, close and open in one transaction, move a session to another
equipment, write a note, add many rows at once, work on two keys in either order, merge, and now and then delete one:
each by itself or with its look in one transaction, some of them committed in two phases, in any isolation level. What
they commit they enter in their ledger.
"""

from __future__ import annotations

import random
import re
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import psycopg2
import psycopg2.errors
import psycopg2.extensions
from at_most_one.plan import Plan
from at_most_one.postgres.connection import Connection, Login, connect
from at_most_one.postgres.fence_names import PATTERN
from psycopg2 import sql

from tests.adversarial.account import Ledger

WRITERS = 8
LEVELS = ("READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE")
BULK = 200  # rows of one statement
THINKING_S = 0.004  # at most, between the look and the write
TWO_PHASES = 0.1  # how often a transaction is committed so
MERGING = 0.04  # how often a visit is a MERGE
CLOSING = 0.25  # how often a visitor closes the open session it finds
OPEN = ("active", "paused")
REFUSED = {"23505": "refused", "40001": "serialization", "40P01": "deadlock"}  # what an application must live with
# Nobody opens a session on it before the writer with the old snapshot has that, and visitors do not close one there: a
# duplicate that is committed out of the snapshot would wait for the build.
LATE_KEY = ("AED-late", 0)


@dataclass
class Crowd:
    """All writers of a trial and what they met. ``hot`` are the keys they choose from."""

    login: Login
    plan: Plan
    hot: list[tuple[str, int]]
    seed: int
    old_snapshot: bool  # of the first of them
    isolation: str  # one of LEVELS, or each
    rest_s: float = 0.0  # at most, between two visits
    ledger: Ledger = field(default_factory=Ledger)
    met: Counter[str] = field(default_factory=Counter)
    strangers: list[BaseException] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)
    has_snapshot: threading.Event = field(default_factory=threading.Event)
    fenced: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)


@contextmanager
def writing(crowd: Crowd) -> Iterator[Crowd]:
    """They write until the block ends; then ``ledger`` and ``met`` are whole."""
    threads = [threading.Thread(target=_work, args=(crowd, number)) for number in range(WRITERS)]
    for thread in threads:
        thread.start()
    try:
        yield crowd
    finally:
        crowd.stop.set()
        crowd.fenced.set()
        for thread in threads:
            thread.join()


def _work(crowd: Crowd, number: int) -> None:
    try:
        with connect(crowd.login, autocommit=True) as connection:
            level = LEVELS[number % 3] if crowd.isolation == "each" else crowd.isolation
            writer = _Writer(crowd, connection, number, level)
            if number == 0 and crowd.old_snapshot:
                writer.write_with_an_old_snapshot()
            while not crowd.stop.is_set():
                if number == 0 and crowd.old_snapshot:
                    crowd.stop.wait(writer.chance.uniform(0.2, 0.5))
                writer.attempt(writer.merge if writer.merges() else writer.visit)
                crowd.stop.wait(writer.chance.uniform(0, crowd.rest_s))
        with crowd.lock:
            crowd.ledger.include(writer.ledger)
            crowd.met.update(writer.met)
    except BaseException as stranger:
        crowd.strangers.append(stranger)
        crowd.has_snapshot.set()


class _Writer:
    def __init__(self, crowd: Crowd, connection: Connection, number: int, level: str) -> None:
        self.crowd, self.connection, self.number = crowd, connection, number
        self.chance = random.Random(f"{crowd.seed}/{number}")
        self.ledger, self.met = Ledger(), Counter[str]()
        self.known: list[str] = []  # ids it has seen
        self.pending: list[tuple[str, Any]] = []  # written, not committed
        self.table = sql.Identifier(crowd.plan.schema, crowd.plan.table)
        self.level, self.rule = level, re.compile(f"{PATTERN}|{crowd.plan.rule_index.name}$")
        self.begin_at(level)

    def attempt(self, visit: Any) -> None:
        """One visit, by itself or in one transaction; what it wrote counts once it is committed."""
        whole = self.chance.random() < 0.5 or visit != self.visit
        in_two_phases = whole and self.chance.random() < TWO_PHASES
        try:
            if whole:
                self.run("BEGIN")
            visit()
            if in_two_phases:
                self.commit_in_two_phases()
            elif whole:
                self.run("COMMIT")
        except psycopg2.Error as refusal:
            if whole:
                self.pending.clear()
            self.enter()  # what was written by itself is committed
            kind = REFUSED.get(refusal.pgcode or "")
            if kind is None or (kind == "refused" and not self.rule.match(refusal.diag.constraint_name or "")):
                raise
            self.met[kind] += 1
            if whole:
                self.run("ROLLBACK")
            return
        self.enter()

    def commit_in_two_phases(self) -> None:
        """As a coordinator of several databases: prepared, it keeps its locks and belongs to no session."""
        name = f"{self.crowd.login.dbname}/{self.crowd.seed}/{self.number}"
        self.run("PREPARE TRANSACTION %s", name)
        time.sleep(self.chance.uniform(0, THINKING_S))
        if self.chance.random() < 0.2:  # another database could not
            self.pending.clear()
            self.run("ROLLBACK PREPARED %s", name)
        else:
            self.run("COMMIT PREPARED %s", name)
            self.met["in two phases"] += 1

    def enter(self) -> None:
        """Put what is committed into the ledger."""
        for what, value in self.pending:
            self.met[what] += 1
            if what == "deleted":
                self.ledger.deleted.add(value)
            else:
                self.ledger.committed(value)
                self.known = [*self.known[-40:], value["id"]]
        self.pending.clear()

    def visit(self) -> None:
        choice = self.chance.random()
        if choice < 0.7 or not self.known:
            self.open_or_close(self.chance.choice(self.crowd.hot))
            return
        identifier = self.chance.choice(self.known)
        if choice < 0.78:
            self.update(identifier, "status = 'paused'")
        elif choice < 0.88:
            self.update(identifier, "serial = %s, slot = %s", *self.chance.choice(self.crowd.hot))
        elif choice < 0.92:
            self.update(identifier, "note = %s", f"점검 {self.chance.random()}: 100% 'done'")
        elif choice < 0.95:  # two keys, in the order of this moment
            for key in self.chance.sample(self.crowd.hot, 2):
                self.open_or_close(key)
        elif choice < 0.96:
            self.insert_many()
        elif choice < 0.975:
            self.insert(self.chance.choice(self.crowd.hot), " ON CONFLICT DO NOTHING")
        else:
            for (gone,) in self.run("DELETE FROM {table} WHERE id = %s RETURNING id::text", identifier):
                self.pending.append(("deleted", gone))

    def open_or_close(self, key: tuple[str, int]) -> None:
        look = "SELECT id::text FROM {table} WHERE serial = %s AND slot = %s AND status IN ('active', 'paused') LIMIT 1"
        found = self.run(look, *key)
        time.sleep(self.chance.uniform(0, THINKING_S))
        if not found:
            self.insert(key)
        elif key != LATE_KEY and self.chance.random() < CLOSING:
            self.update(found[0][0], "status = 'completed'")
            if self.chance.random() < 0.3:
                self.insert(key)

    def insert(self, key: tuple[str, int], otherwise: str = "") -> None:
        rows = self.run(
            f"INSERT INTO {{table}} (serial, slot, note) VALUES (%s, %s, %s){otherwise} RETURNING {{texts}}",
            *key,
            "새 점검 'x' %",
        )
        self.pending += [("inserted", self.image(row)) for row in rows]

    def insert_many(self) -> None:
        rows = self.run(
            "INSERT INTO {table} (serial, note) SELECT pg_catalog.gen_random_uuid()::text, 'many'"
            f" FROM pg_catalog.generate_series(1, {BULK}) RETURNING {{texts}}"
        )
        self.pending += [("inserted", self.image(row)) for row in rows]

    def merges(self) -> bool:
        """Whether this visit is a MERGE, which came with PostgreSQL 15."""
        return self.connection.server_version >= 150000 and self.chance.random() < MERGING

    def merge(self) -> None:
        """Touch the open sessions of an equipment, or open one: MERGE sees whether there are any, and may be wrong.

        It returns no rows before PostgreSQL 17, so they are looked up by a note that is only theirs, which nobody else
        can change before this transaction ends.
        """
        note = f"merged {self.number} {self.chance.random()}"
        self.run(
            "MERGE INTO {table} AS t USING (SELECT %s AS serial, %s AS slot) AS s"
            " ON t.serial = s.serial AND t.slot = s.slot AND t.status IN ('active', 'paused')"
            " WHEN MATCHED THEN UPDATE SET note = %s, version = version + 1"
            " WHEN NOT MATCHED THEN INSERT (serial, slot, note) VALUES (s.serial, s.slot, %s)",
            *(*self.chance.choice(self.crowd.hot), note, note),
        )
        rows = self.run("SELECT {texts} FROM {table} WHERE note = %s", note)
        self.pending += [("merged", self.image(row)) for row in rows]

    def update(self, identifier: str, change: str, *values: Any) -> None:
        rows = self.run(
            f"UPDATE {{table}} SET {change}, version = version + 1 WHERE id = %s RETURNING {{texts}}",
            *(*values, identifier),
        )
        self.pending += [("updated", self.image(row)) for row in rows]

    def write_with_an_old_snapshot(self) -> None:
        """A transaction whose snapshot is older than the fence, and which does not see who has come since.

        It opens a session on an equipment that was free when it looked: by then others have opened one.
        """

        def visit() -> None:
            assert self.run("SELECT id FROM {table} WHERE serial = %s AND slot = %s", *LATE_KEY) == []
            self.crowd.has_snapshot.set()
            self.crowd.fenced.wait()
            time.sleep(self.chance.uniform(0.01, 0.1))
            self.insert(LATE_KEY)
            time.sleep(self.chance.uniform(0, 0.1))

        self.begin_at("REPEATABLE READ")
        self.attempt(visit)
        self.begin_at(self.level)

    def begin_at(self, level: str) -> None:
        self.run("SELECT pg_catalog.set_config('default_transaction_isolation', %s, false)", level.lower())

    def image(self, row: Sequence[str | None]) -> dict[str, str | None]:
        return dict(zip(COLUMNS, row, strict=True))

    def run(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        text = statement.format(table=self.table.as_string(self.connection), texts=_TEXTS)
        with self.connection.cursor() as cursor:
            cursor.execute(text, values or None)
            return cursor.fetchall() if cursor.description else []


COLUMNS = ("id", "serial", "slot", "status", "started_at", "version", "note")
_TEXTS = ", ".join(f"{name}::text" for name in COLUMNS)
