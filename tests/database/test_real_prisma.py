"""With Prisma's own command line: what we record is what it records, and it agrees with what we have built.

The packages are those of the lab's application, with Prisma 6 or 7, from its build when there is one, or installed once
into .lab/cache.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from at_most_one.errors import OperatorError
from at_most_one.plan import Plan
from at_most_one.postgres.connection import Login, connect
from at_most_one.prisma.cli import require_own_address

from tests.database.conftest import ROOT
from tests.database.index_tools import in_thread, query, verdicts, wait_for
from tests.support.prisma_packages import CACHE, PARTIAL, installed
from tests.support.prisma_stand_in import EARLIER, MIGRATION, OURS, RULE, SHAPED
from tests.support.service_database import SCHEMA

APP = ROOT / "lab/app"
OVER_APP = {"6": APP, "7": ROOT / "lab/prisma-7"}  # what is different from lab/app, by Prisma's major version
# Nothing of ours asks which it is; `make test` has the version of the shipped service.
BOTH = ["6", pytest.param("7", marks=pytest.mark.thorough)]
ROWS = "SELECT to_jsonb(m) FROM aedpics._prisma_migrations m ORDER BY started_at, id"


def node_environment() -> dict[str, str]:
    return {**os.environ, "PATH": f"{ROOT / '.lab/bin'}{os.pathsep}{os.environ['PATH']}"}


def packages(major: str) -> Path:
    """A node_modules directory with Prisma's CLI of the version that the lab's application has."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "packages.lock").open("w") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)  # every worker asks: the first one installs, the others find it
        return installed(OVER_APP[major]) or _install(OVER_APP[major])


def _install(source: Path) -> Path:
    lock = (source / "package-lock.json").read_bytes()
    directory = CACHE / f"packages-{hashlib.sha256(lock).hexdigest()[:12]}"
    partial = directory.with_suffix(PARTIAL)
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    for name in ("package.json", "package-lock.json"):
        shutil.copy(source / name, partial)
    command = ["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts"]
    subprocess.run(command, cwd=partial, env=node_environment(), check=True, capture_output=True)
    shutil.rmtree(directory, ignore_errors=True)
    partial.rename(directory)
    return directory / "node_modules"


