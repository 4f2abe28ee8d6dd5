"""docs/bare-database.md, walked: from a database with duplicates to deployed, verified, taken back, without Node.

No application, no git origin, no release: an inventory that new_service.yml writes, and this machine as the runner.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml
from at_most_one.postgres.connection import Login

from tests.database.index_tools import query
from tests.database.page_project import owned_database, report
from tests.support import without_node
from tests.support.playbooks import Run, run_playbook
from tests.support.postgres import Server

SCHEMA = """
SET search_path = public;
CREATE TABLE courses (id integer PRIMARY KEY, title text NOT NULL);
CREATE TABLE enrolments (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, user_id integer NOT NULL,
    course_id integer NOT NULL REFERENCES courses, created_at timestamptz NOT NULL,
    status text NOT NULL CHECK (status IN ('active', 'completed')));
CREATE TABLE certificates (enrolment_id bigint PRIMARY KEY REFERENCES enrolments, printed_on date NOT NULL);
INSERT INTO courses SELECT n, 'Course ' || n FROM generate_series(1, 5) AS n;
INSERT INTO enrolments (user_id, course_id, created_at, status)
    SELECT u, c, '2025-11-01'::timestamptz + u * interval '1 hour', CASE u % 9 WHEN 0 THEN 'completed' ELSE 'active' END
    FROM generate_series(1, 40) AS u, generate_series(1, 5) AS c;
INSERT INTO enrolments (user_id, course_id, created_at, status)
    SELECT u, 2, '2025-11-20'::timestamptz + n * interval '1 hour', 'active'
    FROM generate_series(1, 4) AS u, generate_series(1, 3) AS n;
