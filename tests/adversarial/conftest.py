"""The database tests' server, and a database for each process that runs trials."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from at_most_one.postgres.connection import Login

from tests.support.postgres import Server
from tests.support.service_database import TEMPLATE

PROCESSES = 3  # a trial sleeps most of its time


@pytest.fixture(scope="session")
def logins(server: Server) -> Iterator[list[Login]]:
    """As many databases as processes: a concurrent build waits for every snapshot in its database."""
    names = [f"adversarial_{number}" for number in range(PROCESSES)]
    for name in names:
        server.run(f"CREATE DATABASE {name} TEMPLATE {TEMPLATE}")
    yield [replace(server.login, dbname=name) for name in names]
    for name in names:
        server.run(f"DROP DATABASE {name} WITH (FORCE)")
