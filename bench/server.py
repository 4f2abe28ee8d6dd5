"""A private PostgreSQL for a bench: production's settings where they cost something, nothing left behind."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from at_most_one.postgres.connection import Login

from tests.support import postgres
from tests.support.postgres import Server as Server
from tests.support.postgres import superuser as superuser

ROOT = Path(__file__).resolve().parents[1]

# fsync, synchronous_commit, full_page_writes and autovacuum are as PostgreSQL ships them: on. The rest gives a small
# server the room that a production one has, and keeps checkpoints out of one arm of a comparison.
SETTINGS = {
    "shared_buffers": "1GB",
    "maintenance_work_mem": "256MB",
    "work_mem": "64MB",
    "max_wal_size": "8GB",
    "checkpoint_timeout": "30min",
    "wal_level": "replica",
    "max_connections": "60",
}


@contextlib.contextmanager
def running() -> Iterator[Server]:
    """Start a server in a directory of its own on a free loopback port; end it and remove the directory."""
    login = Login("127.0.0.1", 0, "postgres", "bench", os.urandom(12).hex(), sslmode="disable")
    try:
        postgres.find_binaries()
    except postgres.NoServerError as missing:
        raise SystemExit(f"make bench: {missing}") from missing
    with postgres.running(SETTINGS, login) as server:
        yield server
