"""Between two batches of hosts a run is asked once, on the database runner, and only where hosts are to be switched.

The module is a stand-in that keeps its arguments; tests/database/test_run_control.py has what it does.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
STAND_IN = """#!{python}
# WANT_JSON
import json, sys
given = json.loads(open(sys.argv[1]).read())
with open({log!r}, "a") as log:
    log.write(json.dumps([given["run_id"], int(given["hosts_done"]), int(given["hosts"])]) + "\\n")
print(json.dumps({{"changed": False, "waited_s": 0.0}}))
"""
WANTED, BEFORE = f"/nowhere.releases/{'a' * 40}", f"/nowhere.releases/{'b' * 40}"


def asked(directory: Path, serves: list[str], serial: Any, *arguments: str) -> list[list[Any]]:
    """What the module was given in a cutover of hosts that serve these releases."""
    log, library = directory / "log", directory / "library"
    library.mkdir()
    log.touch()
    (library / "run_checkpoint").write_text(STAND_IN.format(python=sys.executable, log=str(log)))
    (library / "run_checkpoint").chmod(0o755)
    variables = {
        **{"database_gateway": "web1", "database_login": {}, "run_facts": {"run_id": "run-2"}},
        **{"ansible_connection": "local", "ansible_python_interpreter": sys.executable},
    }
    hosts = {
        f"web{number}": {"run_host": {"release": release, "wanted_release": WANTED}}
        for number, release in enumerate(serves, 1)
    }
    (directory / "hosts.yml").write_text(json.dumps({"fleet": {"hosts": hosts, "vars": variables}}))
    role = {"name": "pm2_reload", "tasks_from": "checkpoint", "rolespec_validate": False}
    tasks = [{"ansible.builtin.include_role": role}]
    play = {"hosts": "fleet", "gather_facts": False, "serial": serial, "tasks": tasks}
    (directory / "play.yml").write_text(json.dumps([play]))
    done = subprocess.run(
        [str(ROOT / ".venv/bin/ansible-playbook"), "-i", "hosts.yml", "play.yml", *arguments],
        cwd=directory,
        env={
            **{"PATH": "/usr/bin:/bin", "HOME": str(directory), "ANSIBLE_LIBRARY": str(library)},
            **{"ANSIBLE_ROLES_PATH": str(ROOT / "roles"), "ANSIBLE_FILTER_PLUGINS": str(ROOT / "filter_plugins")},
        },
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return [json.loads(line) for line in log.read_text().splitlines()]


@pytest.mark.parametrize(
    ("serves", "serial", "arguments", "expected"),
    [
        pytest.param([BEFORE] * 5, 2, (), [["run-2", 2, 5], ["run-2", 4, 5]], id="once for each batch but the first"),
        pytest.param([BEFORE, WANTED, BEFORE], 1, (), [["run-2", 2, 3]], id="not where nothing is to be switched"),
        pytest.param([WANTED, BEFORE, WANTED, BEFORE], "50%", (), [["run-2", 2, 4]], id="where one of a batch is"),
        pytest.param([WANTED] * 3, 1, (), [], id="nothing to do"),
        pytest.param([BEFORE] * 3, 1, ("--check",), [], id="check mode"),
    ],
)
def test_the_run_is_asked_once_for_each_further_batch_that_is_switched(
    tmp_path: Path, serves: list[str], serial: Any, arguments: tuple[str, ...], expected: list[list[Any]]
) -> None:
    assert asked(tmp_path, serves, serial, *arguments) == expected


def test_a_batch_asks_before_it_touches_anything() -> None:
    tasks = yaml.safe_load((ROOT / "roles/pm2_reload/tasks/main.yml").read_text(encoding="utf-8"))
    assert tasks[0]["ansible.builtin.import_tasks"] == "checkpoint.yml"


def test_the_traffic_probe_outlasts_a_pause_between_two_batches() -> None:
    """One that has ended by itself is begun anew for the next batch, and what it has seen is lost."""
    tasks = yaml.safe_load((ROOT / "roles/pm2_reload/tasks/watch.yml").read_text(encoding="utf-8"))
    (probe,) = [task["traffic_probe"] for task in tasks if "traffic_probe" in task]
    assert probe["max_s"] >= 4 * 3600
