"""Under systemd each role that asks or changes PM2 asks or changes the units in its place, with the same facts."""

from __future__ import annotations

import json
import os
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
given = {{key: value for key, value in json.loads(open(sys.argv[1]).read()).items() if key[:1] != "_"}}
with open({log!r}, "a") as log:
    log.write(json.dumps([{name!r}, given]) + "\\n")
print(json.dumps({{"changed": True, "instances": [{{"pm_id": "shop@3001.service"}}], "differed": True}}))
"""
BEFORE, WANTED = (f"/srv/shop.releases/{commit * 40}" for commit in "ab")
UNITS = [{"name": f"shop@{port}.service", "url": f"http://127.0.0.1:{port}"} for port in (3001, 3002)]
SYSTEMCTL = ["systemctl", "--user"]
WAY = {"name": "web1", "release": BEFORE, "build": "a" * 40}
ROLES: list[tuple[str, str, dict[str, Any]]] = [
    ("prepare", "units", {}),
    ("pm2_reload", "switch", {}),
    ("healthcheck", "units", {}),
    ("rollback", "application", {"rollback_host": WAY}),
    ("run", "units", {}),
]


def called(directory: Path, *, systemd: bool) -> list[tuple[str, dict[str, Any]]]:
    """The modules that the roles have called, and what they were given."""
    log, library = directory / "log", directory / "library"
    library.mkdir()
    for name in ("release_link", "pm2_app", "systemd_app", "systemd_app_info", "service_check"):
        (library / name).write_text(STAND_IN.format(python=sys.executable, log=str(log), name=name))
        (library / name).chmod(0o755)
    variables = {
        **yaml.safe_load((ROOT / "inventories/all.yml").read_text()),
        **{"environment_name": "shop", "app_name": "shop", "app_path": "/srv/shop", "app_url": "http://shop"},
        **{"app_units": UNITS, "app_systemctl": SYSTEMCTL, "app_min_instances": 1},
        **{"rollback_stable_s": 3, "pm2_reload_stable_s": 2, "run_token": {"id": "run-2", "number": 2}},
        "run_facts": {"parts": {"application": True, "systemd": systemd}},
        "run_host": {"commit": "a" * 40, "wanted": "b" * 40, "release": BEFORE, "wanted_release": WANTED},
        **{"ansible_connection": "local", "ansible_python_interpreter": sys.executable},
    }
    tasks = [
        {"ansible.builtin.include_role": {"name": role, "tasks_from": file, "rolespec_validate": False}, "vars": given}
        for role, file, given in ROLES
        if systemd or file != "units"
    ]
    keep = {"content": "{{ rollback_instances | to_json }}", "dest": str(directory / "instances"), "mode": "0600"}
    play = {"hosts": "shop", "gather_facts": False, "tasks": [*tasks, {"ansible.builtin.copy": keep}]}
    (directory / "play.yml").write_text(json.dumps([play]))
    (directory / "hosts.yml").write_text(json.dumps({"shop": {"hosts": {"web1": {}}, "vars": variables}}))
    done = subprocess.run(
        [str(ROOT / ".venv/bin/ansible-playbook"), "-i", "hosts.yml", "play.yml"],
        cwd=directory,
        env={
            **{"PATH": os.environ["PATH"], "HOME": str(directory), "ANSIBLE_LIBRARY": str(library)},
            **{"ANSIBLE_ROLES_PATH": str(ROOT / "roles"), "ANSIBLE_FILTER_PLUGINS": str(ROOT / "filter_plugins")},
        },
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return [(name, given) for name, given in map(json.loads, log.read_text().splitlines())]


def test_each_role_asks_and_changes_the_units(tmp_path: Path) -> None:
    calls = called(tmp_path, systemd=True)
    assert [name for name, _given in calls] == [
        *("systemd_app_info", "release_link", "systemd_app", "systemd_app"),
        *("release_link", "systemd_app", "systemd_app_info"),
    ]
    asked = [given for name, given in calls if name.startswith("systemd_app")]
    assert all((given["units"], given["systemctl"], given["name"]) == (UNITS, SYSTEMCTL, "shop") for given in asked)
    read, forward, kept, back, found = asked
    assert (int(read["min_units"]), read["path"]) == (1, "/srv/shop")
    assert (forward["state"], forward["release_path"], forward["probe"]["build"]) == ("restarted", WANTED, "b" * 40)
    assert (forward["probe"]["path"], int(forward["stable_s"])) == ("/api/health", 2)
    assert (kept["state"], kept["releases"]["needed"]) == ("kept", [WANTED, BEFORE, BEFORE])
    assert (back["state"], back["release_path"], back["probe"]["build"]) == ("restarted", BEFORE, "a" * 40)
    assert found["fail"] is False
    runs = [given["run"] for given in (forward, kept, back)]
    assert runs == [{"id": "run-2", "number": 2, "path": "/srv/shop.releases"}] * 3
    instances = json.loads((tmp_path / "instances").read_text())
    assert instances == [{"pm_id": "shop@3001.service", "host": "web1"}]


@pytest.mark.parametrize("file", ["roles/pm2_reload/tasks/units.yml", "roles/rollback/tasks/units.yml"])
def test_what_proves_a_unit_is_what_proves_an_instance(file: str) -> None:
    (units,) = yaml.safe_load((ROOT / file).read_text())
    (instances,) = yaml.safe_load((ROOT / file.replace("units", "instances")).read_text())
    unit, instance = units["systemd_app"], instances["pm2_app"]
    for name in ("name", "path", "release_path", "instance_timeout_s", "stable_s", "run"):
        assert unit[name] == instance[name]
    assert unit["min_units"] == instance["min_instances"]
    assert {name: value for name, value in unit["probe"].items() if name != "path"} == {
        name: value for name, value in instance["probe"].items() if name != "url"
    }
    for name in ("register", "delegate_to"):
        assert units.get(name) == instances.get(name)


def test_pm2_keeps_its_own_way(tmp_path: Path) -> None:
    names = [name for name, _given in called(tmp_path, systemd=False)]
    assert names == ["release_link", "pm2_app", "release_link", "pm2_app"]
