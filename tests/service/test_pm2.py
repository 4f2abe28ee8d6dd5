"""Real PM2, real instances, real crashes: what the reload proves, refuses and leaves behind."""

from __future__ import annotations

import os
import pwd
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from at_most_one.errors import OperatorError
from at_most_one.pm2 import client, lifecycle, reload
from at_most_one.service import traffic_probe
from at_most_one.system.processes import working_directory

from tests.service.conftest import App
from tests.support.ports import wait_until

RunModule = Callable[..., dict[str, Any]]


class Traffic:
    """A prober in this process, for the length of a ``with`` block; then its receipt."""

    def __init__(self, url: str, rate_per_s: float) -> None:
        target = traffic_probe.Target("app", url, "GET", (200,))
        self.settings = traffic_probe.Settings((target,), rate_per_s, timeout_s=3, build_header="x-app-commit")
        self.samples: list[traffic_probe.Sample] = []
        self._stop = threading.Event()
        self._started = time.monotonic()
        self._thread = threading.Thread(
            target=traffic_probe.probe, args=(self.settings, self._stop, self.samples, self._started)
        )

    def __enter__(self) -> Traffic:
        self._thread.start()
        return self

    def wait_for(self, requests: int) -> None:
        wait_until(lambda: len(self.samples) >= requests, 120, f"the prober has not sent {requests} requests")

    def __exit__(self, *_: object) -> None:
        ended = time.monotonic()
        self._stop.set()
        self._thread.join()
        self.receipt = traffic_probe.summarise(self.samples, self.settings, self._started, ended, time.time())


def directories(app: App) -> list[str | None]:
    return [working_directory(one.pid) for one in app.instances()]


def test_healthy_release_reaches_every_instance_and_a_second_time_changes_nothing(app: App) -> None:
    old, new = app.release("a" * 40), app.release("b" * 40)
    app.start(old)
    before = app.instances()
    app.link(new)

    # In check mode the same instances are named and none is touched.
    predicted = reload.reload(app.pm2, app.aim(new), check=True)
    assert predicted["changed"]
    assert [one["pm_id"] for one in predicted["instances"]] == [one.pm_id for one in before]
    assert app.instances() == before

    with Traffic(app.url, 100) as users:
        done = reload.reload(app.pm2, app.aim(new))
    after = app.instances()
    assert done["changed"]
    assert done["instances"] == [
        {"pm_id": was.pm_id, "old_pid": was.pid, "new_pid": now.pid} for was, now in zip(before, after, strict=True)
    ]
    assert not {one.pid for one in before} & {one.pid for one in after}
    assert directories(app) == [str(new)] * 2
    assert set(done["log_offsets"]) == {path for one in before for path in (one.out_log, one.err_log)}
    assert users.receipt["failures_by_kind"] == {}
    assert list(users.receipt["builds"]) == [old.name, new.name]
    assert users.receipt["last_old_answer"] is not None

    again = reload.reload(app.pm2, app.aim(new))
    assert not again["changed"]
    assert again["unchanged"] == [one.pm_id for one in after]
    assert app.instances() == after


def test_crash_at_boot_loses_no_request_and_the_way_back_loses_none(app: App) -> None:
    old, broken = app.release("a" * 40), app.release("b" * 40, fault="crash at boot")
    app.start(old)
    first, second = app.instances()

    with Traffic(app.url, 250) as users:
        users.wait_for(200)
        app.link(broken)
        with pytest.raises(OperatorError) as stopped:
            reload.reload(app.pm2, app.aim(broken))
        # The sibling has not been touched and serves alone; the crashing one is kept from taking requests.
        assert app.instances()[1] == second
        assert app.instances()[0].status == "stopped"
        app.link(old)
        back = reload.reload(app.pm2, app.aim(old), only=[*stopped.value.details["reloaded"], first.pm_id])
        users.wait_for(2_200)

    failed = stopped.value.details["failed"]
    assert (failed["pm_id"], failed["cause"], failed["isolated"]) == (first.pm_id, "crashed", True)
    assert stopped.value.details["reloaded"] == []
    assert stopped.value.details["serving"] == [second.pm_id]
    assert any("has no such column" in line for line in failed["error_lines"]), failed
    assert "postgresql://***@db.example/app" in "\n".join(failed["error_lines"])
    assert "s3cret" not in f"{stopped.value} {stopped.value.details}"
    assert "Error: boot:" in str(stopped.value)

    assert [one["pm_id"] for one in back["instances"]] == [first.pm_id]
    assert directories(app) == [str(old)] * 2
    assert all(one.online for one in app.instances())
    assert users.receipt["requests"] >= 2_000
    assert users.receipt["failures_by_kind"] == {}
    assert list(users.receipt["builds"]) == [old.name]


