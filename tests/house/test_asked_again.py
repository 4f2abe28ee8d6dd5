"""What the reload of a run has just asked each host is asked again only where the run has changed something.

The modules are stand-ins that keep their arguments; what is counted is what the roles start on each host.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
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
    log.write(json.dumps([{name!r}, given]) + "\\n")
print(json.dumps({answer!r}))
"""
RELEASE, OTHER = f"/nowhere.releases/{'a' * 40}", f"/nowhere.releases/{'b' * 40}"
PHASES = (
    {"name": "pm2_reload", "tasks_from": "switch"},
    {"name": "healthcheck"},
)


def calls(directory: Path, reloaded: bool, serves: str, systemd: bool = False, **facts: Any) -> Counter[str]:
    """How often each module was started for each of two hosts, and ``service`` once for both, in both phases."""
    answers: dict[str, dict[str, Any]] = {
        "release_link": {"changed": serves != RELEASE, "previous": serves},
        "pm2_app": {"changed": reloaded, "differed": False, "instances": [], "log_offsets": {"/a.log": {}}},
        "systemd_app": {"changed": reloaded, "differed": reloaded, "instances": [], "log_offsets": {}},
        "service_check": {"changed": False, "checks": [], "told": [], "found": []},
        "traffic_probe": {},
    }
    log, library = directory / "log", directory / "library"
    library.mkdir()
    for name, answer in answers.items():
        (library / name).write_text(STAND_IN.format(python=sys.executable, log=str(log), name=name, answer=answer))
        (library / name).chmod(0o755)
    # It starts nothing on a host: its action runs here.
    stop = STAND_IN.format(python=sys.executable, log=os.devnull, name="stop_unless", answer={"changed": False})
    (library / "stop_unless").write_text(stop)
    (library / "stop_unless").chmod(0o755)
    defaults = yaml.safe_load((ROOT / "inventories/all.yml").read_text())
    login = {"email": "a", "password": "b"}
    variables = {
        **defaults,
        **{"environment_name": "pair", "report_language": "en", "app_path": "/nowhere", "app_url": "http://service"},
        **{"app_instance_url": "http://{{ inventory_hostname }}", "app_user_login": login, "app_admin_login": login},
        "run_host": {"commit": "a" * 40, "wanted": "a" * 40, "release": serves, "wanted_release": RELEASE},
        "run_facts": {
            **{"artifacts_path": str(directory), "faults_before": {}},
            "parts": {"application": True, "systemd": systemd},
        },
        "app_units": [],
        **{"run_token": {"id": "run-2", "number": 2}, "pm2_reload_ended_at": 1.5, **facts},
        **{"ansible_connection": "local", "ansible_python_interpreter": sys.executable},
    }
    tasks = [{"ansible.builtin.include_role": {**phase, "rolespec_validate": False}} for phase in PHASES]
    play = {"hosts": "pair", "gather_facts": False, "tasks": tasks}
    (directory / "play.yml").write_text(json.dumps([play]))
    inventory = {"pair": {"hosts": {"web1": {}, "web2": {}}, "vars": variables}}
    (directory / "hosts.yml").write_text(json.dumps(inventory))
    done = subprocess.run(
        [str(ROOT / ".venv/bin/ansible-playbook"), "-i", "hosts.yml", "play.yml"],
        cwd=directory,
        env={
            **{"PATH": "/usr/bin:/bin", "HOME": str(directory), "ANSIBLE_LIBRARY": str(library)},
            **{"ANSIBLE_ROLES_PATH": str(ROOT / "roles"), "ANSIBLE_FILTER_PLUGINS": str(ROOT / "filter_plugins")},
            "ANSIBLE_LOCALHOST_WARNING": "false",
        },
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    made = [json.loads(line) for line in log.read_text().splitlines()]
    return Counter(name if name != "service_check" else given["base_url"] for name, given in made)


NOTHING = {"pm2_app": 2, "http://web1": 1, "http://web2": 1, "http://service": 1}
AGAIN = {**NOTHING, "http://web1": 2, "http://web2": 2}
UNITS = {"systemd_app": 2, "http://web1": 1, "http://web2": 1, "http://service": 1}


@pytest.mark.parametrize(
    ("reloaded", "serves", "facts", "expected"),
    [
        pytest.param(False, RELEASE, {}, NOTHING, id="nothing to do"),
        pytest.param(True, RELEASE, {}, AGAIN, id="instances were reloaded"),
        pytest.param(False, OTHER, {}, {**AGAIN, "release_link": 2}, id="the link was moved"),
        pytest.param(False, RELEASE, {"migrate_indexes": {"changed": True}}, AGAIN, id="an index was built"),
        pytest.param(False, RELEASE, {"pm2_reload_ended_at": 0}, AGAIN, id="another run has reloaded"),
        pytest.param(False, RELEASE, {"systemd": True}, UNITS, id="nothing to do, under systemd"),
        pytest.param(
            *(True, RELEASE, {"systemd": True}),
            {**UNITS, "systemd_app": 4, "http://web1": 2, "http://web2": 2},
            id="units were restarted, and are to be kept",
        ),
    ],
)
def test_a_host_is_asked_again_where_something_has_changed(
    tmp_path: Path, reloaded: bool, serves: str, facts: dict[str, Any], expected: dict[str, int]
) -> None:
    assert calls(tmp_path, reloaded, serves, **facts) == expected
