"""A real, private PostgreSQL for the session and a fresh database for every test.

The binaries come from PG_BIN, /usr/lib/postgresql/*/bin, .lab/tools or PATH, in this order. The server listens on a
free loopback port, lives in a directory of its own and ends with the test process, however that ends.
"""

from __future__ import annotations

import contextlib
import glob
import itertools
import json
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psycopg2
import pytest
import yaml
from at_most_one.duplicates import surplus_rows
from at_most_one.plan import Plan, parse
from at_most_one.postgres.connection import Connection, Login, connect

from tests.database.cleaning import Waiting

ROOT = Path(__file__).resolve().parents[2]
PLAN_FILE = ROOT / "plans" / "one-active-inspection-session.yml"
TEMPLATE = "guide_schema"
CLUSTER = "DATABASE_TESTS_CLUSTER"  # `make mutants` starts hundreds of servers: a directory to copy instead of initdb


@dataclass(frozen=True)
class Server:
    """The running server; ``binaries`` also holds psql and pg_dump where the distribution has them."""

    login: Login  # as superuser, into the maintenance database
    binaries: Path
    data: Path

    def run(self, *statements: str) -> None:
        """Run maintenance statements, each in its own transaction."""
        with contextlib.closing(_superuser(self.login)) as connection, connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)


def _superuser(login: Login) -> Connection:
    connection = psycopg2.connect(
        host=login.host, port=login.port, dbname=login.dbname, user=login.user, password=login.password
    )
    connection.autocommit = True
    return connection


def _binaries() -> Path:
    on_path = shutil.which("initdb")
    candidates = [
        os.environ.get("PG_BIN"),
        *sorted(glob.glob("/usr/lib/postgresql/*/bin"), key=_version, reverse=True),
        *sorted(glob.glob(str(ROOT / ".lab/tools/**/initdb"), recursive=True), reverse=True),
        on_path and os.path.dirname(os.path.realpath(on_path)),
    ]
    for candidate in filter(None, candidates):
        directory = Path(candidate).parent if Path(candidate).name == "initdb" else Path(candidate)
        if (directory / "initdb").exists() and (directory / "postgres").exists():
            return directory
    raise pytest.UsageError(
        "No PostgreSQL server binaries: set PG_BIN to the directory that holds initdb and postgres."
    )


def _version(directory: str) -> int:
    number = Path(directory).parent.name
    return int(number) if number.isdigit() else 0