@pytest.fixture(params=BOTH)
def prisma_release(login: Login, request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A release with the schema as its first migration, which Prisma itself has applied, and ours."""
    for source in (APP, OVER_APP[request.param]):
        libraries = ("lib/database-url.mjs", "lib/migration-adapter.mjs", "scripts/schema-engine.mjs")
        for name in ("prisma.config.ts", "prisma/schema.prisma", *libraries):
            if (source / name).exists():
                (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(source / name, tmp_path / name)
    (tmp_path / "node_modules").symlink_to(packages(request.param))
    schema = SCHEMA.read_text().replace("CREATE SCHEMA aedpics;", "")
    migrations = tmp_path / "prisma/migrations"
    add(migrations, EARLIER, schema)
    shutil.copy(APP / "prisma/migrations/migration_lock.toml", migrations)
    query(login, "DROP SCHEMA aedpics CASCADE; CREATE SCHEMA aedpics")
    assert exit_code(login, tmp_path, "deploy") == 0
    add(migrations, OURS, MIGRATION)
    return tmp_path


def exit_code(login: Login, release: Path, command: str) -> int:
    """What `prisma migrate <command>` ends with, called by hand."""
    return by_hand(login, release, command).returncode


def by_hand(login: Login, release: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**node_environment(), "DATABASE_URL": login.url(schema="aedpics"), "CHECKPOINT_DISABLE": "1"}
    command = ["node_modules/.bin/prisma", "migrate", *arguments]
    return subprocess.run(command, cwd=release, env=environment, capture_output=True, text=True, timeout=120)


def add(migrations: Path, name: str, text: str) -> None:
    (migrations / name).mkdir(parents=True)
    (migrations / name / "migration.sql").write_text(text)


@pytest.fixture
def run(
    run_module: Callable[..., dict[str, Any]],
    login_args: dict[str, Any],
    plan_data: dict[str, Any],
    prisma_release: Path,
) -> Callable[..., dict[str, Any]]:
    """Runs index_set over the release."""

    def do(**options: Any) -> dict[str, Any]:
        args = {"login": login_args, "plan": plan_data, "environment_path": str(ROOT / ".lab/bin")}
        if options.get("state", "present") == "present":
            args |= {"state": "present", "release_path": str(prisma_release)}
        return run_module("index_set", {**args, **options})

    return do


def test_what_we_record_is_what_prisma_records_and_prisma_agrees(
    login: Login,
    plan: Plan,
    plan_data: dict[str, Any],
    login_args: dict[str, Any],
    run: Callable[..., dict[str, Any]],
    run_module: Callable[..., dict[str, Any]],
) -> None:
    theirs = run(strategy="prisma")
    assert (theirs.get("strategy"), theirs.get("attempts")) == ("prisma", 1), theirs
    assert run(state="absent")["changed"]
    marking = {"login": login_args, "plan": plan_data, "state": "rolled_back"}
    assert run_module("prisma_history", marking)["marked"] == 1

    ours = run(strategy="concurrent")

    assert (ours.get("strategy"), ours.get("attempts"), ours.get("history")) == ("concurrent", 0, "applied"), ours
    assert verdicts(login, plan) == ["present"] * 3
    _, by_prisma, by_us = (row for (row,) in query(login, ROWS))
    assert by_prisma.keys() == by_us.keys()
    uuid = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
    for row in (by_prisma, by_us):
        assert uuid.fullmatch(row["id"])
        assert row["started_at"] < row["finished_at"]
    assert by_us["rolled_back_at"] is None
    same = ("checksum", "migration_name", "logs", "applied_steps_count")
    assert {name: by_us[name] for name in same} == {name: by_prisma[name] for name in same}
    assert (by_us["logs"], by_us["applied_steps_count"]) == (None, 1)
    assert by_us["checksum"] == hashlib.sha256(MIGRATION.encode()).hexdigest()

    again = run(strategy="auto")
    assert (again["changed"], again["strategy"]) == (False, "none")


def test_a_writer_on_the_second_table_is_gone_around_and_prisma_agrees(
    login: Login, plan: Plan, prisma_release: Path, run: Callable[..., dict[str, Any]]
) -> None:
    """The service's own script. The adapter has built the rule's index when it meets the lock of the second table."""
    (prisma_release / "prisma/migrations" / OURS / "migration.sql").write_text(SHAPED)
    failed = "SELECT 1 FROM aedpics._prisma_migrations WHERE logs LIKE '%55P03%' OR logs LIKE '%lock timeout%'"
    with connect(login) as writer, writer.cursor() as cursor:
        cursor.execute("LOCK TABLE aedpics.inspection_schedules IN ROW EXCLUSIVE MODE")
        with in_thread(lambda: run(strategy="prisma", lock_timeout_ms=500)) as results:
            wait_for(lambda: query(login, failed), seconds=60)
            assert verdicts(login, plan) == ["present", "missing", "missing"]
            built = query(login, f"SELECT 'aedpics.{RULE}'::regclass::oid")
            writer.rollback()
    (done,) = results
    assert (done.get("strategy"), done.get("attempts"), done.get("history")) == ("concurrent", 1, "applied"), done
    assert query(login, f"SELECT 'aedpics.{RULE}'::regclass::oid") == built, "never dropped"
    assert verdicts(login, plan) == ["present"] * 3
    assert exit_code(login, prisma_release, "status") == 0


def test_an_index_that_was_dropped_by_hand_is_built_again_and_prisma_agrees(
    login: Login,
    plan: Plan,
    plan_data: dict[str, Any],
    login_args: dict[str, Any],
    prisma_release: Path,
    run: Callable[..., dict[str, Any]],
    run_module: Callable[..., dict[str, Any]],
) -> None:
    """What the monitor's finding promises of deploying the same commit again."""
    assert run(strategy="prisma").get("strategy") == "prisma"
    row = query(login, ROWS)
    with connect(login) as connection, connection.cursor() as cursor:
        cursor.execute(f"DROP INDEX aedpics.{RULE}")
    reading = {"login": login_args, "plan": plan_data, "release_path": str(prisma_release)}
    seen = run_module("database_preflight", {**reading, "strategy": "prisma"})["history"]
    assert (seen["verdict"], seen["refusal"], seen["strategy"]) == ("applied_without_indexes", "", "concurrent"), seen
    read = run_module("prisma_history_info", reading)
    assert not read["needs_a_person"]
    assert "ansible-playbook deploy.yml -l <environment> builds what is missing" in read["repair"]

    done = run(strategy="prisma")

    assert (done.get("changed"), done.get("history")) == (True, "applied"), done
    assert verdicts(login, plan) == ["present"] * 3
    assert query(login, ROWS) == row, "the row is kept"
    assert exit_code(login, prisma_release, "status") == 0


def test_prisma_is_asked_whether_it_takes_its_database_from_the_environment(login: Login, prisma_release: Path) -> None:
    node = str(ROOT / ".lab/bin")
    require_own_address(login, "aedpics", prisma_release, node)
    config = prisma_release / "prisma.config.ts"
    config.write_text(config.read_text().replace("process.env.DATABASE_URL", "process.env.ANOTHER_URL"))
    with pytest.raises(OperatorError, match="has not connected to the address in DATABASE_URL"):
        require_own_address(login, "aedpics", prisma_release, node)


def test_a_database_ahead_of_the_release_is_refused_though_prisma_lets_it_pass(
    login: Login, prisma_release: Path, run: Callable[..., dict[str, Any]]
) -> None:
    """Its own `migrate status` ends with exit code 0 then, as if release and database agreed."""
    query(
        login,
        "INSERT INTO aedpics._prisma_migrations (id, checksum, migration_name, rolled_back_at, finished_at)"
        " SELECT 'other', checksum, '20250101_of_another_branch', NULL, now() FROM aedpics._prisma_migrations",
    )
    add(prisma_release / "prisma/migrations", "20250101_of_another_branch", "SELECT 1")
    shutil.rmtree(prisma_release / "prisma/migrations" / OURS)
    assert exit_code(login, prisma_release, "status") == 0
    shutil.rmtree(prisma_release / "prisma/migrations/20250101_of_another_branch")
    assert exit_code(login, prisma_release, "status") == 0
    add(prisma_release / "prisma/migrations", OURS, MIGRATION)

    stopped = run(strategy="concurrent")
    assert stopped["details"]["history"] == "ahead"
    assert "20250101_of_another_branch" in stopped["seen"]
    assert len(query(login, ROWS)) == 2


@pytest.mark.parametrize("prisma_release", ["7"], indirect=True)
@pytest.mark.thorough  # what Prisma would write into its next migration (docs/prisma.md); no run depends on it
def test_which_planned_indexes_the_next_migration_of_prisma_7_would_drop(
    login: Login, plan: Plan, prisma_release: Path, run: Callable[..., dict[str, Any]]
) -> None:
    assert run(strategy="concurrent").get("history") == "applied"
    planned = {index.name for index in plan.indexes}
    schema = prisma_release / "prisma/schema.prisma"

    def dropped() -> set[str]:
        compared = ("--from-config-datasource", "--to-schema", "prisma/schema.prisma", "--script", "--exit-code")
        done = by_hand(login, prisma_release, "diff", *compared)
        assert done.returncode == 2, (
            done.stdout + done.stderr
        )  # the tests' schema lacks some of the application's indexes
        return set(re.findall(r'DROP INDEX "(.+)"', done.stdout)) & planned

    everything = schema.read_text()
    assert dropped() == {"idx_inspection_schedules_equipment_date"}, "a condition is outside what it compares"

    preview = 'generator client {\n  previewFeatures = ["partialIndexes"]'
    everything = everything.replace("generator client {", preview)
    schema.write_text(everything)
    assert dropped() == planned, "with the preview it compares conditions as well"

    for model, lines in as_documented().items():
        there = re.search(rf"{model}.*?(?=^}})", everything, re.DOTALL | re.MULTILINE)
        assert there is not None
        everything = everything.replace(there.group(), there.group() + lines)
    schema.write_text(everything)
    assert dropped() == set()


def as_documented() -> dict[str, str]:
    """The lines that docs/prisma.md says to write into each model."""
    page = (ROOT / "docs/prisma.md").read_text()
    found = re.findall(r"^(model \w+ {)\n  // \.\.\.\n(.*?)^}", page, re.DOTALL | re.MULTILINE)
    assert len(found) == 2
    return dict(found)
