"""The whole procedure on the lab of this checkout, driven by ansible-runner as an operator would drive it.

The lab is the guide's service for real: PostgreSQL, Prisma, Next.js, PM2, a git origin. These tests reset it.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import psycopg2
import pytest

from tests.support.playbooks import PLANNED as PLANNED
from tests.support.playbooks import Run as Run
from tests.support.playbooks import run_playbook as run_playbook

ROOT = Path(__file__).parents[2]
SESSIONS, SCHEDULES = "aedpics.inspection_sessions", "aedpics.inspection_schedules"


def build_id_of(page: str) -> str:
    """The id of the build that a page came from, as Next.js writes it into each one; in the lab it is the commit."""
    found = re.findall(r'\\"b\\":\\"([0-9a-f]{40})\\"', page)
    assert len(found) == 1, found
    return str(found[0])


@dataclass(frozen=True)
class Lab:
    """The running lab, and the truths that tests compare: catalog, content, processes, link."""

    values: dict[str, Any]

    @contextmanager
    def cursor(self) -> Iterator[Any]:
        v = self.values
        connection = psycopg2.connect(
            host=v["database_host"],
            port=v["database_port"],
            dbname=v["database_name"],
            user=v["database_user"],
            password=v["database_password"],
        )
        connection.autocommit = True
        try:
            with connection.cursor() as cursor:
                yield cursor
        finally:
            connection.close()

    def rows(self, sql: str, *parameters: Any) -> list[tuple[Any, ...]]:
        with self.cursor() as cursor:
            cursor.execute(sql, parameters or None)
            return list(cursor.fetchall()) if cursor.description else []

    def value(self, sql: str, *parameters: Any) -> Any:
        return self.rows(sql, *parameters)[0][0]

    def fences(self) -> int:
        """How many indexes of the write fence there are, whatever their state."""
        return int(self.value("SELECT count(*) FROM pg_class WHERE relname ~ '^at_most_one_fence_'"))

    def sessions(self) -> dict[str, str]:
        """Every session, by id, as its whole text."""
        return dict(self.rows(f"SELECT id::text, s::text FROM {SESSIONS} s"))

    def images(self) -> dict[str, dict[str, str | None]]:
        """Every session, by id, each column as its own text, times in UTC: what an archive must hold byte for byte."""
        columns = self.rows(
            "SELECT attname FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped",
            SESSIONS,
        )
        pairs = ", ".join(f"'{name}', {name}::text" for (name,) in columns)
        with self.cursor() as cursor:
            cursor.execute("SET timezone = 'UTC'")
            cursor.execute(f"SELECT id::text, jsonb_build_object({pairs}) FROM {SESSIONS}")
            return dict(cursor.fetchall())

    def content(self) -> str:
        """One digest over every row of every table of the service."""
        digest = hashlib.sha256()
        tables = self.rows("SELECT tablename FROM pg_tables WHERE schemaname = 'aedpics' ORDER BY 1")
        for (table,) in tables:
            for (row,) in self.rows(f'SELECT t::text FROM aedpics."{table}" t ORDER BY 1'):
                digest.update(f"{table} {row}\n".encode())
        return digest.hexdigest()

    def catalog(self) -> list[tuple[Any, ...]]:
        """Every relation, index definition and trigger outside the system's schemas."""
        return self.rows(
            """
            SELECT n.nspname, c.relname, c.relkind, coalesce(pg_get_indexdef(i.indexrelid), ''), i.indisvalid
              FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
              LEFT JOIN pg_index i ON i.indexrelid = c.oid
             WHERE n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname NOT LIKE 'pg_t%'
            UNION ALL
            SELECT 'trigger', t.tgname, 't', pg_get_triggerdef(t.oid), true FROM pg_trigger t WHERE NOT tgisinternal
             ORDER BY 1, 2
            """
        )

    def indexes(self) -> dict[str, tuple[bool, bool]]:
        """Of the planned indexes, those in the catalog of the right schema: (valid, ready)."""
        found = self.rows(
            """
            SELECT c.relname, i.indisvalid, i.indisready FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
              JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = 'aedpics' AND c.relname = ANY (%s)
            """,
            sorted(PLANNED),
        )
        return {name: (valid, ready) for name, valid, ready in found}

    def duplicate_groups(self) -> int:
        found = self.value(
            f"""SELECT count(*) FROM (SELECT 1 FROM {SESSIONS} WHERE status IN ('active', 'paused')
                GROUP BY equipment_serial HAVING count(*) > 1) t"""
        )
        return int(found)

    def pids(self) -> list[int]:
        """The application's processes, from PM2's own table."""
        environment = {**os.environ, "PATH": self.values["path"], "PM2_HOME": self.values["pm2_home"]}
        listed = subprocess.run(
            [self.values["pm2_bin"], "jlist"], env=environment, capture_output=True, text=True, check=True
        ).stdout
        return sorted(process["pid"] for process in json.loads(listed[listed.index("[{") :]))

    def served(self, answers: int = 8) -> set[str]:
        """The commits that answer just now: no header names them, but a page does, as the id of its build."""
        commits = set()
        for _ in range(answers):
            with urlopen(self.values["app_url"] + "/", timeout=10) as answer:
                commits.add(build_id_of(answer.read().decode()))
        return commits

    def archived(self) -> int:
        """The rows that are in the archive only."""
        if self.value("SELECT to_regclass('at_most_one.archived_row') IS NULL"):
            return 0
        return int(self.value("SELECT count(*) FROM at_most_one.archived_row WHERE restored_at IS NULL"))

    def journal_has(self, phase: str, status: str) -> bool:
        """Whether the run that is open has recorded this."""
        if self.value("SELECT to_regclass('at_most_one.step') IS NULL"):
            return False
        recorded = "SELECT 1 FROM at_most_one.step JOIN at_most_one.run USING (run_id) WHERE (phase, status) = (%s, %s)"
        return bool(self.rows(f"{recorded} AND outcome IS NULL", phase, status))

    @property
    def link(self) -> str:
        path = Path(self.values["app_path"])
        return os.readlink(path) if path.is_symlink() else "in place"


