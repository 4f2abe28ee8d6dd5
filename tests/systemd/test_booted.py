"""The units of a systemd that has booted: switched behind nginx without a lost request, failed, taken back, refused."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.ports import wait_until
from tests.systemd import shop
from tests.systemd.conftest import Machine
from tests.systemd.shop import NAMES, PATH, RELEASES, ROOT, UNITS, Users, directories, pids, served

OLD, NEW, BROKEN = "a" * 40, "b" * 40, "c" * 40
REQUESTS = 10_000  # so many are answered while units are being restarted, and none of them lost
REQUESTS_BESIDE_A_FAULT = 2_000


def release(machine: Machine, commit: str, **behaviour: Any) -> str:
    path = f"{RELEASES}/{commit}"
    machine.write(f"{path}/behaviour.json", json.dumps({"commit": commit, **behaviour}))
    shutil.copy(ROOT / "tests/support/unit_server.py", machine.root / path.lstrip("/") / "server.py")
    return path


def link(machine: Machine, path: str) -> None:
    machine.run("ln", "-sfn", path, "/srv/.next")
    machine.run("mv", "-T", "/srv/.next", PATH)


@pytest.fixture
def site(machine: Machine) -> Iterator[Machine]:
    """Both units serve the old release, behind the proxy of the example."""
    shop.install(machine)
    link(machine, release(machine, OLD))
    with shop.serving(machine):
        time.sleep(1)  # only then a unit counts as proven
        yield machine


def arguments(path: str, **changes: Any) -> dict[str, Any]:
    return {
        **{"name": "shop", "units": UNITS, "path": PATH, "state": "restarted", "release_path": path},
        **{"stable_s": 1, "instance_timeout_s": 15},
        "probe": {"path": "/", "build": Path(path).name, "build_header": "x-app-commit", "pid_header": "x-app-pid"},
        **changes,
    }


def test_releases_are_switched_until_10_000_requests_were_answered_and_none_is_lost(
    site: Machine, module: Callable[..., dict[str, Any]]
) -> None:
    """Nothing but switches goes on meanwhile: each of these requests was asked while a unit was being restarted."""
    old, new = f"{RELEASES}/{OLD}", release(site, NEW)
    predicted = module("systemd_app", arguments(new), check=True)
    assert [one["pm_id"] for one in predicted["instances"]] == NAMES
    assert served(site) == [OLD] * 2
    switches = 0
    with Users(site) as users:
        while switches < 2 or users.counted().total < REQUESTS:
            assert switches < 100, users.counted()
            there, before = (old if switches % 2 else new), pids(site)
            site.run("systemctl", "reset-failed", *NAMES)  # forgets how often they were started within a minute
            link(site, there)
            done = module("systemd_app", arguments(there))
            assert [one["old_pid"] for one in done["instances"]] == before, done
            assert [one["new_pid"] for one in done["instances"]] == pids(site)
            assert not {*before} & {*pids(site)}
            assert served(site) == [Path(there).name] * 2
            assert directories(site) == [there] * 2
            switches += 1
    print(f"{users.end.total} requests answered in {switches} switches; {users.end}")
    assert users.end.lost == {}
    assert users.end.total >= REQUESTS
    assert set(users.end.answered) == {OLD, NEW}
    assert not module("systemd_app", arguments(there))["changed"]
    assert not module("systemd_app", arguments(there, state="kept"))["changed"]


@pytest.mark.parametrize(
    ("fault", "cause"), [("crash at boot", "crashed"), ("crash after boot", "crashed"), ("silent", "no_answer")]
)
def test_a_release_that_does_not_serve_is_taken_back_and_no_request_is_lost(
    site: Machine, module: Callable[..., dict[str, Any]], fault: str, cause: str
) -> None:
    broken, before = release(site, BROKEN, fault=fault), pids(site)
    with Users(site) as users:
        link(site, broken)
        failed = module("systemd_app", arguments(broken, instance_timeout_s=4))
        assert (failed["details"]["failed"]["pm_id"], failed["details"]["failed"]["cause"]) == (NAMES[0], cause), failed
        assert failed["details"]["serving"] == NAMES[1:]
        assert site.run("systemctl", "is-active", NAMES[0], check=False).strip() != "active", "it keeps nobody waiting"
        link(site, f"{RELEASES}/{OLD}")
        back = module("systemd_app", arguments(f"{RELEASES}/{OLD}"))
        assert [one["pm_id"] for one in back["instances"]] == NAMES[:1], back
        wait_until(lambda: users.counted().total >= REQUESTS_BESIDE_A_FAULT, 60, "the users get no answers")
    print(f"{fault}: {users.end}")
    assert users.end.lost == {}
    # Who was sent to a silent unit has waited until that was stopped, and then got the answer of the other one.
    assert users.end.longest_s < 20
    assert served(site) == [OLD] * 2
    assert directories(site) == [f"{RELEASES}/{OLD}"] * 2
    assert pids(site)[1] == before[1], "the other unit was never touched"


def test_a_release_that_crashes_again_and_again_is_taken_back(
    site: Machine, module: Callable[..., dict[str, Any]]
) -> None:
    broken, second = release(site, BROKEN, fault="crash at boot"), pids(site)[1]
    link(site, broken)
    failed = module("systemd_app", arguments(broken))
    assert failed["details"]["failed"]["cause"] == "crashed", failed
    assert failed["details"]["failed"]["isolated"]
    assert "Its log says: Error: boot: postgresql://***@db.example/app" in failed["msg"]
    assert "s3cret" not in json.dumps(failed)
    assert pids(site)[1] == second

    old = f"{RELEASES}/{OLD}"
    link(site, old)
    # As often as systemd starts a unit at most within its interval: it would refuse to start it once more.
    for _attempt in range(12):
        site.run("systemctl", "start", NAMES[0], check=False)
        site.run("systemctl", "stop", NAMES[0])
    assert site.run("systemctl", "is-failed", NAMES[0], check=False).strip() == "failed"
    back = module("systemd_app", arguments(old))
    assert [one["pm_id"] for one in back["instances"]] == NAMES[:1], back
    assert directories(site) == [old] * 2
    assert pids(site)[1] == second


def test_a_unit_that_no_reboot_brings_back_or_that_starts_elsewhere_is_refused(
    site: Machine, module: Callable[..., dict[str, Any]]
) -> None:
    asked = {"name": "shop", "units": UNITS, "path": PATH}
    found = module("systemd_app_info", asked)["instances"]
    assert [(one["pm_id"], one["status"], one["enabled"]) for one in found] == [
        (name, "online", "enabled") for name in NAMES
    ]
    site.run("systemctl", "disable", NAMES[1])
    assert f"A reboot would not bring back {NAMES[1]}" in module("systemd_app_info", asked)["msg"]
    site.run("systemctl", "enable", NAMES[1])

    file = site.root / "etc/systemd/system/shop@.service"
    file.write_text(file.read_text().replace(f"={PATH}\n", f"=-{RELEASES}/{OLD}\n"))
    assert "warnings" in module("systemd_app", arguments(f"{RELEASES}/{OLD}")), "systemd has not read it yet"
    site.run("systemctl", "daemon-reload")
    refused = module("systemd_app_info", asked)
    assert f"would start {NAMES[0]} in {RELEASES}/{OLD}, whatever {PATH} leads to" in refused["msg"]
    nobody = [{"name": "nobody.service", "url": "http://127.0.0.1:1"}]
    assert "it is not-found" in module("systemd_app_info", {**asked, "units": [*nobody, *UNITS]})["msg"]
