"""docs/adapters.md, with real Alembic and real Django: deployed, taken back and deployed again, as the tools see it.

The projects are those of examples/, the commands those of the page.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import yaml
from at_most_one.postgres.connection import Login

from tests.database.index_tools import query
from tests.database.page_project import DIGEST, INDEX, owned_database, project, report
from tests.support.playbooks import ROOT, Run
from tests.support.postgres import Server

pytestmark = pytest.mark.pg_dump
PAGE = (ROOT / "docs/adapters.md").read_text()
HERE = str(Path(sys.executable).parent)
MIGRATION = "0002_one_active_enrolment"
PASSWORD = "a secret of the school: 100%"
BLOCKS = [yaml.safe_load(text) for text in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)]
SETTINGS = dict(zip(("alembic", "django"), BLOCKS[:2], strict=True))
ROWS = """
INSERT INTO enrolments (user_id, course_id, created_at, status)
    SELECT u, c, '2025-11-01'::timestamptz + u * interval '1 hour', CASE u % 9 WHEN 0 THEN 'completed' ELSE 'active' END
    FROM generate_series(1, 40) AS u, generate_series(1, 5) AS c;
INSERT INTO enrolments (user_id, course_id, created_at, status)
    SELECT u, 2, '2025-11-20'::timestamptz + n * interval '1 hour', 'active'
    FROM generate_series(1, 4) AS u, generate_series(1, 3) AS n"""


@dataclass(frozen=True)
class Tool:
    """A migration tool over a database of its own."""

    login: Login
    directory: Path
    settings: Mapping[str, Any]
    migrate: tuple[str, ...]  # its own command that applies a migration by running it
    show: tuple[str, ...]  # its own command that prints the history
    is_applied: Callable[[str], bool]  # of what that prints

    def run(self, *words: str) -> str:
        """One command of the tool, with the environment that a deployment would give it."""
        login = self.login
        libpq = {"PGHOST": login.host, "PGPORT": str(login.port), "PGDATABASE": login.dbname, "PGUSER": login.user}
        address = login.url(sslmode="prefer").partition("://")[2]
        environment = {**libpq, "PGPASSWORD": login.password, "DATABASE_URL": f"postgresql+psycopg2://{address}"}
        done = subprocess.run(
            list(words), cwd=self.directory, env={**os.environ, **environment}, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    @property
    def applied(self) -> bool:
        return self.is_applied(self.run(*self.show))


# The second tool repeats the whole procedure with other commands; what is Django's own has a test below.
@pytest.fixture(params=["alembic", pytest.param("django", marks=pytest.mark.thorough)])
def tool(request: pytest.FixtureRequest, server: Server, tmp_path: Path) -> Iterator[Tool]:
    """The example, with the first migration applied by the tool, and rows with duplicates."""
    directory = tmp_path / "srv"
    shutil.copytree(ROOT / "examples" / request.param, directory)
    settings = yaml.safe_load(json.dumps(SETTINGS[request.param]).replace(".venv/bin", HERE))
    settings["migrate_history"]["path"] = str(directory)
    alembic, manage = f"{HERE}/alembic", (sys.executable, "manage.py")
    with owned_database(server, "school", PASSWORD) as login:
        if request.param == "alembic":
            made = Tool(
                login, directory, settings, (alembic, "upgrade"), (alembic, "current"), lambda said: MIGRATION in said
            )
        else:
            made = Tool(
                *(login, directory, settings, (*manage, "migrate", "school"), (*manage, "showmigrations", "school")),
                lambda said: f"[X] {MIGRATION}" in said,
            )
        made.run(*made.migrate, "0001_enrolments")
        query(login, f"SET search_path = public; {ROWS}")
        yield made


@pytest.fixture
def play(tool: Tool, server: Server, tmp_path: Path) -> Callable[..., Run]:
    """Runs a playbook with the settings of the page."""
    return project(tmp_path, tool.login, server, app_adapter="none", **tool.settings)


def state(tool: Tool) -> tuple[bool, bool]:
    """Whether the index is there, and whether the tool says that its migration is applied."""
    return query(tool.login, INDEX) == [(1,)], tool.applied


def test_deployed_taken_back_and_deployed_again_as_the_tool_sees_it(
    tool: Tool, play: Callable[..., Run], tmp_path: Path
) -> None:
    before = query(tool.login, DIGEST)
    predicted = play("deploy.yml", "--check", "--diff")
    assert (predicted.code, state(tool)) == (0, (False, False)), predicted.output

    deployed = play("deploy.yml")
    assert (deployed.code, report(tmp_path)["outcome"], state(tool)) == (0, "deployed", (True, True)), deployed.output
    assert PASSWORD not in deployed.output + deployed.events

    again = play("deploy.yml")
    assert (again.code, again.changed, report(tmp_path)["outcome"], state(tool)) == (0, 0, "unchanged", (True, True))

    back = play("rollback.yml")
    assert (back.code, report(tmp_path)["outcome"], state(tool)) == (0, "rolled_back", (False, False)), back.output
    assert query(tool.login, DIGEST) == before

    forward = play("deploy.yml")
    assert (forward.code, report(tmp_path)["outcome"], state(tool)) == (0, "deployed", (True, True)), forward.output


@pytest.mark.parametrize("tool", ["alembic"], indirect=True)  # what the tool is makes no difference here
def test_a_tool_that_cannot_record_is_a_failure_that_takes_itself_back(
    tool: Tool, play: Callable[..., Run], tmp_path: Path
) -> None:
    before = query(tool.login, DIGEST)
    broken = {**tool.settings["migrate_history"], "applied": [f"{HERE}/alembic", "stmp", "{migration}"]}
    stopped = play("deploy.yml", "-e", json.dumps({"migrate_history": broken}))
    assert stopped.code != 0
    assert "AMO-3632" in stopped.output + stopped.events
    assert (report(tmp_path)["outcome"], state(tool)) == ("rolled_back", (False, False)), stopped.output
    assert query(tool.login, DIGEST) == before


@pytest.mark.parametrize("tool", ["django"], indirect=True)
def test_the_tools_own_migration_leaves_nothing_to_do(tool: Tool, play: Callable[..., Run], tmp_path: Path) -> None:
    """As on a new database, and later migrations on top of it."""
    query(tool.login, "DELETE FROM public.enrolments")
    tool.run(*tool.migrate, "0003_notes")
    done = play("deploy.yml")
    assert (done.code, report(tmp_path)["outcome"]) == (0, "unchanged"), done.output


def test_the_page_shows_the_examples_and_the_versions_that_are_run() -> None:
    scripts = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert scripts == [
        (ROOT / "examples/alembic/at_most_one_history.py").read_text(),
        (ROOT / "examples/django/school/management/commands/at_most_one_history.py").read_text(),
    ]
    for name in ("Alembic", "Django"):
        assert f"| {name} {metadata.version(name.lower())} |" in PAGE
