"""deploy.yml as AWX, ansible-runner and ansible-navigator start it, on a database without an application.

AWX gives each job a directory, which is /runner in its execution environment: project/ is a checkout of its own,
inventory/hosts a program that prints what AWX has read from the project before, and env/ holds the options, the
variables, the environment and the answer to the question for the vault's password. There it starts ansible-runner, as
is done here without a container.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from at_most_one.postgres.connection import Login

from tests.database.index_tools import query
from tests.support.playbooks import ROOT
from tests.support.postgres import Server

BIN = ROOT / ".venv/bin"
PASSWORD, VAULT = "a secret of the school", "a secret of the vault"
TABLE = """
CREATE TABLE public.enrolments (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, user_id integer NOT NULL, course_id integer NOT NULL,
    status text NOT NULL, created_at timestamptz NOT NULL);
INSERT INTO public.enrolments (user_id, course_id, status, created_at)
    SELECT u, c, 'active', '2025-11-01'::timestamptz + u * interval '1 hour'
    FROM generate_series(1, 40) AS u, generate_series(1, 5) AS c;
INSERT INTO public.enrolments (user_id, course_id, status, created_at)
    SELECT u, 2, 'active', '2025-11-20'::timestamptz + n * interval '1 hour'
    FROM generate_series(1, 4) AS u, generate_series(1, 3) AS n"""
DIGEST = "SELECT count(*), md5(string_agg(t::text, '|' ORDER BY t::text)) FROM public.enrolments AS t"
INDEX = "SELECT count(*) FROM pg_indexes WHERE indexname = 'one_active_enrolment'"
OPENED = "SELECT count(*) FROM pg_namespace WHERE nspname = 'at_most_one'"
LIVE = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
# What AWX sets for each job: the directories of the execution environment stand in front of the project's own.
PLACES = {
    "ANSIBLE_CALLBACK_PLUGINS": "{}/plugins_path:callback_plugins:~/.ansible/plugins:/plugins/callback",
    "ANSIBLE_COLLECTIONS_PATH": "{}/requirements_collections:collections:~/.ansible/collections",
    "ANSIBLE_ROLES_PATH": "{}/requirements_roles:roles:~/.ansible/roles:/usr/share/ansible/roles",
}
_LIBC = ctypes.CDLL(None)
_DROP, _DAC_OVERRIDE = 24, 1  # prctl(2), capabilities(7)


@pytest.fixture
def school(server: Server) -> Iterator[Login]:
    """A database with surplus rows, and a role that owns its table and is no superuser."""
    server.run(f"CREATE ROLE school LOGIN PASSWORD '{PASSWORD}'", "CREATE DATABASE school OWNER school")
    login = replace(server.login, dbname="school", user="school", password=PASSWORD)
    try:
        query(replace(server.login, dbname="school"), "GRANT ALL ON SCHEMA public TO school")
        query(login, TABLE)
        yield login
    finally:
        server.run("DROP DATABASE school WITH (FORCE)", "DROP ROLE school")


def clone(directory: Path, login: Login) -> Path:
    """This repository's files in a directory of their own, with one plan and one inventory more.

    The password is encrypted by itself: of a whole encrypted file AWX cannot read the inventory.
    """
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, listed.split("\0")):
        if not name.startswith("tests/") and os.path.lexists(ROOT / name):
            (directory / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, directory / name, follow_symlinks=False)
    shutil.copy(ROOT / "examples/plans/one-active-enrolment.yml", directory / "plans")
    inventory = directory / "inventories/school"
    variables = inventory / "group_vars/school"
    variables.mkdir(parents=True)
    shutil.copy(ROOT / "inventories/production/target.guard", inventory)
    runner = {"ansible_connection": "local", "ansible_python_interpreter": "{{ ansible_playbook_python }}"}
    (inventory / "hosts.yml").write_text(yaml.safe_dump({"school": {"hosts": {"runner": runner}}}))
    given = {
        **{"environment_name": "school", "app_name": "school", "plan": "one-active-enrolment"},
        **{"app_adapter": "none", "migrate_adapter": "sql", "prepare_gates": ["backup"]},
        **{"prepare_backup_keep": 0, "prepare_backup_path": "/nowhere"},
        **{"database_host": login.host, "database_port": login.port, "database_name": login.dbname},
        **{"database_user": login.user, "database_password": "{{ vault_database_password }}"},
        "run_required_values": ["vault_database_password"],
    }
    (variables / "main.yml").write_text(yaml.safe_dump(given))
    (directory.parent / "vault-password").write_text(VAULT)
    command: list[str | Path] = [BIN / "ansible-vault", "encrypt_string", "--stdin-name", "vault_database_password"]
    command += ["--vault-password-file", directory.parent / "vault-password"]
    done = subprocess.run(command, cwd=directory, input=PASSWORD, capture_output=True, text=True, check=True)
    (variables / "secrets.yml").write_text(f"---\n{done.stdout}")
    return directory


def printed_inventory(project: Path) -> str:
    """The inventory of a job: a program that prints what was read from the project, without the vault's password."""
    directory = project / "inventories/school"
    command: list[str | Path] = [BIN / "ansible-inventory", "--list", "--export", "-i", directory]
    command += ["--playbook-dir", directory]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert PASSWORD not in done.stdout
    read = json.loads(done.stdout)
    known = {"remote_tower_enabled": "true", "remote_tower_id": 1}
    hosts = {name: {**read["_meta"]["hostvars"].get(name, {}), **known} for name in read["school"]["hosts"]}
    content = json.dumps({**read, "_meta": {"hostvars": hosts}})
    return f"#! /usr/bin/env python3\n# -*- coding: utf-8 -*-\nprint({content!r})\n"


