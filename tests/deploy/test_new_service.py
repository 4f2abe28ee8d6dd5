"""Somebody who knows nothing of the shipped service: from new_service.yml to a check that shows what would go."""

from __future__ import annotations

import json
import re
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from tests.deploy.conftest import ROOT, Lab, run_playbook

# The check itself is the deployment's: this only shows that the inventory is one.
pytestmark = pytest.mark.thorough

MARKED = re.compile(r'^(\w+): "" # \[fill in\].*$', re.MULTILINE)


def test_a_stranger_reaches_the_check(fresh: Lab, tmp_path: Path) -> None:
    v = fresh.values
    address = ("-e", "new_service_name=stranger", "-e", f"new_service_url={v['app_url']}")
    written = run_playbook("new_service.yml", *address, "-e", f"new_service_path={tmp_path}", limit=None)
    assert written.code == 0, written.output
    values = tmp_path / "stranger/group_vars/stranger"
    marked = {
        **{"plan": "one-active-inspection-session", "app_name": "aedpics", "app_path": v["app_path"]},
        **{"database_name": v["database_name"], "database_user": v["database_user"]},
    }
    service = (values / "service.yml").read_text()
    assert MARKED.findall(service) == list(marked)
    (values / "service.yml").write_text(MARKED.sub(lambda one: f"{one[1]}: {marked[one[1]]}", service))
    vault = {
        **{"vault_host": "127.0.0.1", "vault_user": "nobody", "vault_database_host": v["database_host"]},
        "vault_database_password": v["database_password"],
    }
    (values / "vault.yml").write_text(yaml.safe_dump(vault))
    (values / "this_place.yml").write_text(  # read after service.yml: what is otherwise here than in most places
        yaml.safe_dump(
            {
                **{"ansible_connection": "local", "ansible_python_interpreter": sys.executable},
                **{"app_environment_path": v["path"], "pm2_bin": v["pm2_bin"], "pm2_home": v["pm2_home"]},
                **{"database_port": v["database_port"], "database_sslmode": "prefer", "database_sslrootcert": ""},
            }
        )
    )
    before = fresh.content()
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    check = ("--check", "--diff", "-e", f"prepare_backup_taken_at={now}")

    run = run_playbook("deploy.yml", *check, limit="stranger", inventory=str(tmp_path / "stranger"))
    assert ".env" in " ".join(run.failures), "the lab's application has another file to share"
    shared = ("-e", "{prepare_shared_files: [.env.production]}")
    run = run_playbook("deploy.yml", *check, *shared, limit="stranger", inventory=str(tmp_path / "stranger"))

    assert run.code == 0, run.output
    plan = max((ROOT / "artifacts/stranger").glob("*/cleanup_plan.json"), key=lambda path: path.stat().st_mtime)
    assert json.loads(plan.read_text())["row_count"] == 25
    assert fresh.content() == before
