"""Several hosts over ssh on this machine, each test with hosts as they were before the first deployment."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from at_most_one.postgres.connection import Login, connect

from tests.support.fleet import Fleet, Host, fleet_of
from tests.support.playbooks import PLANNED, Run, run_playbook
from tests.support.postgres import Server
from tests.support.prisma_stand_in import EARLIER, HISTORY
from tests.support.service_database import TEMPLATE, GuideExample

_numbers = itertools.count(1)


@dataclass
class Site:
    """A fleet, fresh, and its database with the guide's example."""

    fleet: Fleet
    login: Login
    server: Server

    def deploy(
        self,
        *arguments: str,
        hosts: list[Host] | None = None,
        playbook: str = "deploy.yml",
        limit: str = "fleet",
        **more: Any,
    ) -> Run:
        """Run a front door over the hosts; ``more`` stands in the inventory."""
        return run_playbook(
            playbook, *arguments, limit=limit, inventory=self.fleet.inventory(self.login, hosts, **more)
        )

    def front(self, hosts: list[Host]) -> None:
        """Let nginx lead to these hosts."""
        self.fleet.front.stop()
        self.fleet.front.upstreams = [host.url for host in hosts]
        self.fleet.front.start()

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        login = self.login
        connection = psycopg2.connect(
            host=login.host, port=login.port, dbname=login.dbname, user=login.user, password=login.password
        )
        try:
            with connection, connection.cursor() as cursor:
                cursor.execute(sql)
                return list(cursor.fetchall())
        finally:
            connection.close()

    def sessions(self) -> dict[str, str]:
        """Every session, by id, as its whole text."""
        return dict(self.rows("SELECT id::text, s::text FROM aedpics.inspection_sessions s"))

    def indexes(self) -> set[str]:
        """The planned indexes that are there."""
        found = self.rows("SELECT indexname FROM pg_indexes WHERE schemaname = 'aedpics'")
        return PLANNED & {name for (name,) in found}

    def statements(self) -> Counter[str]:
        """The statements that the server has logged for this database, by their first line, without their values."""
        log = self.server.log.read_text(errors="replace")
        lines = (line for line in log.splitlines() if f"[{self.login.dbname}]" in line)
        said = (line.partition(" statement: ")[2].strip() for line in lines)
        return Counter(re.sub(r"'[^']*'|[0-9a-f-]{36}|[0-9]+", "?", one) for one in said if one)


@pytest.fixture(scope="session")
def fleet(pm2_executable: str) -> Iterator[Fleet]:
    """Three hosts and nginx, for the whole session."""
    with fleet_of(3, pm2_executable) as made:
        yield made


@pytest.fixture
def idle(
    fleet: Fleet, server: Server, seed_guide_example: Callable[[Any], GuideExample], tmp_path: Path
) -> Iterator[Site]:
    """The hosts without an application, and a database of their own that logs every statement."""
    name = f"hosts_{next(_numbers)}"
    server.run(
        f"CREATE DATABASE {name} TEMPLATE {TEMPLATE}",
        f"ALTER DATABASE {name} SET log_statement = 'all'",
        "ALTER SYSTEM SET log_line_prefix = '%m [%d] '",
        "SELECT pg_reload_conf()",
    )
    login = replace(server.login, dbname=name)
    with connect(login) as connection, connection.cursor() as cursor:
        cursor.execute(HISTORY)
        cursor.execute(
            "INSERT INTO aedpics._prisma_migrations (id, checksum, migration_name, finished_at, applied_steps_count)"
            " VALUES ('earlier', 'sha', %s, now(), 1)",
            (EARLIER,),
        )
        seed_guide_example(connection)
    yield Site(fleet, login, server)
    server.run(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def site(idle: Site) -> Iterator[Site]:
    """The hosts with the light application in place, all of them behind nginx."""
    idle.fleet.start()
    idle.front(idle.fleet.hosts)
    yield idle
    idle.fleet.stop()
