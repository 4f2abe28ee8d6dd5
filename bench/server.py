"""A private PostgreSQL for a bench: production's settings where they cost something, nothing left behind.

The binaries come from PG_BIN, /usr/lib/postgresql/*/bin, .lab/tools or PATH, in this order, the newest first.
"""

from __future__ import annotations

import contextlib
import glob
import itertools
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import psycopg2
from at_most_one.postgres.connection import Connection, Login

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


@dataclass(frozen=True)
class Server:
    """The running server."""

    login: Login  # as superuser, into the maintenance database
    log: Path
    binaries: Path  # of the server and of pg_dump

    def run(self, *statements: str) -> None:
        """Run maintenance statements, each in its own transaction."""
        with contextlib.closing(superuser(self.login)) as connection, connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)

    def create(self, name: str) -> Login:
        """An empty database."""
        self.run(f"CREATE DATABASE {name}")
        return replace(self.login, dbname=name)

    @contextlib.contextmanager
    def copy(self, template: Login, name: str) -> Iterator[Login]:
        """A file by file copy of a database nobody is connected to, dropped in the end.

        The checkpoint makes all copies begin alike: each pays the full page writes of its own changes.
        """
        with contextlib.closing(superuser(self.login)) as connection, connection.cursor() as cursor:
            strategy = " STRATEGY file_copy" if connection.server_version >= 150_000 else ""
            cursor.execute(f"CREATE DATABASE {name} TEMPLATE {template.dbname}{strategy}")
            cursor.execute("CHECKPOINT")
        try:
            yield replace(self.login, dbname=name)
        finally:
            self.drop(name)

    def drop(self, *names: str) -> None:
        """Drop databases and end whoever is still connected."""
        self.run(*(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)" for name in names))


def superuser(login: Login) -> Connection:
    """A plain connection in autocommit, without the core's timeouts."""
    connection = psycopg2.connect(
        host=login.host, port=login.port, dbname=login.dbname, user=login.user, password=login.password
    )
    connection.autocommit = True
    return connection


@contextlib.contextmanager
def running() -> Iterator[Server]:
    """Start a server in a directory of its own on a free loopback port; end it and remove the directory."""
    binaries, (prefix, user) = _binaries(), _as_user()
    directory = Path(tempfile.mkdtemp(prefix="at-most-one-bench-"))
    try:
        if user:
            os.chown(directory, user.pw_uid, user.pw_gid)
        login = Login("127.0.0.1", _free_port(), "postgres", "bench", os.urandom(12).hex(), sslmode="disable")
        _initialise(binaries, prefix, directory, login)
        settings = {**SETTINGS, "port": login.port, "listen_addresses": login.host, "unix_socket_directories": ""}
        options = itertools.chain.from_iterable(("-c", f"{name}={value}") for name, value in settings.items())
        with (directory / "log").open("a") as log:  # a case may empty it meanwhile
            process = subprocess.Popen(
                [*prefix, str(binaries / "postgres"), "-D", str(directory / "data"), *options],
                stdout=log,
                stderr=log,
                cwd=directory,
            )
        try:
            _wait_until_ready(login, process, directory / "log")
            yield Server(login, directory / "log", binaries)
        finally:
            process.send_signal(signal.SIGQUIT)  # immediate shutdown: nothing here is to be kept
            process.wait(timeout=60)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _initialise(binaries: Path, prefix: list[str], directory: Path, login: Login) -> None:
    password_file = directory / "password"
    password_file.write_text(login.password)
    password_file.chmod(0o644)  # initdb reads it as another user; the server lives for minutes, on loopback
    initdb = [str(binaries / "initdb"), "-D", str(directory / "data"), "-U", login.user, "-E", "UTF8", "--locale=C"]
    subprocess.run(
        [*prefix, *initdb, "--auth=scram-sha-256", f"--pwfile={password_file}"],
        check=True,
        capture_output=True,
        cwd=directory,
    )


def _binaries() -> Path:
    on_path = shutil.which("initdb")
    candidates = [
        os.environ.get("PG_BIN"),
        *sorted(glob.glob("/usr/lib/postgresql/*/bin"), key=_version, reverse=True),
        *(os.path.dirname(path) for path in sorted(glob.glob(f"{ROOT}/.lab/tools/**/initdb", recursive=True))[::-1]),
        on_path and os.path.dirname(os.path.realpath(on_path)),
    ]
    for candidate in map(Path, filter(None, candidates)):
        if (candidate / "initdb").exists() and (candidate / "postgres").exists():
            return candidate
    raise SystemExit(
        "make bench: no PostgreSQL server binaries. Expected: initdb and postgres. Next: make tools, or set PG_BIN."
    )


def _version(directory: str) -> int:
    number = Path(directory).parent.name
    return int(number) if number.isdigit() else 0


def _as_user() -> tuple[list[str], pwd.struct_passwd | None]:
    """PostgreSQL refuses to run as root: the command prefix that drops privileges, and who it becomes."""
    dies_with_us = ["--pdeathsig", "QUIT"]
    if not shutil.which("setpriv"):
        return [], None
    if os.geteuid() != 0:
        return ["setpriv", *dies_with_us, "--"], None
    known = {entry.pw_name: entry for entry in pwd.getpwall()}
    user = known.get("postgres") or known["nobody"]
    ids = [f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
    return ["setpriv", *ids, *dies_with_us, "--"], user


def _free_port() -> int:
    with contextlib.closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_until_ready(login: Login, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            superuser(login).close()
            return
        except psycopg2.OperationalError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"PostgreSQL did not start:\n{log.read_text()}") from None
            time.sleep(0.05)
