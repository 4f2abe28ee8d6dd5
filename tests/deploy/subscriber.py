"""A real subscriber of the lab's database, for as long as a test needs it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from psycopg2.extensions import make_dsn

from tests.deploy.conftest import Lab
from tests.support.ports import wait_until

NAME = "at_most_one_subscriber"  # of its database, its subscription and its slot


@dataclass(frozen=True)
class Subscriber:
    """Another database of the lab's server, which gets every change of what is published."""

    publisher: Lab  # as the superuser
    database: Lab

    def worker(self) -> int | None:
        """The process that applies the changes. Where one cannot be applied it ends, and another one begins."""
        pid: int | None = self.database.value(
            "SELECT max(pid) FROM pg_stat_subscription WHERE subname = %s AND relid IS NULL", NAME
        )
        return pid

    def await_everything(self) -> None:
        """Wait until every change that is committed by now is applied."""
        now = self.publisher.value("SELECT pg_current_wal_lsn()::text")
        applied = "SELECT confirmed_flush_lsn >= %s::pg_lsn FROM pg_replication_slots WHERE slot_name = %s"
        wait_until(lambda: bool(self.publisher.value(applied, now, NAME)))
        wait_until(lambda: not self.database.rows("SELECT 1 FROM pg_subscription_rel WHERE srsubstate <> 'r'"))

    def follow(self, publication: str) -> None:
        """Change to another publication, as the error's next step says."""
        self.await_everything()  # what was committed before the publication was there cannot be asked of it
        old = self.worker()
        self.database.rows(f"ALTER SUBSCRIPTION {NAME} SET PUBLICATION {publication}")
        wait_until(lambda: self.worker() not in (None, old))
        self.await_everything()


@contextmanager
def subscriber(lab: Lab, publication: str) -> Iterator[Subscriber]:
    """Create it, with all rows there; drop it in the end, with its slot."""
    v = lab.values
    root = {**v, "database_user": v["superuser_name"], "database_password": v["superuser_password"]}
    publisher, database = Lab(root), Lab({**root, "database_name": NAME})
    assert lab.value("SHOW wal_level") == "logical", "the lab was started before it had that: make lab-down lab-up"
    publisher.rows(f"CREATE DATABASE {NAME} TEMPLATE template0")
    try:
        _copy_schema(lab)
        # A server that subscribes to itself would wait for its own transaction to create the slot.
        publisher.rows("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", NAME)
        source = make_dsn(**{key: root[name] for key, name in _SOURCE.items()})
        subscribe = f"CREATE SUBSCRIPTION {NAME} CONNECTION %s PUBLICATION {publication} WITH (create_slot = false)"
        database.rows(subscribe, source)
        found = Subscriber(publisher, database)
        found.await_everything()
        yield found
    finally:
        if database.rows("SELECT 1 FROM pg_subscription WHERE subname = %s", NAME):
            database.rows(f"ALTER SUBSCRIPTION {NAME} DISABLE")
            database.rows(f"ALTER SUBSCRIPTION {NAME} SET (slot_name = NONE)")
            database.rows(f"DROP SUBSCRIPTION {NAME}")
        slot = "SELECT active FROM pg_replication_slots WHERE slot_name = %s"
        wait_until(lambda: (True,) not in publisher.rows(slot, NAME))
        publisher.rows(
            "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = %s", NAME
        )
        publisher.rows(f"DROP DATABASE {NAME} WITH (FORCE)")


_SOURCE = {
    **{"host": "database_host", "port": "database_port", "dbname": "database_name"},
    **{"user": "database_user", "password": "database_password"},
}


def _copy_schema(lab: Lab) -> None:
    v = lab.values
    programs = Path(v["postgres_bin"])
    environment = {"PATH": os.environ["PATH"], "PGPASSWORD": v["superuser_password"]}
    where = [f"--host={v['database_host']}", f"--port={v['database_port']}", f"--username={v['superuser_name']}"]
    dump: list[str | Path] = [
        programs / "pg_dump",
        *where,
        "--schema-only",
        "--no-publications",
        "--schema=aedpics",
        v["database_name"],
    ]
    made = subprocess.run(dump, env=environment, check=True, capture_output=True)
    load: list[str | Path] = [programs / "psql", *where, "--quiet", "--set=ON_ERROR_STOP=1", NAME]
    subprocess.run(load, env=environment, input=made.stdout, check=True, capture_output=True)
