"""What tests that walk a page of docs/ share: a database with an owner of its own, and a project on this machine."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml
from at_most_one.postgres.connection import Login

from tests.database.index_tools import query
from tests.support.playbooks import ROOT, Run, run_playbook
from tests.support.postgres import Server

# Of the rule in examples/plans.
DIGEST = "SELECT count(*), md5(string_agg(t::text, '|' ORDER BY t::text)) FROM public.enrolments AS t"
INDEX = "SELECT count(*) FROM pg_indexes WHERE indexname = 'one_active_enrolment'"


@contextmanager
def owned_database(server: Server, name: str, password: str) -> Iterator[Login]:
    """A database of this name, and a role of the same name that owns its tables and is no superuser."""
    server.run(f"CREATE ROLE {name} LOGIN PASSWORD '{password}'", f"CREATE DATABASE {name} OWNER {name}")
    try:
        query(replace(server.login, dbname=name), f"GRANT ALL ON SCHEMA public TO {name}")
        yield replace(server.login, dbname=name, user=name, password=password)
    finally:
        server.run(f"DROP DATABASE {name} WITH (FORCE)", f"DROP ROLE {name}")


def project(directory: Path, login: Login, server: Server, **settings: Any) -> Callable[..., Run]:
    """A project with the plans of examples/ and the settings of a page; what runs a playbook on its database runner.

    Environment, application and database have one name.
    """
    name = login.dbname
    shutil.copytree(ROOT / "examples/plans", directory / "plans")
    inventory = directory / "inventories" / name
    variables = inventory / "group_vars" / name
    variables.mkdir(parents=True)
    shutil.copy(ROOT / "inventories/production/target.guard", inventory)
    runner = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
    (inventory / "hosts.yml").write_text(yaml.safe_dump({name: {"hosts": {"runner": runner}}}))
    given = {
        **{"environment_name": name, "plan": "one-active-enrolment", "report_language": "en", "app_name": name},
        **{"database_host": login.host, "database_port": login.port, "database_name": name},
        **{"database_user": login.user, "database_password": "{{ vault_database_password }}"},
        **{"prepare_gates": ["backup"], "prepare_backup_path": str(directory / "backups")},
        "app_environment_path": str(server.binaries),  # pg_dump
        "prepare_backup_taken_at": datetime.now(UTC).isoformat(),
        **settings,
    }
    (variables / "main.yml").write_text(yaml.safe_dump(given))
    (variables / "vault.yml").write_text(yaml.safe_dump({"vault_database_password": login.password}))

    def run(playbook: str, *arguments: str) -> Run:
        return run_playbook(
            playbook, "-e", f"project_path={directory}", *arguments, limit=name, inventory=str(inventory)
        )

    return run


def report(directory: Path) -> dict[str, Any]:
    """report.json of the newest run in a project of one environment."""
    (path,) = directory.glob("artifacts/*/latest/report.json")
    written: dict[str, Any] = json.loads(path.read_text())
    return written