@dataclass(frozen=True)
class Job:
    """A job that has ended, in its directory."""

    code: int
    directory: Path

    @property
    def output(self) -> str:
        return (self.directory / "artifacts/7/stdout").read_text()

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(path.read_text()) for path in (self.directory / "artifacts/7/job_events").glob("*.json")]


def as_anybody() -> None:
    """In a child: root may write anywhere, unless it lacks this one capability."""
    _LIBC.prctl(_DROP, _DAC_OVERRIDE, 0, 0, 0)


def started(directory: Path, login: Login, playbook: str, given: Mapping[str, Any], *, read_only: bool = False) -> Job:
    """One job of AWX, from its checkout to its end."""
    project = clone(directory / "project", login)
    for name in ("inventory", "env"):
        (directory / name).mkdir()
    (directory / "inventory/hosts").write_text(printed_inventory(project))
    (directory / "inventory/hosts").chmod(0o700)
    launched = {"awx_job_id": 7, "awx_job_launch_type": "manual", "awx_user_name": "minji"}
    places = {name: place.format(directory) for name, place in PLACES.items()}
    files = {
        "extravars": yaml.safe_dump({**given, **launched}),
        "envvars": yaml.safe_dump({"JOB_ID": "7", "ANSIBLE_STDOUT_CALLBACK": "phases", **places}),
        "settings": yaml.safe_dump({"idle_timeout": 600, "pexpect_timeout": 5}),
        "passwords": yaml.safe_dump({r"Vault password:\s*?$": VAULT}),
        "cmdline": "-u root --ask-vault-pass -l school",
    }
    for name, text in files.items():
        (directory / "env" / name).write_text(text)
    environment = {"PATH": f"{BIN}:{os.environ['PATH']}", "HOME": str(directory.parent), "LC_ALL": "C.UTF-8"}
    directories = [project, *(path for path in project.rglob("*") if path.is_dir() and not path.is_symlink())]
    for place in directories if read_only else ():
        place.chmod(0o555)
    try:
        if read_only:
            touched = subprocess.run(["touch", project / "x"], capture_output=True, preexec_fn=as_anybody, check=False)
            assert touched.returncode != 0
        done = subprocess.run(
            [BIN / "ansible-runner", "run", directory, "-p", playbook, "--ident", "7"],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            preexec_fn=as_anybody if read_only else None,
            check=False,
        )
    finally:
        for place in directories:
            place.chmod(0o755)
    return Job(done.returncode, directory)


def texts(*roots: Path) -> dict[str, str]:
    return {str(path): path.read_text(errors="replace") for root in roots for path in root.rglob("*") if path.is_file()}


def report(artifacts: Path) -> dict[str, Any]:
    """report.json of the newest run."""
    written: dict[str, Any] = json.loads((artifacts / "school/latest/report.json").read_text())
    return written