def as_user(binaries: Path) -> tuple[list[str], pwd.struct_passwd | None]:
    """PostgreSQL refuses to run as root: the command prefix that drops privileges, and who it becomes.

    When that user cannot reach the binaries, as in a checkout below /root, the server runs in a user namespace in which
    root's own files belong to that user.
    """
    dies_with_us = ["setpriv", "--pdeathsig", "QUIT"]
    if not shutil.which("setpriv"):
        return [], None
    if os.geteuid() != 0:
        return [*dies_with_us, "--"], None
    known = {entry.pw_name: entry for entry in pwd.getpwall()}
    user = known.get("postgres") or known["nobody"]
    prefix = [*dies_with_us, f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups", "--"]
    if subprocess.run([*prefix, str(binaries / "postgres"), "--version"], capture_output=True).returncode == 0:
        return prefix, user
    namespace = ["unshare", "--user", f"--map-user={user.pw_uid}", f"--map-group={user.pw_gid}", "--"]
    return [*namespace, *dies_with_us, "--"], None


def free_port() -> int:
    with contextlib.closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def running_server(**different: str) -> Iterator[Server]:
    """A server with the schema's template, until the block ends. Durability is off: nothing here outlives the session.

    ``different`` are settings that it has instead of those of the session's server.
    """
    binaries = _binaries()
    prefix, user = as_user(binaries)
    directory = Path(tempfile.mkdtemp(prefix="at-most-one-pg-"))
    if user:
        os.chown(directory, user.pw_uid, user.pw_gid)
    login = Login("127.0.0.1", free_port(), "postgres", "aedpics_admin", "only for tests: p@ss/word'")
    password_file, data = directory / "password", directory / "data"
    password_file.write_text(login.password)
    password_file.chmod(0o644)
    initdb = [str(binaries / "initdb"), "-D", str(data), "-U", login.user, "-E", "UTF8", "--locale=C", "--no-sync"]
    initdb += ["--auth=scram-sha-256", f"--pwfile={password_file}"]
    settings = {
        "port": str(login.port),
        "listen_addresses": login.host,
        "unix_socket_directories": "",
        "fsync": "off",
        "full_page_writes": "off",
        "wal_level": "minimal",
        "max_wal_senders": "0",
        "autovacuum": "off",
        "max_connections": "60",
        "max_prepared_transactions": "30",
        "deadlock_timeout": "200ms",
        **different,
    }
    options = list(itertools.chain.from_iterable(("-c", f"{name}={value}") for name, value in settings.items()))
    log = directory / "log"
    try:
        kept = os.environ.get(CLUSTER)
        create = ["cp", "-a", kept, str(data)] if kept and Path(kept).exists() else initdb
        subprocess.run([*prefix, *create], check=True, capture_output=True, cwd=directory)
        if kept and create is initdb:
            subprocess.run(["cp", "-a", str(data), kept], check=True)
        with log.open("w") as output:
            process = subprocess.Popen(
                [*prefix, str(binaries / "postgres"), "-D", str(data), *options],
                stdout=output,
                stderr=output,
                cwd=directory,
            )
        try:
            _wait_until_ready(login, process, log)
            running = Server(login, binaries, data)
            running.run(f"CREATE DATABASE {TEMPLATE}")
            Server(replace(login, dbname=TEMPLATE), binaries, data).run(
                (Path(__file__).parent / "schema.sql").read_text()
            )
            yield running
        finally:
            process.send_signal(3)  # SIGQUIT: immediate shutdown
            process.wait(timeout=30)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """One server for all database tests."""
    with running_server() as running:
        yield running


def _wait_until_ready(login: Login, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            _superuser(login).close()
            return
        except psycopg2.OperationalError:
            if process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"PostgreSQL did not start:\n{log.read_text()}")
            time.sleep(0.05)


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
    name = f"test_{next(_numbers)}"
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


@dataclass(frozen=True)
class GuideExample:
    """The ids of the seeded rows, by what must become of them."""

    keep: dict[str, str]  # equipment serial to the session that stays open
    surplus: frozenset[str]  # 25 open sessions
    history: frozenset[str]  # completed rows: never candidates
    never_started: str  # the open session whose started_at is NULL: surplus
    control: str  # an equipment with exactly one open session


def _seed_guide_example(connection: Connection) -> GuideExample:
    numbers = itertools.count(1)
    keep: dict[str, str] = {}
    surplus: set[str] = set()
    history: set[str] = set()
    inspectors = [f"00000000-0000-4000-a000-{n:012d}" for n in range(1, 4)]
    rows: list[tuple[Any, ...]] = []

    def session(serial: str, status: str, started_at: str | None) -> str:
        number = next(numbers)
        # Ids are not in the order of time, so that "the newest" and "the largest id" are different rows.
        identifier = f"{(number * 7919) % 65536:08x}-0000-4000-8000-{number:012d}"
        note = f"점검 {number}: 'quoted' 100% \\ done"
        data = json.dumps({"step": number, "result": "정상", "ratio": 0.1})
        inspector = inspectors[number % 3]
        rows.append((identifier, serial, inspector, status, started_at, data, note))
        return identifier

    serials = [f"AED-{n:04d}" for n in range(1, 11)]
    control = "AED-0011"
    never_started = ""
    for position, serial in enumerate(serials):
        history.update(session(serial, "completed", f"2025-10-{day:02d} 09:00+09") for day in (1, 2, 3))
        size = 4 if position < 5 else 3  # 5 x 4 + 5 x 3 = 35 open, 25 of them surplus
        for turn in range(size):
            null_start = position == 0 and turn == 1
            started_at = None if null_start else f"2025-11-{3 + turn:02d} 10:{position:02d}:00.123456+09"
            identifier = session(serial, "paused" if turn % 2 else "active", started_at)
            if turn == size - 1:
                keep[serial] = identifier
            else:
                surplus.add(identifier)
            if null_start:
                never_started = identifier
    for serial in serials[-2:]:  # newer than every open session: the guide's script would keep these two instead
        history.add(session(serial, "completed", "2025-11-09 09:00+09"))
    keep[control] = session(control, "active", "2025-11-03 10:00+09")
    history.add(session(control, "completed", "2025-11-08 10:00+09"))

    with connection.cursor() as cursor:
        for number, inspector in enumerate(inspectors, 1):
            cursor.execute(
                "INSERT INTO aedpics.user_profiles VALUES (%s, %s, %s)",
                (inspector, f"inspector{number}@example.test", f"점검원 {number}"),
            )
        for serial in [*serials, control]:
            cursor.execute("INSERT INTO aedpics.aed_data (equipment_serial) VALUES (%s)", (serial,))
        cursor.executemany(
            "INSERT INTO aedpics.inspection_sessions"
            " (id, equipment_serial, inspector_id, status, started_at, step_data, notes)"
            " VALUES (%s, %s, %s, %s, %s, %s, %s)",
            rows,
        )
        cursor.execute(
            "INSERT INTO aedpics.inspection_schedules (aed_data_id, scheduled_for)"
            " SELECT id, timestamptz '2025-11-10 00:00+09' + id * interval '1 hour' FROM aedpics.aed_data"
        )
    connection.commit()
    return GuideExample(keep, frozenset(surplus), frozenset(history), never_started, control)


@pytest.fixture(scope="session")
def seed_guide_example() -> Callable[[Connection], GuideExample]:
    """Fills and commits the guide's example.

    10 equipments with 35 open sessions (25 surplus) and 32 completed ones, two of which are newer than the open ones on
    their equipment; and a control equipment with one open session and one completed.
    """
    return _seed_guide_example


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