def test_the_whole_reload_of_pm2_would_have_lost_requests(app: App) -> None:
    """The control: the same crash through `pm2 reload NAME`, which says that all is well."""
    old, broken = app.release("a" * 40), app.release("b" * 40, fault="crash at boot")
    app.start(old)
    with Traffic(app.url, 100) as users:
        users.wait_for(20)
        app.link(broken)
        done = client.run(app.pm2, "reload", app.name)
        users.wait_for(len(users.samples) + 50)
    assert done.returncode == 0
    assert users.receipt["failures"] > 0


def test_crash_after_boot_is_found_out(app: App) -> None:
    old, broken = app.release("a" * 40), app.release("b" * 40, fault="crash after boot")
    app.start(old)
    app.link(broken)
    with pytest.raises(OperatorError) as stopped:
        reload.reload(app.pm2, app.aim(broken))
    assert stopped.value.details["failed"]["cause"] == "crashed"
    assert any("the first timer fired" in line for line in stopped.value.details["failed"]["error_lines"])
    assert working_directory(app.instances()[1].pid) == str(old)


def test_an_instance_that_answers_with_another_build_stops_the_rest(app: App) -> None:
    """A release directory that holds another commit than its name says."""
    old, new = app.release("a" * 40), app.release("b" * 40, answers="c" * 40)
    app.start(old)
    app.link(new)
    with pytest.raises(OperatorError, match="wrong_build") as stopped:
        reload.reload(app.pm2, app.aim(new))
    failed = stopped.value.details["failed"]
    assert (failed["cause"], failed["isolated"]) == ("wrong_build", False)
    assert directories(app) == [str(new), str(old)]


def test_what_cannot_be_reloaded_one_by_one_is_refused_untouched(app: App) -> None:
    old, new = app.release("a" * 40), app.release("b" * 40)
    three = app.release("3" * 40, instances=3)
    other_script = app.release("5" * 40, script="behaviour.json")
    app.start(old)
    before = app.instances()

    def refusal(release: Path, **changes: Any) -> str:
        with pytest.raises(OperatorError) as refused:
            reload.reload(app.pm2, app.aim(release, **changes))
        assert app.instances() == before
        return refused.value.seen

    assert "leads to" in refusal(new)  # the link still leads to the old release
    assert "is 7.0.4" in refusal(old, min_version="7.1.0")
    assert "has 2 instances" in refusal(old, min_instances=3)
    app.link(three)
    assert "the ecosystem file says 3" in refusal(three)
    app.link(other_script)
    assert "PM2 runs " in refusal(other_script)

    stranger = replace(app.aim(old), demand=replace(app.aim(old).demand, name="nobody"))
    with pytest.raises(OperatorError, match=rf"has no application nobody; it runs .*{app.name}"):
        reload.reload(app.pm2, stranger)
    with pytest.raises(OperatorError, match="has no instances 7"):
        reload.reload(app.pm2, app.aim(three), only=[7], check=True)


def boot(app: App, run_module: RunModule, release: Path) -> str:
    """What prepare's look at a release that nothing leads to yet ends with; a release that passes it does not boot."""
    command = [sys.executable, "-c", "", "{port}"]
    arguments = {"release_path": str(release), "command": command, "url": app.url, "timeout_s": 2}
    return str(run_module("release_boot", {**app.module_arguments(), **arguments})["seen"])


DEFINITIONS: dict[str, tuple[dict[str, Any], str]] = {
    "the same": ({}, "does not boot: it ended with exit code 0"),
    "instances": ({"instances": 3}, "the ecosystem file says 3"),
    "script": ({"script": "next.cjs"}, "next.cjs."),
    "arguments": ({"app": {"args": "--more"}}, "PM2 holds other args"),
    "name": ({"name": "another"}, "declares no application"),
}


@pytest.mark.parametrize("changed", [*DEFINITIONS])
def test_a_definition_that_no_reload_applies_is_refused_before_the_switch(
    app: App, run_module: RunModule, changed: str
) -> None:
    behaviour, seen = DEFINITIONS[changed]
    old, new = app.release("a" * 40), app.release("b" * 40, **behaviour)
    app.start(old)
    before = app.instances()
    assert seen in boot(app, run_module, new)
    assert app.instances() == before


def test_a_file_that_names_its_own_directory_declares_the_same_script(app: App, run_module: RunModule) -> None:
    """`cwd: __dirname`: PM2 knows the path of the first start, in place; the next file says its own."""
    next_release = app.path.with_name(f"{app.path.name}.releases") / ("b" * 40)
    app.release("a" * 40).rename(app.path)
    client.run(app.pm2, "start", str(app.path / "ecosystem.config.cjs"), "--only", app.name)
    assert len(app.instances()) == 2
    assert "does not boot" in boot(app, run_module, app.release("b" * 40, cwd=str(next_release)))


