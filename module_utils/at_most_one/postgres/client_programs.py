"""pg_dump and pg_restore, found and run so that no process list and no log ever shows the password."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from ..errors import OperatorError
from ..findings import observed, say
from ..system.redaction import redact
from .connection import CONNECT_TIMEOUT_S, NETWORK, Login, answering
from .server_errors import without_value

_DATA = re.compile(r"(?P<table>COPY failed for table \"[^\n]*?\"):.*")


def find(name: str, search_path: str) -> str:
    """The program's path, from ``search_path`` before PATH. Raises OperatorError when it is nowhere."""
    where = os.pathsep.join(part for part in (search_path, os.environ.get("PATH", os.defpath)) if part)
    found = shutil.which(name, path=where)
    if found is None:
        raise OperatorError(
            observed("AMO-3104", "{name} is not there: it is in none of {where}.", name=name, where=where),
            expected=say("PostgreSQL's client programs, of the server's version or newer, on the gateway host."),
            next_step=say(
                "install them (Debian and Ubuntu: postgresql-client), or name their directory in app_environment_path."
            ),
        )
    return found


@dataclass(frozen=True)
class Access:
    """What a program is started with: its environment, the open files that it inherits, and the server it talks to."""

    environment: Mapping[str, str]
    files: tuple[int, ...] = ()
    login: Login | None = None


def no_access() -> Access:
    """For a program that connects to nothing."""
    return Access({"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"})


@contextlib.contextmanager
def access(login: Login) -> Iterator[Access]:
    """The access of a program that connects as ``login``.

    Arguments and environment of a process can be read by others (ps, /proc/PID/environ), and a file could outlive a
    killed run. So libpq reads the password from memory that only the program inherits, by the name of its open file.
    https://www.postgresql.org/docs/current/libpq-pgpass.html (mode 0600 or it is ignored)
    """
    fields = (login.host, str(login.port), login.dbname, login.user, login.password)
    line = ":".join(part.replace("\\", "\\\\").replace(":", "\\:") for part in fields)
    number, service = os.memfd_create("pgpass"), os.memfd_create("pg_service")
    try:
        os.fchmod(number, 0o600)
        os.write(number, f"{line}\n".encode())
        # When to give up a network that is gone has no variable of its own, but a service may have it.
        os.write(service, "".join(["[network]\n", *(f"{name}={value}\n" for name, value in NETWORK.items())]).encode())
        variables = {
            "PGHOST": login.host,
            "PGPORT": str(login.port),
            "PGDATABASE": login.dbname,
            "PGUSER": login.user,
            "PGSSLMODE": login.sslmode,
            **{f"PG{name.upper()}": path for name, path in login.tls_files().items()},
            "PGPASSFILE": f"/proc/self/fd/{number}",
            "PGSERVICEFILE": f"/proc/self/fd/{service}",
            "PGSERVICE": "network",
            "PGCONNECT_TIMEOUT": str(CONNECT_TIMEOUT_S),
            "PGAPPNAME": "at-most-one",
            "PGOPTIONS": "-c client_min_messages=warning",
        }
        yield Access({**no_access().environment, **variables}, (number, service), login)
    finally:
        os.close(number)
        os.close(service)


def run(
    arguments: Sequence[str],
    given: Access,
    secrets: Sequence[str],
    next_step: str,
    stdin: IO[bytes] | None = None,
) -> str:
    """Run one program to its end and return what it printed. Raises OperatorError with its last words when it fails."""
    with (
        subprocess.Popen(  # noqa: S603 (no shell; the program was found by name)
            list(arguments),
            env=dict(given.environment),
            pass_fds=given.files,
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
        ) as process,
        ended_with_its_server(given, process),
    ):
        try:
            printed, said = process.communicate()
        except BaseException:
            process.kill()
            raise
        if process.returncode:
            raise failed(arguments[0], process.returncode, said, secrets, next_step)
    return printed


@contextlib.contextmanager
def ended_with_its_server(given: Access, process: subprocess.Popen[str] | subprocess.Popen[bytes]) -> Iterator[None]:
    """End the program when its server has stopped answering. Raises OperatorError that says so."""
    if given.login is None:
        yield
        return
    with answering(given.login, lambda: process.poll() is None, process.kill):
        yield


def failed(program: str, code: int, said: str, secrets: Sequence[str], next_step: str) -> OperatorError:
    """What to say of a program that ended badly: its own messages, without the rows that PostgreSQL shows in them."""
    lines = _without_rows(redact(said, secrets), Path(program).name)
    return OperatorError(
        observed(
            "AMO-3105",
            "{name} ended with exit code {code}: {lines}.",
            name=Path(program).name,
            code=code,
            lines=" | ".join(lines[-4:]) or say("it said nothing"),
        ),
        expected=say("exit code 0."),
        next_step=next_step,
    )


def _without_rows(said: str, program: str) -> list[str]:
    """The messages of the program itself. The lines between them are DETAIL, CONTEXT and data: they may be rows.

    A wrapper in the program's place (Debian has one) says nothing under its name, and knows no row.
    """
    every = [line.strip() for line in said.splitlines() if line.strip()]
    lines = [line for line in every if line.startswith(f"{program}: ")] or every
    return [without_value(_DATA.sub(r"\g<table>", line)) for line in lines]
