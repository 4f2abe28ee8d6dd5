"""A real PgBouncer before the test server: on a loopback port of its own, as the user that the server runs as."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from at_most_one.postgres.connection import Login

from tests.support.ports import free_port
from tests.support.postgres import Server, as_user


@contextlib.contextmanager
def pgbouncer(
    server: Server, login: Login, pool_mode: str, *, connect_query: str = "", **settings: str
) -> Iterator[Login]:
    """The login that leads through it. ``connect_query`` begins each server connection; ``settings``: pgbouncer.ini."""
    program = shutil.which("pgbouncer", path=f"{os.environ['PATH']}{os.pathsep}/usr/sbin")
    if program is None:
        raise pytest.UsageError("No pgbouncer in PATH or /usr/sbin: run `make test-packages`.")
    prefix, user = as_user(server.binaries)
    directory, port = Path(tempfile.mkdtemp(prefix="at-most-one-pgbouncer-")), free_port()
    lines = {
        "listen_addr": "127.0.0.1",
        "listen_port": str(port),
        "unix_socket_dir": "",
        "auth_type": "scram-sha-256",
        "auth_file": str(directory / "users.txt"),
        "pool_mode": pool_mode,
        **settings,
    }
    (directory / "users.txt").write_text(f'"{login.user}" "{login.password}"\n')
    (directory / "pgbouncer.ini").write_text(
        f"[databases]\n{login.dbname} = host={login.host} port={login.port}"
        + (f" connect_query='{connect_query.replace(chr(39), 2 * chr(39))}'" if connect_query else "")
        + "\n[pgbouncer]\n"
        + "".join(f"{name} = {value}\n" for name, value in lines.items())
    )
    for path in (directory, *directory.iterdir()):
        if user:
            os.chown(path, user.pw_uid, user.pw_gid)
    log = directory / "log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [*prefix, program, str(directory / "pgbouncer.ini")], stdout=output, stderr=output, cwd=directory
        )
    try:
        _wait_until_ready(port, process, log)
        yield replace(login, port=port)
    finally:
        process.send_signal(signal.SIGTERM)  # at once; from 1.23 on when the clients have left
        process.wait(timeout=30)
        shutil.rmtree(directory, ignore_errors=True)


def _wait_until_ready(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"PgBouncer did not start:\n{log.read_text()}")
            time.sleep(0.05)
