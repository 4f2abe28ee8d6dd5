"""A fresh database for every test, and what most of them need in it."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from at_most_one.duplicates import surplus_rows
from at_most_one.plan import Plan, parse
from at_most_one.postgres.connection import Connection, Login, connect

from tests.database.cleaning import Waiting
from tests.support.postgres import Server
from tests.support.service_database import TEMPLATE, GuideExample

ROOT = Path(__file__).resolve().parents[2]
PLAN_FILE = ROOT / "plans" / "one-active-inspection-session.yml"


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        "versions: touches what differs between PostgreSQL versions; make test runs these on the oldest and the newest",
    )
    config.addinivalue_line("markers", "pg_dump: needs a pg_dump and a psql of the server's version or a newer one")


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print the sentence that a test recorded as its property ``summary``: figures that an issue asks for."""
    for report in terminalreporter.getreports("passed"):
        for name, value in getattr(report, "user_properties", ()):
            if name == "summary" and report.when == "call":
                terminalreporter.write_line(str(value))


_numbers = itertools.count(1)


@pytest.fixture
def login(server: Server) -> Iterator[Login]:
    """A fresh database with the service's schema and no rows, for ``at_most_one.postgres.connection.connect``."""
    name = f"test_{os.getpid()}_{next(_numbers)}"
    server.run(f"CREATE DATABASE {name} TEMPLATE {TEMPLATE}")
    yield replace(server.login, dbname=name)
    server.run(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="session")
def plan_data() -> dict[str, Any]:
    """The shipped plan as read from YAML, for modules and for variations on it (copy before changing)."""
    return yaml.safe_load(PLAN_FILE.read_text())  # type: ignore[no-any-return]  # yaml knows no types


@pytest.fixture(scope="session")
def plan(plan_data: dict[str, Any]) -> Plan:
    """The shipped plan."""
    return parse(plan_data)


@pytest.fixture
def login_args(login: Login) -> dict[str, Any]:
    """The ``login`` option of the modules for this test's database."""
    return {
        "host": login.host,
        "port": login.port,
        "dbname": login.dbname,
        "user": login.user,
        "password": login.password,
    }


@pytest.fixture
def connection(login: Login) -> Iterator[Connection]:
    """One connection of ours to this test's database."""
    with connect(login) as opened:
        yield opened


@pytest.fixture
def example(connection: Connection, seed_guide_example: Callable[[Connection], GuideExample]) -> GuideExample:
    """The guide's example, seeded."""
    return seed_guide_example(connection)


@pytest.fixture
def waiting(login: Login) -> Iterator[Waiting]:
    """Another session whose row locks a clean-up waits for."""
    waiting = Waiting(login)
    yield waiting
    waiting.close()


@pytest.fixture
def found(connection: Connection, plan: Plan, example: Any) -> surplus_rows.Report:
    """The report on the guide's example."""
    return surplus_rows.report(connection, plan)
