"""While tenants.yml is at a tenant, every command that is named is about it: in each filter, and in what fails."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
SAID = "ansible-playbook rollback.yml -l <environment>"
FAILED = {"failed": True, "msg": f"It stands. Expected: not. Next: {SAID}"}
FILTERS = {
    "fill": "said | at_most_one_fill_commands",
    "command": "'rollback.yml' | at_most_one_command",
    "told": "([{'template': said, 'values': {}}] | at_most_one_told | first).text",
    "error": "[{'ansible_failed_result': failed}] | at_most_one_first_error",
}
SHOWN = {"ansible.builtin.debug": {"msg": " / ".join(f"{name}: {{{{ {how} }}}}" for name, how in FILTERS.items())}}
REFUSED = {"stop_unless": {"that": False, "seen": "It stands.", "expected": "not.", "next_step": SAID}}
PLAY = {
    "hosts": "all",
    "gather_facts": False,
    "vars": {"said": SAID, "failed": FAILED},
    "tasks": [
        {
            "name": "Go through the tenants",
            "ansible.builtin.include_tasks": "tenant.yml",
            "loop": ["eu.shop"],
            "loop_control": {"loop_var": "plan_tenant"},
        }
    ],
}


def test_every_command_is_about_the_tenant(tmp_path: Path) -> None:
    tasks = [{"name": "Show", **SHOWN}, {"name": "Stop", **REFUSED}]
    (tmp_path / "tenant.yml").write_text(json.dumps(tasks))
    (tmp_path / "play.yml").write_text(json.dumps([PLAY]))
    (tmp_path / "hosts.yml").write_text("all: {hosts: {one: {ansible_connection: local, plan: rule}}}\n")
    done = subprocess.run(
        [str(ROOT / ".venv/bin/ansible-playbook"), "-i", "hosts.yml", "-l", "one", "play.yml"],
        cwd=tmp_path,
        env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    printed = " ".join(done.stdout.split())
    assert done.returncode == 2, done.stdout + done.stderr
    whole = f"ansible-playbook rollback.yml -i {tmp_path}/hosts.yml -l one -e plan=rule@eu.shop"
    for name in FILTERS:
        assert f"{name}: {'It stands. Expected: not. Next: ' if name == 'error' else ''}{whole}" in printed
    assert printed.count(f"Next: {whole}") > 1, "what the task that failed prints has it, too"
