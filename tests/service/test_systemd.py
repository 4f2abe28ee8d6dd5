"""Units restarted one by one: real processes, real answers, real crashes. systemctl is a stand-in that keeps them."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from at_most_one.errors import OperatorError
from at_most_one.http.proof import Demand
from at_most_one.http.served_build import Probe, ask
from at_most_one.system import run_token
from at_most_one.system.processes import working_directory
from at_most_one.systemd import client, proof, restart
from at_most_one.systemd.client import State, Systemd, Unit
from at_most_one.systemd.preflight import Aim

from tests.support.ports import free_port, wait_until

RunModule = Callable[..., dict[str, Any]]
ROOT = Path(__file__).resolve().parents[2]
OLD, NEW = "a" * 40, "b" * 40
STABLE_S = 0.8


@dataclass(frozen=True)
class App:
    """An application behind a link, its releases, and its two units."""

    home: Path  # of the stand-in
    path: Path
    units: tuple[Unit, ...]

    @property
    def releases(self) -> Path:
        return self.path.with_name("app.releases")

    @property
    def systemd(self) -> Systemd:
        stand_in = (sys.executable, str(ROOT / "tests/service/systemd_stand_in.py"))
        return Systemd(
            self.units,
            systemctl=(*stand_in, "systemctl", str(self.home)),
            journalctl=(*stand_in, "journalctl", str(self.home)),
        )

    def release(self, commit: str, **behaviour: Any) -> Path:
        """Make a release. ``fault``: crash at boot, crash after boot, silent; ``answers``: the build that it names."""
        directory = self.releases / commit
        directory.mkdir(parents=True)
        shutil.copy(ROOT / "tests/support/unit_server.py", directory / "server.py")
        (directory / "behaviour.json").write_text(json.dumps({"commit": commit, **behaviour}))
        return directory

    def link(self, release: Path) -> None:
        fresh = self.path.with_name("app.new")
        fresh.symlink_to(release)
        fresh.rename(self.path)

    def say(self, unit: Unit, **said: Any) -> None:
        """Change what the stand-in says of a unit, or does with it."""
        file = self.home / f"{unit.name}.json"
        known = json.loads(file.read_text()) if file.exists() else {"pid": 0, "directory": str(self.path)}
        file.write_text(json.dumps({**known, "port": int(unit.url.rpartition(":")[2]), **said}))

    def start(self, release: Path) -> None:
        self.link(release)
        for unit in self.units:
            self.say(unit)
            client.restart(self.systemd, client.state(self.systemd, unit), 10)
        wait_until(lambda: all(ask(Probe(unit.url)).problem is None for unit in self.units), 20)
        time.sleep(STABLE_S)  # only then a unit counts as proven

    def aim(self, release: Path, **changes: Any) -> Aim:
        probe = Probe("", build=release.name, build_header="x-app-commit", pid_header="x-app-pid", timeout_s=1)
        demand = Demand("app", str(release), changes.pop("probe", probe), instance_timeout_s=8, stable_s=STABLE_S)
        return Aim(demand, str(self.path), **changes)

    def states(self) -> tuple[State, ...]:
        return client.states(self.systemd)

    def processes(self) -> list[tuple[int, int | None]]:
        return [one.process for one in self.states()]

    def directories(self) -> list[str | None]:
        return [working_directory(one.pid) for one in self.states()]

    def told(self) -> list[str]:
        """What systemctl was told, beside the questions."""
        return [call for call in (self.home / "calls").read_text().splitlines() if not call.startswith("show ")]

    def module_arguments(self) -> dict[str, Any]:
        """The options that every call of a module has."""
        return {
            "name": "app",
            "path": str(self.path),
            "units": [{"name": unit.name, "url": f"{unit.url}/"} for unit in self.units],
            "systemctl": [*self.systemd.systemctl],
            "journalctl": [*self.systemd.journalctl],
        }


@pytest.fixture
def app(tmp_path: Path) -> Iterator[App]:
    """An application of which nothing is released or started yet."""
    home = tmp_path / "systemd"
    home.mkdir()
    ports = {free_port() for _ in range(8)}
    units = tuple(Unit(f"app@{port}.service", f"http://127.0.0.1:{port}") for port in sorted(ports)[:2])
    made = App(home, tmp_path / "app", units)
    yield made
    for unit in units:
        if (home / f"{unit.name}.json").exists():
            made.say(unit, denied=False)
            client.stop(made.systemd, unit, 10)


class Users:
    """Users behind a proxy that goes on to the next unit where one does not answer: who got no answer from any."""

    def __init__(self, app: App) -> None:
        self.app, self.asked, self.lost = app, 0, 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._ask)

    def _ask(self) -> None:
        probes = [Probe(unit.url, timeout_s=1) for unit in self.app.units]
        while not self._stop.is_set():
            self.asked += 1
            self.lost += not any(ask(probe).problem is None for probe in probes)

    def __enter__(self) -> Users:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


def test_a_healthy_release_reaches_every_unit_and_a_second_time_changes_nothing(app: App) -> None:
    old, new = app.release(OLD), app.release(NEW)
    app.start(old)
    before = app.states()
    app.link(new)
    told = app.told()

    predicted = restart.restart(app.systemd, app.aim(new), check=True)
    assert predicted["changed"]
    assert [one["pm_id"] for one in predicted["instances"]] == [unit.name for unit in app.units]
    assert (app.states(), app.told()) == (before, told), "check mode tells systemd nothing"

    with Users(app) as users:
        done = restart.restart(app.systemd, app.aim(new))
    after = app.states()
    assert done["changed"]
    assert done["instances"] == [
        {"pm_id": was.name, "old_pid": was.pid, "new_pid": now.pid} for was, now in zip(before, after, strict=True)
    ]
    assert not {one.pid for one in before} & {one.pid for one in after}
    assert app.directories() == [str(new)] * 2
    assert app.told() == [*told, *(f"restart {unit.name}" for unit in app.units)]
    assert users.asked > 20
    assert users.lost == 0

    again = restart.restart(app.systemd, app.aim(new))
    assert (again["changed"], again["instances"]) == (False, [])
    assert again["unchanged"] == [unit.name for unit in app.units]
    assert app.states() == after


def test_a_crash_at_boot_stops_the_rest_and_the_way_back_touches_that_unit_alone(app: App) -> None:
    old, broken = app.release(OLD), app.release(NEW, fault="crash at boot")
    app.start(old)
    first, second = app.states()
    with Users(app) as users:
        app.link(broken)
        with pytest.raises(OperatorError) as stopped:
            restart.restart(app.systemd, app.aim(broken))
        assert app.states()[1] == second, "the other one was not touched"
        app.link(old)
        back = restart.restart(app.systemd, app.aim(old))
    assert users.lost == 0

    details = stopped.value.details
    assert (details["failed"]["pm_id"], details["failed"]["cause"]) == (first.name, "crashed")
    assert details["failed"]["isolated"]
    assert (details["reloaded"], details["serving"]) == ([], [second.name])
    assert "Its log says: Error: boot:" in stopped.value.seen
    assert "postgresql://***@db.example/app" in "\n".join(details["failed"]["error_lines"])
    assert "s3cret" not in f"{stopped.value} {details}"
    assert f"{second.name} serve." in stopped.value.next_step

    assert [one["pm_id"] for one in back["instances"]] == [first.name]
    assert app.directories() == [str(old)] * 2
    assert app.states()[1] == second


@pytest.mark.parametrize(
    ("behaviour", "cause"),
    [
        ({"fault": "crash after boot"}, "crashed"),
        ({"fault": "silent"}, "no_answer"),
        ({"answers": "c" * 40}, "wrong_build"),
    ],
)
def test_what_is_not_provably_new_is_found_out(app: App, behaviour: dict[str, str], cause: str) -> None:
    old, broken = app.release(OLD), app.release(NEW, **behaviour)
    app.start(old)
    second = app.states()[1]
    app.link(broken)
    short = app.aim(broken)
    with pytest.raises(OperatorError) as stopped:
        restart.restart(app.systemd, replace(short, demand=replace(short.demand, instance_timeout_s=3)))
    failed = stopped.value.details["failed"]
    assert (failed["cause"], failed["isolated"]) == (cause, cause != "wrong_build")
    assert app.states()[1] == second
    # One that is wrong and answers goes on answering: stopped are those that keep users waiting.
    assert app.states()[0].online == (cause == "wrong_build")


def test_a_unit_that_systemd_starts_again_and_again_has_crashed(app: App) -> None:
    old, broken = app.release(OLD), app.release(NEW, fault="crash at boot")
    app.start(old)
    app.say(app.units[0], always=True, limit=3)
    app.link(broken)
    began = time.monotonic()
    with pytest.raises(OperatorError, match=r"\(crashed\)"):
        restart.restart(app.systemd, app.aim(broken))
    assert time.monotonic() - began < 6, "its time was not waited for"
    assert app.told()[-1] == f"stop {app.units[0].name}", "and it is not started again"

    app.link(old)  # systemd would not start it any more: it was started too often
    assert restart.restart(app.systemd, app.aim(old))["instances"][0]["pm_id"] == app.units[0].name
    assert app.directories() == [str(old)] * 2


def test_the_second_unit_that_fails_takes_the_first_one_back_with_it(app: App) -> None:
    old, new = app.release(OLD), app.release(NEW)
    app.start(old)
    app.link(new)
    app.say(app.units[1], denied=True)
    with pytest.raises(OperatorError) as stopped:
        restart.restart(app.systemd, app.aim(new))
    details = stopped.value.details
    assert (details["failed"]["cause"], details["failed"]["isolated"]) == ("refused", False)
    assert stopped.value.seen.endswith("Access denied."), "and nothing of the log of a unit that goes on"
    assert details["reloaded"] == [app.units[0].name]
    assert app.directories() == [str(new), str(old)]

    app.say(app.units[1], denied=False)
    app.link(old)
    back = restart.restart(app.systemd, app.aim(old))
    assert [one["pm_id"] for one in back["instances"]] == [app.units[0].name]
    assert app.directories() == [str(old)] * 2


def test_what_is_down_goes_first(app: App) -> None:
    old, new = app.release(OLD), app.release(NEW)
    app.start(old)
    client.stop(app.systemd, app.units[1], 10)
    app.link(new)
    done = restart.restart(app.systemd, app.aim(new))
    assert [one["pm_id"] for one in done["instances"]] == [app.units[1].name, app.units[0].name]
    assert done["instances"][0]["old_pid"] == 0
    assert app.directories() == [str(new)] * 2


def test_two_are_never_down_at_once(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first unit ends right after it was proven: the second one, which alone serves by then, is left alone."""
    old, new = app.release(OLD), app.release(NEW)
    app.start(old)
    second = app.states()[1]
    app.link(new)
    prove = proof.prove

    def proven_and_killed(systemd: Systemd, demand: Demand, before: State) -> State:
        after = prove(systemd, demand, before)
        os.kill(after.pid, signal.SIGKILL)
        return after

    monkeypatch.setattr(restart, "prove", proven_and_killed)
    with pytest.raises(OperatorError, match=rf"not restarted: {app.units[0].name} does not serve meanwhile"):
        restart.restart(app.systemd, app.aim(new))
    assert app.states()[1] == second


