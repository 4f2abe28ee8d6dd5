"""A private PostgreSQL: a directory and a free loopback port of its own, ended with the process that started it.

The binaries come from PG_BIN, /usr/lib/postgresql/*/bin, .lab/tools or PATH, in this order, the newest first. The lab
starts its server by a module of its own: that one outlives who starts it and needs nothing of the tests.
"""

from __future__ import annotations

import contextlib
import glob
import itertools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import psycopg2
from at_most_one.postgres.connection import Connection, Login

from tests.support.ports import free_port

ROOT = Path(__file__).resolve().parents[2]


class NoServerError(Exception):
    """A sentence for a person: seen, expected, next."""


@dataclass(frozen=True)
class Server:
    """The running server; ``binaries`` also holds psql and pg_dump where the distribution has them."""

    login: Login  # as superuser, into the maintenance database
    binaries: Path
    directory: Path

    @property
    def data(self) -> Path:
        return self.directory / "data"

    @property
    def log(self) -> Path:
        return self.directory / "log"

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


def find_binaries() -> Path:
    """The directory of initdb and postgres. Raises NoServerError."""
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
    raise NoServerError(
        "There are no PostgreSQL server binaries. Expected: initdb and postgres. Next: make tools, or set PG_BIN to "
        "the directory that holds both."
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


def initialise(
    directory: Path,
    binaries: Path,
    prefix: Sequence[str],
    login: Login,
    *,
    user: pwd.struct_passwd | None = None,
    more: Sequence[str] = (),
) -> Path:
    """Make the data directory in ``directory`` for ``user``, with the login's role as superuser. Returns it.

    ``more`` are options of initdb.
    """
    data, password = directory / "data", directory / "password"
    if user:
        os.chown(directory, user.pw_uid, user.pw_gid)
    password.write_text(login.password)
    password.chmod(0o644)  # initdb reads it as another user; the server lives for minutes, on loopback
    initdb = [str(binaries / "initdb"), "-D", str(data), "-U", login.user, "-E", "UTF8", "--locale=C"]
    initdb += ["--auth=scram-sha-256", f"--pwfile={password}", *more]
    subprocess.run([*prefix, *initdb], check=True, capture_output=True, cwd=directory)
    return data


@contextlib.contextmanager
def running(settings: Mapping[str, str], login: Login, *, more: Sequence[str] = ()) -> Iterator[Server]:
    """A server with these settings until the block ends; see :func:`initialise`. The login's port is a free one."""
    binaries = find_binaries()
    prefix, user = as_user(binaries)
    directory = Path(tempfile.mkdtemp(prefix="at-most-one-pg-"))
    try:
        login = replace(login, port=free_port())
        data = initialise(directory, binaries, prefix, login, user=user, more=more)
        given = {"port": str(login.port), "listen_addresses": login.host, "unix_socket_directories": "", **settings}
        options = itertools.chain.from_iterable(("-c", f"{name}={value}") for name, value in given.items())
        server = Server(login, binaries, directory)
        with started([*prefix, str(binaries / "postgres"), "-D", str(data), *options], server):
            yield server
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@contextlib.contextmanager
def started(command: Sequence[str], server: Server) -> Iterator[None]:
    """The process of a server, ready, until the block ends."""
    with server.log.open("a") as log:  # a bench may empty it meanwhile
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=server.log.parent)
    try:
        _wait_until_ready(server, process)
        yield
    finally:
        process.send_signal(signal.SIGQUIT)  # immediate shutdown: nothing here is to be kept
        process.wait(timeout=60)


def _wait_until_ready(server: Server, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            superuser(server.login).close()
            return
        except psycopg2.OperationalError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"PostgreSQL did not start:\n{server.log.read_text()}") from None
            time.sleep(0.05)