def test_jobs_of_awx_deploy_from_a_read_only_checkout_and_take_back_from_another_one(
    school: Login, tmp_path: Path
) -> None:
    """Each has a checkout of its own, which goes with it: the journal knows, and reports are where they stay."""
    before, kept = query(school, DIGEST), tmp_path / "kept"
    kept.mkdir()
    backed_up = {"prepare_backup_taken_at": datetime.now(UTC).isoformat(), "at_most_one_artifacts": str(kept)}

    first = started(tmp_path / "1", school, "deploy.yml", backed_up, read_only=True)
    assert first.code == 0, first.output
    assert [(first.directory / "artifacts/7" / name).read_text() for name in ("rc", "status")] == ["0", "successful"]
    assert query(school, INDEX) == [(1,)]
    done = report(kept)
    assert (done["outcome"], done["cleanup"]["archived"], done["who"]) == ("deployed", 12, "minji")
    assert not (first.directory / "project/artifacts").exists()
    (ended,) = [event for event in first.events if event["event"] == "playbook_on_stats"]
    assert (ended["job_id"], ended["event_data"]["failures"]) == (7, {})
    lines = first.output.splitlines()
    assert any("✔ 배포 완료" in line for line in lines), "in the language of the inventory"
    assert any(f"{kept}/school/{done['run_id']}/report.html" in line for line in lines)
    assert not set(LIVE) & set(first.output)

    again = started(tmp_path / "2", school, "deploy.yml", backed_up)
    assert (again.code, report(kept)["outcome"]) == (0, "unchanged"), again.output

    back = started(tmp_path / "3", school, "rollback.yml", {})
    assert back.code == 0, back.output
    assert report(back.directory / "project/artifacts")["outcome"] == "rolled_back"
    assert (query(school, DIGEST), query(school, INDEX)) == (before, [(0,)])

    artifacts = [job.directory / "artifacts" for job in (first, again, back)]
    seen = texts(kept, *artifacts, back.directory / "project/artifacts")
    assert [path for path, text in seen.items() if PASSWORD in text or VAULT in text] == []


def test_a_job_that_could_keep_no_report_opens_no_run(school: Login, tmp_path: Path) -> None:
    given = {"prepare_backup_taken_at": datetime.now(UTC).isoformat(), "report_language": "en"}
    refused = started(tmp_path / "1", school, "deploy.yml", given, read_only=True)
    assert refused.code != 0
    said = " ".join(refused.output.split())
    assert f"{refused.directory}/project cannot be written to" in said, refused.output
    assert "AMO-2389" in said
    assert "-e at_most_one_artifacts=<directory>" in said
    assert query(school, OPENED) == [(0,)]


# The same run as ansible-runner's, by a program in front of it that few use without its container.
@pytest.mark.thorough
def test_ansible_navigator_deploys_without_its_container(school: Login, tmp_path: Path) -> None:
    project = clone(tmp_path / "project", school)
    given = {"prepare_backup_taken_at": datetime.now(UTC).isoformat(), "report_language": "en"}
    command: list[str | Path] = [BIN / "ansible-navigator", "run", "deploy.yml", "--ee", "false", "--mode", "stdout"]
    command += ["--pae", "false", "--lf", tmp_path / "log", "-i", "inventories/school", "-l", "school"]
    command += ["--vault-password-file", tmp_path / "vault-password", "-e", json.dumps(given)]
    environment = {"PATH": f"{BIN}:{os.environ['PATH']}", "HOME": str(tmp_path), "LC_ALL": "C.UTF-8"}
    done = subprocess.run(
        command,
        cwd=project,
        env={**environment, "ANSIBLE_STDOUT_CALLBACK": "phases", "ANSIBLE_COLLECTIONS_PATH": str(ROOT / "collections")},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert report(project / "artifacts")["outcome"] == "deployed"
    assert query(school, INDEX) == [(1,)]
    assert "✔ Deployed" in done.stdout
    assert not set(LIVE) & set(done.stdout)
    seen = {"output": done.stdout + done.stderr, **texts(project / "artifacts")}
    assert [path for path, text in seen.items() if PASSWORD in text or VAULT in text] == []