def test_one_unit_alone_is_restarted_only_where_that_is_said(app: App) -> None:
    old, new = app.release(OLD), app.release(NEW)
    app.start(old)
    app.link(new)
    alone = replace(app, units=app.units[:1])
    with pytest.raises(OperatorError, match="app_units of app is a list of 1"):
        restart.restart(alone.systemd, alone.aim(new))
    assert alone.directories() == [str(old)]
    assert restart.restart(alone.systemd, alone.aim(new, min_units=1))["changed"]
    assert alone.directories() == [str(new)]


def test_what_cannot_be_restarted_one_by_one_is_refused_untouched(app: App) -> None:
    old, new = app.release(OLD), app.release(NEW)
    app.start(old)
    before, told = app.states(), app.told()
    first = app.units[0]

    def refusal(systemd: Systemd = app.systemd, **changes: Any) -> str:
        with pytest.raises(OperatorError) as refused:
            restart.restart(systemd, app.aim(new, **changes))
        return refused.value.seen

    assert f"{app.path} leads to {old}." in refusal()
    app.link(new)
    app.say(first, loaded="masked")
    assert f"systemd cannot run {first.name}: it is masked." in refusal()
    app.say(first, loaded="loaded", directory=str(new))
    assert f"would start {first.name} in {new}, whatever {app.path} leads to" in refusal()
    app.say(first, directory="")
    assert "in no directory of its own" in refusal()
    app.say(first, directory=f"-{app.path}/")  # may be missing, says the unit file
    (app.home / "silent").touch()
    assert "Failed to connect to bus" in refusal()
    (app.home / "silent").unlink()
    assert "cannot be run" in refusal(replace(app.systemd, systemctl=(str(app.home / "none"),)))
    nobody = Unit("nobody.service", "http://127.0.0.1:1")
    assert "it is not-found" in refusal(replace(app.systemd, units=(*app.units, nobody)))
    assert "is a list of 2" in refusal(min_units=3)
    app.say(first, directory=str(app.path))
    assert (app.states(), app.told()) == (before, told)


