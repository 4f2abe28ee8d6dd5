"""Whether Prisma takes its database from its environment, asked of programs that stand in for its command line."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from at_most_one.errors import OperatorError
from at_most_one.postgres.connection import Login
from at_most_one.prisma.cli import require_own_address

LOGIN = Login("db.example.test", 5432, "aedpics", "aedpics_admin", "p@ss/word")
COMES = """#!{python}
import os, socket, sys, urllib.parse
assert sys.argv[1:] == ["migrate", "status"]
url = urllib.parse.urlsplit(os.environ["{variable}"])
with socket.create_connection((url.hostname, url.port)) as connection:
    assert connection.recv(1) == b""
print("Error: P1001: Can't reach database server")
sys.exit(1)
"""
STAYS_AWAY = """#!{python}
import os
print("Database schema is up to date!", os.environ["DATABASE_URL"])
"""


def release(directory: Path, program: str, **values: str) -> Path:
    executable = directory / "node_modules/.bin/prisma"
    executable.parent.mkdir(parents=True)
    executable.write_text(program.format(python=sys.executable, **values))
    executable.chmod(0o755)
    return directory


@pytest.mark.parametrize("variable", ["DATABASE_URL", "DIRECT_URL"])
def test_one_that_comes_to_its_address_may_migrate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, "postgresql://nobody@127.0.0.1:1/none")
    require_own_address(LOGIN, "aedpics", release(tmp_path, COMES, variable=variable))


def test_one_that_asks_elsewhere_is_refused_whatever_it_answers(tmp_path: Path) -> None:
    with pytest.raises(OperatorError) as refused:
        require_own_address(LOGIN, "aedpics", release(tmp_path, STAYS_AWAY))
    assert "ended with exit code 0 and has not connected to the address in DATABASE_URL" in refused.value.seen
    assert "Database schema is up to date!" in refused.value.seen
    assert "p%40ss" not in str(refused.value)


def test_one_that_cannot_start_is_refused_with_its_words(tmp_path: Path) -> None:
    with pytest.raises(OperatorError, match=r"ended with exit code 3 .* It said: error: no engine"):
        require_own_address(LOGIN, "aedpics", release(tmp_path, "#!/bin/sh\necho error: no engine\nexit 3\n"))