def test_fork_mode_is_refused(app: App) -> None:
    release = app.release("a" * 40, exec_mode="fork", instances=1)
    app.start(release)
    with pytest.raises(OperatorError, match="run in fork mode"):
        reload.reload(app.pm2, app.aim(release))


def test_a_path_that_pm2_froze_to_one_release_is_refused(app: App, run_module: RunModule) -> None:
    old, new = app.release("a" * 40, cwd=None), app.release("b" * 40, cwd=None)
    app.link(old)
    client.run(app.pm2, "start", "ecosystem.config.cjs", cwd=str(app.path))  # from inside the link, as people do
    asked = run_module("pm2_app_info", app.module_arguments())
    assert "PM2 would start instances" in asked["seen"], "as prepare asks, with the link as it was"
    app.link(new)
    before = app.instances()
    with pytest.raises(OperatorError, match=r"PM2 would start instances .* whatever .* leads to"):
        reload.reload(app.pm2, app.aim(new))
    assert app.instances() == before


def test_an_application_in_a_directory_of_its_repository_goes_forward_and_back(app: App) -> None:
    behaviour = {"cwd": str(app.path / "web"), "script": "../server.cjs"}
    old, new = app.release("a" * 40, **behaviour), app.release("b" * 40, **behaviour)
    for release in (old, new):
        (release / "web").mkdir()
    app.start(old)
    for release in (new, old):
        app.link(release)
        assert reload.reload(app.pm2, app.aim(release))["changed"]
        assert directories(app) == [str(release / "web")] * 2


def test_start_keeps_the_link_and_is_done_once(app: App) -> None:
    release = app.release("a" * 40, cwd=None)
    app.link(release)
    assert lifecycle.start(app.pm2, app.aim(release), check=True)
    assert not app.instances()
    assert lifecycle.start(app.pm2, app.aim(release))
    assert [one.pm_cwd for one in app.instances()] == [str(app.path)] * 2
    assert not lifecycle.start(app.pm2, app.aim(release))

    assert lifecycle.save(app.pm2, app.name, check=True)
    assert lifecycle.save(app.pm2, app.name)
    assert not lifecycle.save(app.pm2, app.name)


def test_start_tells_why_nothing_came_up(app: App) -> None:
    release = app.release("a" * 40, fault="crash at boot")
    app.link(release)
    with pytest.raises(OperatorError, match="did not come up") as stopped:
        lifecycle.start(app.pm2, app.aim(release))
    assert any("has no such column" in line for line in stopped.value.details["failed"]["error_lines"])


def test_asking_starts_no_daemon(pm2_executable: str, tmp_path: Path) -> None:
    nobody = client.Pm2(pm2_executable, str(tmp_path))
    assert client.listing(nobody, "app") == client.Listing(None)
    assert list(tmp_path.iterdir()) == []


def test_the_daemon_of_another_user_is_refused_by_name(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    app.start(app.release("a" * 40))
    owner = pwd.getpwuid(os.geteuid()).pw_name
    monkeypatch.setattr(os, "geteuid", lambda: 65_000)
    with pytest.raises(OperatorError, match=f"belongs to {owner}; this task runs as 65000"):
        client.listing(app.pm2, app.name)


def test_module_predicts_reloads_and_keeps_secrets(app: App, run_module: RunModule) -> None:
    old, new = app.release("a" * 40), app.release("b" * 40)
    app.start(old)
    app.link(new)
    arguments = {
        **app.module_arguments(),
        "state": "reloaded",
        "release_path": str(new),
        "stable_s": 0.5,
        "probe": {"url": app.url, "build": new.name, "build_json_key": "commit", "build_header": ""},
    }
    predicted = run_module("pm2_app", arguments, check=True)
    assert predicted["changed"]
    assert str(old) in predicted["diff"]["before"]
    assert str(new) in predicted["diff"]["after"]
    assert directories(app) == [str(old)] * 2

    assert run_module("pm2_app", arguments)["changed"]
    assert directories(app) == [str(new)] * 2
    time.sleep(0.6)  # an instance counts as proven once it has been up for stable_s
    assert not run_module("pm2_app", arguments)["changed"]
    for check in (True, False):
        saved = run_module("pm2_app", {**arguments, "save": True}, check=check)
        assert (saved["changed"], saved["differed"], saved["instances"]) == (True, True, [])
    assert not run_module("pm2_app", {**arguments, "save": True})["changed"], "a reboot brings back what runs"

    queried = run_module("pm2_app_info", app.module_arguments())
    assert queried["version"] == queried["executable_version"] == "7.0.4"
    assert [one["cwd"] for one in queried["instances"]] == [str(new)] * 2
    assert "never in a result" not in str(queried)

    missing = run_module("pm2_app_info", {**app.module_arguments(), "name": "nobody"})
    assert "has no application nobody" in missing["seen"]
    assert not run_module("pm2_app_info", {**app.module_arguments(), "name": "nobody", "fail": False})["instances"]
