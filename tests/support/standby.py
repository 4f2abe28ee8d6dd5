"""A streaming standby of a server, made by pg_basebackup, for as long as a test needs it."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from at_most_one.postgres.connection import Login

from tests.support.ports import free_port, wait_until
from tests.support.postgres import Server, as_user, started, superuser


@dataclass(frozen=True)
class Standby:
    """Up, and it answers; ``login`` leads to it."""

    login: Login
    primary: Login

    def catch_up(self) -> None:
        """Wait until it has everything that the primary has."""
        written = _ask(self.primary, "SELECT pg_current_wal_flush_lsn()")
        wait_until(lambda: _ask(self.login, f"SELECT pg_last_wal_replay_lsn() >= '{written}'"))

    def promote(self) -> None:
        """What the primary commits from now on, it lacks."""
        assert _ask(self.login, "SELECT pg_promote()")


@contextlib.contextmanager
def standby(primary: Login, binaries: Path, settings: Mapping[str, str] = MappingProxyType({})) -> Iterator[Standby]:
    """``primary`` is a superuser's login. ``settings`` are those that the primary has by its command line."""
    prefix, user = as_user(binaries)
    directory = Path(tempfile.mkdtemp(prefix="at-most-one-standby-"))
    data, login = directory / "data", replace(primary, port=free_port())
    source = (f"--host={primary.host}", f"--port={primary.port}", f"--username={primary.user}")
    try:
        subprocess.run(
            [binaries / "pg_basebackup", *source, "--pgdata", data, "--checkpoint=fast", "--write-recovery-conf"],
            env={**os.environ, "PGPASSWORD": primary.password},
            check=True,
            capture_output=True,
        )
        if user:
            for path in (directory, *directory.rglob("*")):
                os.chown(path, user.pw_uid, user.pw_gid)
        own = {"port": str(login.port), "listen_addresses": login.host, "unix_socket_directories": "", "fsync": "off"}
        options = [part for name, value in {**settings, **own}.items() for part in ("-c", f"{name}={value}")]
        command = [*prefix, str(binaries / "postgres"), "-D", str(data), *options]
        with started(command, Server(login, binaries, directory)):
            yield Standby(login, primary)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _ask(login: Login, question: str) -> Any:
    with contextlib.closing(superuser(login)) as connection, connection.cursor() as cursor:
        cursor.execute(question)
        ((answer,),) = cursor.fetchall()
        return answer