@contextmanager
def forgetting(lab: Lab, phase: str, status: str) -> Iterator[None]:
    """The journal loses this phase of the open run, as a standby does that is promoted without the last commits."""
    over = threading.Event()
    lost = "DELETE FROM at_most_one.step s USING at_most_one.run r WHERE s.run_id = r.run_id AND r.outcome IS NULL"

    def forget() -> None:
        while not over.wait(0.05):
            if lab.journal_has(phase, status):
                lab.rows(f"{lost} AND s.phase = %s", phase)
                return

    thread = threading.Thread(target=forget)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def make(*targets: str) -> None:
    subprocess.run(["make", "--no-print-directory", *targets], cwd=ROOT, check=True, capture_output=True, text=True)


@pytest.fixture(scope="session")
def lab() -> Lab:
    """The lab, up. Built releases are kept between resets: a commit's build does not depend on the database."""
    os.environ["LAB_KEEP_BUILDS"] = "true"
    os.environ["LAB_STABLE_S"] = "1"  # two instances wait it out, one by one, in each reload and each way back
    make("lab-up")
    return Lab(json.loads((ROOT / ".lab/lab.json").read_text()))


def light_build(lab: Lab) -> tuple[str, str]:
    """The option by which a release is copied from a finished one instead of built: see lab/bin/build-light."""
    after = Path(lab.values["app_path"] + ".releases") / lab.values["commit_after"]
    finished = after if (after / ".at-most-one.json").exists() else lab.values["before_build"]
    return "-e", json.dumps({"prepare_build_commands": [[str(ROOT / "lab/bin/build-light"), str(finished)]]})


def next_build(lab: Lab) -> tuple[str, str]:
    """The option by which only ``next build`` is done for real: the packages are copied from a finished release."""
    copied = json.loads(light_build(lab)[1])["prepare_build_commands"]
    # Turbopack's cache of another directory makes its next build panic.
    return "-e", json.dumps({"prepare_build_commands": [*copied, ["rm", "-rf", ".next"], ["npm", "run", "build"]]})


def reset(lab: Lab) -> Lab:
    """The lab as the guide's example, nothing deployed: reset, unless no run has been opened since it was."""
    untouched = (
        lab.link == "in place"
        and lab.value("SELECT to_regnamespace('at_most_one') IS NULL")
        and lab.duplicate_groups() == 10
        and lab.indexes() == {}
        and lab.served() == {lab.values["commit_before"]}
    )
    if not untouched:
        make("lab-reset")
    return Lab(json.loads((ROOT / ".lab/lab.json").read_text()))


@pytest.fixture
def fresh(lab: Lab) -> Lab:
    """The lab, reset to the guide's example, nothing deployed."""
    return reset(lab)


@pytest.fixture(scope="module")
def deployed_ground(lab: Lab) -> Lab:
    """A good deployment, the one that an earlier suite has left or one of its own."""
    if lab.served(20) != {lab.values["commit_after"]} or lab.indexes() != dict.fromkeys(PLANNED, (True, True)):
        make("lab-reset")
        run = run_playbook("deploy.yml")
        assert run.code == 0, run.output
    return lab