def test_a_process_that_another_account_runs_is_named(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    old = app.release(OLD)
    app.start(old)
    monkeypatch.setattr("at_most_one.systemd.preflight.working_directory", lambda pid: None)
    with pytest.raises(OperatorError, match=f"may not see in which directory pid {app.states()[0].pid} "):
        restart.restart(app.systemd, app.aim(old))


def test_a_run_that_was_overtaken_restarts_no_further_unit(app: App) -> None:
    old, new = app.release(OLD), app.release(NEW)
    app.start(old)
    second = app.states()[1]
    app.link(new)
    writes: list[None] = []

    @contextlib.contextmanager
    def guard(changed: Any) -> Iterator[None]:
        if len(writes) == 2:  # the first only asks, the second restarts the first unit
            with run_token.guard(run_token.Run("run-42", 42, app.releases))([]):
                pass
        writes.append(None)
        with run_token.guard(run_token.Run("run-41", 41, app.releases))(changed):
            yield

    with pytest.raises(OperatorError) as stopped:
        restart.restart(app.systemd, app.aim(new), guard=guard)
    assert "was overtaken by run run-42 (number 42)" in stopped.value.seen
    assert f"{app.units[0].name} restarted (pid " in stopped.value.seen
    assert app.states()[1] == second


def test_the_modules_predict_restart_and_keep_secrets(app: App, run_module: RunModule) -> None:
    old, new = app.release(OLD), app.release(NEW)
    app.start(old)
    app.link(new)
    arguments = {
        **app.module_arguments(),
        **{"state": "restarted", "release_path": str(new), "stable_s": 0.5},
        "probe": {"path": "/health", "build": NEW, "build_json_key": "commit", "build_header": "", "pid_header": ""},
    }
    predicted = run_module("systemd_app", arguments, check=True)
    assert (predicted["changed"], predicted["differed"]) == (True, True)
    assert str(old) in predicted["diff"]["before"]
    assert str(new) in predicted["diff"]["after"]
    assert app.directories() == [str(old)] * 2

    done = run_module("systemd_app", arguments)
    assert (done["changed"], done["build_proof"], done["log_offsets"]) == (True, "key", {})
    assert app.directories() == [str(new)] * 2
    again = run_module("systemd_app", arguments)
    assert (again["changed"], again["differed"]) == (False, False)
    app.say(app.units[0], outdated="yes")
    assert app.units[0].name in json.dumps(run_module("systemd_app", arguments)["warnings"])

    broken = app.release("c" * 40, fault="crash at boot")
    app.link(broken)
    failed = run_module("systemd_app", {**arguments, "release_path": str(broken)})
    assert "is not provably new (crashed)" in failed["msg"]
    assert "s3cret" not in json.dumps(failed)


def test_the_modules_read_the_units_and_what_a_reboot_brings_back(app: App, run_module: RunModule) -> None:
    old, new = app.release(OLD), app.release(NEW)
    app.start(old)
    asked, given = app.module_arguments(), {**app.module_arguments(), "state": "kept"}
    found = run_module("systemd_app_info", asked)["instances"]
    assert [(one["pm_id"], one["status"], one["cwd"]) for one in found] == [
        (unit.name, "online", str(old)) for unit in app.units
    ]

    kept = {"path": str(app.releases), "keep": 1, "needed": [str(old)]}
    third = app.release("c" * 40)
    os.utime(new, (1, 1))
    predicted = run_module("systemd_app", {**given, "releases": kept}, check=True)
    assert (predicted["changed"], predicted["removed"]) == (True, [str(new)])
    assert new.exists()
    assert run_module("systemd_app", {**given, "releases": kept})["removed"] == [str(new)]
    assert (new.exists(), third.exists()) == (False, True)
    assert not run_module("systemd_app", given)["changed"]

    app.say(app.units[1], enabled="disabled")
    for refused in (run_module("systemd_app_info", asked), run_module("systemd_app", given)):
        assert f"A reboot would not bring back {app.units[1].name}" in refused["seen"]
        assert f"systemctl enable {app.units[1].name}" in refused["next_step"]
    app.say(app.units[1], enabled="static")
    assert f"A reboot would not bring back {app.units[1].name}" in run_module("systemd_app_info", asked)["seen"]
    app.say(app.units[1], wanted="shop.target")
    assert not run_module("systemd_app_info", asked).get("failed"), "an enabled unit starts it"
    client.stop(app.systemd, app.units[0], 10)
    assert "are not active" in run_module("systemd_app", given)["seen"]
    assert run_module("systemd_app_info", {**asked, "fail": False})["instances"][0]["status"] == "inactive"


def test_the_monitor_reads_the_units_of_a_host(app: App, run_module: RunModule) -> None:
    app.start(app.release(OLD))
    given = {name: value for name, value in app.module_arguments().items() if name != "journalctl"}
    found = run_module("monitor_host_info", given)
    assert (found["under"], found["saved"]) == ("systemd", True)
    assert [(one["pm_id"], one["status"], one["cwd"]) for one in found["pm2"]["instances"]] == [
        (unit.name, "online", str(app.releases / OLD)) for unit in app.units
    ]
    app.say(app.units[0], enabled="enabled-runtime")
    assert run_module("monitor_host_info", given)["saved"] is False
    (app.home / "silent").touch()
    unread = run_module("monitor_host_info", given)
    assert not unread.get("failed")
    assert "systemd does not say how the units are" in unread["pm2"]["msg"]
    (app.home / "silent").unlink()