INSERT INTO certificates SELECT max(id), '2025-11-25' FROM enrolments WHERE course_id = 2 GROUP BY user_id;
"""
SURPLUS = 12
DIGEST = "SELECT count(*), md5(string_agg(t::text, '|' ORDER BY t::text)) FROM public.{} AS t"
KEPT = """
SELECT count(*), md5(string_agg(t::text, '|' ORDER BY t::text)) FROM public.enrolments AS t WHERE NOT EXISTS (
    SELECT FROM public.enrolments AS later WHERE t.status = 'active' AND later.status = 'active'
        AND (later.user_id, later.course_id) = (t.user_id, t.course_id) AND later.created_at > t.created_at)"""
INDEXES = "SELECT indexdef FROM pg_indexes WHERE tablename = 'enrolments' ORDER BY 1"
PLAN = "one-active-enrolment"
BACKED_UP = ("-e", f"prepare_backup_taken_at={datetime.now(UTC).isoformat()}")
# make core-matrix: the Python that starts modules on hosts, where it is not that of ansible-playbook.
HOSTS_PYTHON = os.environ.get("HOSTS_PYTHON")
STARTED_BY = ("-e", f"ansible_python_interpreter={HOSTS_PYTHON}") if HOSTS_PYTHON else ()


def digests(login: Login) -> list[object]:
    return [query(login, DIGEST.format(table)) for table in ("courses", "enrolments", "certificates")]


@pytest.fixture
def school(server: Server) -> Iterator[Login]:
    """A database with duplicates."""
    with owned_database(server, "school", "a secret of the school") as login:
        query(login, SCHEMA)
        yield login


@pytest.fixture
def play(tmp_path: Path, server: Server) -> Callable[..., Run]:
    """Runs a playbook in a project of its own, with nothing of Node.js on PATH."""
    path = without_node.path(tmp_path / "programs")
    assert all(shutil.which(name, path=path) is None for name in without_node.NAMES)
    shutil.copytree(Path(__file__).parents[2] / "plans", tmp_path / "plans")

    def run(playbook: str, *arguments: str, limit: str | None = "school") -> Run:
        given = ("-e", f"project_path={tmp_path}", *STARTED_BY, *arguments)
        inventory = str(tmp_path / "inventories/school") if limit else "local"
        return run_playbook(playbook, *given, limit=limit, inventory=inventory, environment={"PATH": path})

    return run


def fill_in(directory: Path, login: Login, server: Server) -> None:
    """What the page asks a person to fill in."""
    service = directory / "service.yml"
    text = service.read_text()
    for name, value in (("database_name", login.dbname), ("database_user", login.user)):
        text = text.replace(f'{name}: "" # [fill in]', f"{name}: {value} #")
    text = text.replace("database_port: 5432", f"database_port: {login.port}")
    text = text.replace("database_sslmode: verify-full", "database_sslmode: prefer")  # on this very machine
    text = text.replace("database_sslrootcert: system", 'database_sslrootcert: ""')
    text = text.replace("~/at-most-one-backups", str(directory))
    text = text.replace('app_environment_path: ""', f"app_environment_path: {server.binaries}")
    service.write_text(text)
    vault = {"vault_database_host": login.host, "vault_database_password": login.password}
    (directory / "vault.yml").write_text(yaml.safe_dump(vault))


@pytest.mark.pg_dump
def test_from_duplicates_to_verified_and_back_without_node(
    play: Callable[..., Run], school: Login, server: Server, tmp_path: Path
) -> None:
    before, indexes = digests(school), query(school, INDEXES)
    kept = query(school, KEPT)

    written = play(
        "new_service.yml",
        *("-e", "new_service_name=school", "-e", "new_service_adapter=none"),
        *("-e", f"new_service_path={tmp_path}/inventories"),
        limit=None,
    )
    assert written.code == 0, written.output
    fill_in(tmp_path / "inventories/school/group_vars/school", school, server)

    narrow = ("-e", "discover_table=public.enrolments", "-e", "discover_key=user_id,course_id")
    chosen = play("discover.yml", *narrow, "-e", "discover_choice=1", "-e", f"discover_plan_id={PLAN}")
    assert chosen.code == 0, chosen.output
    assert "repository" not in chosen.output

    plan = ("-e", f"plan={PLAN}", *BACKED_UP)
    predicted = play("deploy.yml", *plan, "--check", "--diff")
    assert (predicted.code, digests(school)) == (0, before), predicted.output
    assert query(school, INDEXES) == indexes

    deployed = play("deploy.yml", *plan)
    assert deployed.code == 0, deployed.output
    done = report(tmp_path)
    assert deployed.output.count("Not part of this run: app_adapter is none.") == 2
    phases = {phase["name"]: phase["status"] for phase in done["phases"]}
    assert done["outcome"] == "deployed"
    assert phases == {"prepare": "unchanged", "cleanup": "ok", "migrate": "ok", "verify": "ok"}
    assert done["cleanup"]["archived"] == SURPLUS
    assert query(school, DIGEST.format("enrolments")) == kept
    (rule,) = {row[0] for row in query(school, INDEXES)} - {row[0] for row in indexes}
    assert "UNIQUE INDEX" in rule
    assert "(user_id, course_id) WHERE (status = 'active'::text)" in rule
    page = (tmp_path / "artifacts/school/latest/report.md").read_text()
    assert "two inserts of one key at once, both refused by" in page
    assert "every instance" not in page
    assert "Prisma" not in page
    assert list((tmp_path / "inventories/school/group_vars/school/school").glob("*")), "the backup that pg_dump made"

    again = play("deploy.yml", *plan)
    assert (again.code, again.changed, report(tmp_path)["outcome"]) == (0, 0, "unchanged"), again.output
    assert query(school, DIGEST.format("enrolments")) == kept

    green = play("monitor.yml", "-e", f"plan={PLAN}")
    assert green.code == 0, green.output
    monitored = json.loads((tmp_path / f"artifacts/school/monitor/{PLAN}/monitor.json").read_text())
    assert (monitored["findings"], monitored["duplicates"]) == ([], 0)

    back = play("rollback.yml", *plan)
    assert (back.code, report(tmp_path)["outcome"]) == (0, "rolled_back"), back.output
    assert (digests(school), query(school, INDEXES)) == (before, indexes)


def test_a_phase_that_stops_takes_the_database_back(
    play: Callable[..., Run], school: Login, server: Server, tmp_path: Path
) -> None:
    """The way back of a failed run asks no host for an application either."""
    new = ("-e", "new_service_name=school", "-e", "new_service_adapter=none")
    assert play("new_service.yml", *new, "-e", f"new_service_path={tmp_path}/inventories", limit=None).code == 0
    fill_in(tmp_path / "inventories/school/group_vars/school", school, server)
    narrow = ("-e", "discover_table=public.enrolments", "-e", "discover_key=user_id,course_id")
    assert play("discover.yml", *narrow, "-e", "discover_choice=1", "-e", f"discover_plan_id={PLAN}").code == 0
    before, indexes = digests(school), query(school, INDEXES)
    (tmp_path / "hooks").mkdir()
    (tmp_path / "hooks/after_verify.yml").write_text(
        '- {name: Break, ansible.builtin.fail: {msg: "broken on purpose"}}'
    )
    stopped = play("deploy.yml", "-e", f"plan={PLAN}", *BACKED_UP, "-e", "prepare_backup_keep=0")
    assert stopped.code != 0
    assert report(tmp_path)["outcome"] == "rolled_back", stopped.output
    assert (digests(school), query(school, INDEXES)) == (before, indexes)
