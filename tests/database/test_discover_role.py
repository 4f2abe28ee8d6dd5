"""discover.yml against the lab's database: what people read, the files that it writes, and that it overwrites none."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from at_most_one.plan import parse
from at_most_one.postgres.connection import Login

from tests.database.index_tools import query
from tests.database.test_discovery import lab as lab  # fixtures
from tests.database.test_discovery import lab_template as lab_template
from tests.support.playbooks import ROOT, Run, run_playbook

ID = "one-valid-record"


@pytest.fixture
def play(tmp_path: Path, lab: Login) -> Callable[..., Run]:
    """Runs a playbook, with a project's directory of its own for what it writes; there is no plan yet."""
    inventory = tmp_path / "inventory"
    inventory.mkdir()
    shutil.copy(ROOT / "inventories/local/target.guard", inventory)
    variables = {
        **{"environment_name": "found", "ansible_connection": "local", "app_name": "aedpics", "app_path": "/nowhere"},
        **{"ansible_python_interpreter": "{{ ansible_playbook_python }}", "app_url": "http://127.0.0.1:9"},
        **{"database_host": lab.host, "database_port": lab.port, "database_name": lab.dbname},
        **{"database_user": lab.user, "database_password": lab.password, "plan": "no-plan-yet"},
        **{"report_language": "en"},
    }
    (inventory / "hosts.yml").write_text(json.dumps({"found": {"hosts": {"here": variables}}}))

    def run(playbook: str, *arguments: str) -> Run:
        project = ("-e", f"project_path={tmp_path}")
        return run_playbook(playbook, *project, *arguments, limit="found", inventory=str(inventory))

    return run


def test_it_shows_and_with_a_choice_writes_what_the_plans_reader_accepts(
    play: Callable[..., Run], tmp_path: Path, lab: Login
) -> None:
    shown = play("discover.yml")
    assert (shown.code, shown.changed) == (0, 0), shown.output
    assert query(lab, "SELECT nspname FROM pg_namespace WHERE nspname = 'at_most_one'") == []
    assert not (tmp_path / "plans").exists()
    output = " ".join(shown.output.split())
    assert "aedpics.inspections: at most one row per equipment_serial, inspection_date where overall_status" in output
    assert "10 keys with duplicates, 25 surplus rows, of 36 rows under the condition" in output
    assert "aedpics.inspection_photos (inspection_photos_inspection_id_fkey, ON DELETE CASCADE)" in output
    next_step = "-e discover_choice=1 -e discover_plan_id=one-inspections-per-equipment-serial-inspection-date"
    assert next_step in output

    choice = ("-e", "discover_choice=1", "-e", f"discover_plan_id={ID}", "-e", "report_language=ko")
    narrow = ("-e", "discover_table=aedpics.inspections", "-e", "discover_key=inspector_id,inspection_date")
    checked = play("discover.yml", *narrow, *choice, "--check", "--diff")
    assert checked.code == 0, checked.output
    assert "aedpics.inspections: inspector_id, inspection_date별 최대 1행" in " ".join(checked.output.split())
    assert "equipment_serial" not in checked.output
    assert "작성할 파일" in checked.output
    assert not (tmp_path / "plans").exists()

    written = play("discover.yml", *choice)
    assert written.code == 0, written.output
    plan = parse(yaml.safe_load((tmp_path / f"plans/{ID}.yml").read_text()))
    assert (plan.id, plan.key, plan.expected.rows) == (ID, ("equipment_serial", "inspection_date"), 12)
    files = sorted(str(path.relative_to(tmp_path)) for path in (tmp_path / "plans").rglob("*") if path.is_file())
    assert files == [
        f"plans/{ID}.yml",
        f"plans/{ID}/prisma/migrations/{plan.migration}/migration.sql",
        f"plans/{ID}/schema.prisma.txt",
    ]
    assert f"deploy.yml -i {tmp_path}/inventory -l found" in written.output
    assert f"-e plan={ID} --check --diff" in written.output

    content = {name: (tmp_path / name).read_bytes() for name in files}
    again = play("discover.yml", *choice)
    assert again.code != 0
    assert f"plans/{ID}.yml or plans/{ID}/ exists already" in " ".join(again.failures)
    assert {name: (tmp_path / name).read_bytes() for name in files} == content
