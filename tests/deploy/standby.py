"""A real streaming standby of the lab's server, for as long as a test needs it."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg2
import pytest

from tests.deploy.conftest import Lab
from tests.support.ports import free_port
from tests.support.postgres import as_user


@contextmanager
def standby(lab: Lab) -> Iterator[int]:
    """Makes it, waits until it answers, gives its port, ends it."""
    v, binaries, port = lab.values, Path(lab.values["postgres_bin"]), free_port()
    prefix, user = as_user(binaries)
    directory = Path(tempfile.mkdtemp(prefix="at-most-one-standby-"))
    data = directory / "data"
    source = [f"--host={v['database_host']}", f"--port={v['database_port']}", f"--username={v['superuser_name']}"]
    try:
        subprocess.run(
            [binaries / "pg_basebackup", *source, "--pgdata", data, "--checkpoint=fast", "--write-recovery-conf"],
            env={"PATH": v["path"], "PGPASSWORD": v["superuser_password"]},
            check=True,
            capture_output=True,
        )
        if user:
            for path in (directory, *directory.rglob("*")):
                os.chown(path, user.pw_uid, user.pw_gid)
        with (directory / "log").open("w") as log:
            server = subprocess.Popen(
                [*prefix, binaries / "postgres", "-D", data, "-c", f"port={port}"],
                stdout=log,
                stderr=log,
                cwd=directory,
            )
        try:
            _wait(lab, port, server, directory / "log")
            yield port
        finally:
            server.send_signal(3)  # SIGQUIT: at once
            server.wait(timeout=30)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _wait(lab: Lab, port: int, server: subprocess.Popen[bytes], log: Path) -> None:
    v = lab.values
    deadline = time.monotonic() + 60
    while True:
        try:
            psycopg2.connect(
                host=v["database_host"],
                port=port,
                dbname=v["database_name"],
                user=v["database_user"],
                password=v["database_password"],
            ).close()
            return
        except psycopg2.OperationalError:
            if server.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"The standby did not start:\n{log.read_text()}")
            time.sleep(0.05)
