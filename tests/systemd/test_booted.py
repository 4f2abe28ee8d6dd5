"""The units of a systemd that has booted: switched behind nginx without a lost request, failed, taken back, refused."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.ports import wait_until
from tests.systemd.conftest import Machine

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples/systemd"
OLD, NEW, BROKEN = "a" * 40, "b" * 40, "c" * 40
UNITS = yaml.safe_load((EXAMPLE / "service.yml").read_text())["app_units"]
NAMES = [unit["name"] for unit in UNITS]
# The unit of the example, with a server of Python in the place of Next.js, and the account of these tests.
REPLACED = {
    "User=deploy\n": "",
    "/usr/bin/node node_modules/next/dist/bin/next start --hostname 127.0.0.1 --port %i": (
        f"{sys.executable} server.py %i"
    ),
    "RestartSec=1\n": "RestartSec=100ms\n",
    "multi-user.target": "at-most-one.target",
}
ASKING = """
import sys, time, urllib.request
asked = lost = 0
until = time.monotonic() + float(sys.argv[1])
while time.monotonic() < until:
    asked += 1
    try:
        urllib.request.urlopen("http://127.0.0.1:8080/", timeout=5).read()
    except Exception as failure:
        lost += 1
        print(failure, file=sys.stderr)
    time.sleep(0.01)
print(asked, lost)
"""


def release(machine: Machine, commit: str, **behaviour: Any) -> str:
    path = f"/srv/shop.releases/{commit}"
    machine.write(f"{path}/behaviour.json", json.dumps({"commit": commit, **behaviour}))
    shutil.copy(ROOT / "tests/support/unit_server.py", machine.root / path.lstrip("/") / "server.py")
    return path


def link(machine: Machine, path: str) -> None:
    machine.run("ln", "-sfn", path, "/srv/.next")
    machine.run("mv", "-T", "/srv/.next", "/srv/shop")


def shown(machine: Machine, name: str) -> str:
    return machine.run("systemctl", "show", "--property=MainPID", "--value", name).strip()


def directories(machine: Machine) -> list[str]:
    return [machine.run("readlink", f"/proc/{shown(machine, name)}/cwd").strip() for name in NAMES]


@pytest.fixture
def site(machine: Machine) -> Iterator[Machine]:
    """Both units serve the old release, behind the proxy of the example."""
    text = (EXAMPLE / "shop@.service").read_text()
    for old, new in REPLACED.items():
        assert old in text
        text = text.replace(old, new)
    machine.write("/etc/systemd/system/shop@.service", text)
    link(machine, release(machine, OLD))
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "enable", *NAMES)
    machine.run("systemctl", "reset-failed")
    machine.run("systemctl", "restart", *NAMES)
    http = "http { access_log off; include /etc/nginx-shop.conf; }"
    machine.write("/etc/nginx-shop.conf", (EXAMPLE / "nginx.conf").read_text())
    machine.write("/etc/nginx-test.conf", f"daemon off; pid /run/nginx-test.pid; user root; events {{}} {http}")
    ask = (sys.executable, "-c", ASKING, "0.001")
    proxy = subprocess.Popen([*machine.inside, "nginx", "-c", "/etc/nginx-test.conf"], stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: machine.run(*ask, check=False).split() == ["1", "0"], 30, "the proxy does not answer")
        time.sleep(1)  # only then a unit counts as proven
        yield machine
    finally:
        machine.run("nginx", "-c", "/etc/nginx-test.conf", "-s", "stop")
        proxy.wait(30)


def arguments(path: str, **changes: Any) -> dict[str, Any]:
    return {
        **{"name": "shop", "units": UNITS, "path": "/srv/shop", "state": "restarted", "release_path": path},
        **{"stable_s": 1, "instance_timeout_s": 15},
        "probe": {"path": "/", "build": Path(path).name, "build_header": "x-app-commit", "pid_header": "x-app-pid"},
        **changes,
    }


def test_a_release_is_switched_without_a_lost_request(site: Machine, module: Callable[..., dict[str, Any]]) -> None:
    new = release(site, NEW)
    before = [shown(site, name) for name in NAMES]
    predicted = module("systemd_app", arguments(new), check=True)
    assert [one["pm_id"] for one in predicted["instances"]] == NAMES
    link(site, new)
    users = subprocess.Popen([*site.inside, sys.executable, "-c", ASKING, "8"], stdout=subprocess.PIPE, text=True)
    done = module("systemd_app", arguments(new))
    assert done["changed"], done
    assert [str(one["old_pid"]) for one in done["instances"]] == before
    asked, lost = map(int, users.communicate(timeout=60)[0].split())
    assert asked > 200
    assert lost == 0
    assert directories(site) == [new] * 2
    assert not module("systemd_app", arguments(new))["changed"]
    assert not module("systemd_app", arguments(new, state="kept"))["changed"]


def test_a_release_that_crashes_again_and_again_is_taken_back(
    site: Machine, module: Callable[..., dict[str, Any]]
) -> None:
    broken, second = release(site, BROKEN, fault="crash at boot"), shown(site, NAMES[1])
    link(site, broken)
    failed = module("systemd_app", arguments(broken))
    assert failed["details"]["failed"]["cause"] == "crashed", failed
    assert failed["details"]["failed"]["isolated"]
    assert "Its log says: Error: boot: postgresql://***@db.example/app" in failed["msg"]
    assert "s3cret" not in json.dumps(failed)
    assert shown(site, NAMES[1]) == second

    old = f"/srv/shop.releases/{OLD}"
    link(site, old)
    # As often as systemd starts a unit at most within its interval: it would refuse to start it once more.
    for _attempt in range(12):
        site.run("systemctl", "start", NAMES[0], check=False)
        site.run("systemctl", "stop", NAMES[0])
    assert site.run("systemctl", "is-failed", NAMES[0], check=False).strip() == "failed"
    back = module("systemd_app", arguments(old))
    assert [one["pm_id"] for one in back["instances"]] == NAMES[:1], back
    assert directories(site) == [old] * 2
    assert shown(site, NAMES[1]) == second


def test_a_unit_that_no_reboot_brings_back_or_that_starts_elsewhere_is_refused(
    site: Machine, module: Callable[..., dict[str, Any]]
) -> None:
    asked = {"name": "shop", "units": UNITS, "path": "/srv/shop"}
    found = module("systemd_app_info", asked)["instances"]
    assert [(one["pm_id"], one["status"], one["enabled"]) for one in found] == [
        (name, "online", "enabled") for name in NAMES
    ]
    site.run("systemctl", "disable", NAMES[1])
    assert f"A reboot would not bring back {NAMES[1]}" in module("systemd_app_info", asked)["msg"]
    site.run("systemctl", "enable", NAMES[1])

    file = site.root / "etc/systemd/system/shop@.service"
    file.write_text(file.read_text().replace("=/srv/shop\n", f"=-/srv/shop.releases/{OLD}\n"))
    assert "warnings" in module("systemd_app", arguments(f"/srv/shop.releases/{OLD}")), "systemd has not read it yet"
    site.run("systemctl", "daemon-reload")
    refused = module("systemd_app_info", asked)
    assert f"would start {NAMES[0]} in /srv/shop.releases/{OLD}, whatever /srv/shop leads to" in refused["msg"]
    nobody = [{"name": "nobody.service", "url": "http://127.0.0.1:1"}]
    assert "it is not-found" in module("systemd_app_info", {**asked, "units": [*nobody, *UNITS]})["msg"]
