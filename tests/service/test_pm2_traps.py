"""What PM2 keeps to itself: old variables, old arguments, workers in no list, somebody else's reload."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from at_most_one.errors import OperatorError
from at_most_one.http.client import NoAnswer, fetch
from at_most_one.pm2 import client, lifecycle, preflight, reload
from at_most_one.pm2.ecosystem import differs
from at_most_one.system.processes import start_ticks, working_directory

from tests.service.conftest import App
from tests.support.ports import free_port, listens, wait_until

# In PM2's daemon itself: a child that it does not list, as a reload of PM2 before 7.0.4 could leave one behind.
ORPHAN = """
if (/Daemon\\.js$/.test(process.argv[1] || "")) {
  const { spawn } = require("node:child_process");
  spawn("sleep", ["300"], { cwd: process.env.ORPHAN_CWD, stdio: "ignore" });
}
"""


def patient(app: App, release: Path) -> preflight.Aim:
    aim = app.aim(release)
    return replace(aim, demand=replace(aim.demand, instance_timeout_s=40))


def up_for(instance: client.Instance) -> float:
    """Seconds since PM2 has started it."""
    return time.time() - instance.started_ms / 1000


def colours(app: App) -> set[str | None]:
    return {fetch("GET", app.url, timeout_s=5).header("x-app-colour") for _ in range(8)}


def test_a_variable_that_the_release_declares_anew_reaches_the_instances(app: App) -> None:
    """`pm2 reload` alone keeps the old value, and hides a new variable until the next cold start."""
    old, new = app.release("a" * 40), app.release("b" * 40, env={"COLOUR": "blue, s3cret"})
    app.start(old)
    app.link(new)
    client.run(app.pm2, "reload", app.name)
    assert colours(app) == {"none"}  # the trap: both instances run the new release without its variable

    done = reload.reload(app.pm2, patient(app, new))
    assert done["changed"]
    assert done["environment"] == ["COLOUR"]
    assert "s3cret" not in str(done)
    assert colours(app) == {"blue, s3cret"}
    assert [working_directory(one.pid) for one in app.instances()] == [str(new)] * 2


def test_a_variable_that_only_the_newer_release_declared_is_gone_after_going_back(app: App) -> None:
    """`pm2 reload --update-env` only adds and overwrites: the variable stays, also in the dump, until a cold start.

    What the application got from its first start stays, and no request is lost.
    """
    old = app.release("a" * 40, env={"LEVEL": 3, "STRICT": True})
    new = app.release("b" * 40, env={"COLOUR": "blue, s3cret", "LEVEL": 4, "STRICT": True})
    app.link(old)
    command = [app.pm2.executable, "start", str(app.path / "ecosystem.config.cjs"), "--only", app.name]
    first_start = {**app.pm2.environment(), "GIVEN": "at the first start"}
    subprocess.run(command, env=first_start, stdout=subprocess.DEVNULL, check=True)
    app.link(new)
    reload.reload(app.pm2, patient(app, new))
    lifecycle.save(app.pm2, app.name)
    assert colours(app) == {"blue, s3cret"}

    app.link(old)
    environment = {**app.pm2.environment(), "LEVEL": "3"}
    pid = app.instances()[0].pm_id
    subprocess.run([app.pm2.executable, "reload", str(pid), "--update-env"], env=environment, check=True)
    assert colours(app) == {"blue, s3cret"}  # the trap: it runs the old release with the new one's variable

    with asked(app) as answers:
        done = reload.reload(app.pm2, patient(app, old))
    assert (done["environment"], done["environment_removed"]) == (["LEVEL"], ["COLOUR"])
    assert "s3cret" not in str(done)
    assert colours(app) == {"none"}
    assert set(answers) == {200}
    for one in app.instances():
        started = Path(f"/proc/{one.pid}/environ").read_text()
        assert "COLOUR" not in started
        assert "at the first start" in started
    assert lifecycle.save(app.pm2, app.name), "what was saved has the variable, although every directory is the same"
    assert not lifecycle.save(app.pm2, app.name)
    assert "COLOUR" not in Path(app.pm2.home, "dump.pm2").read_text()
    assert not reload.reload(app.pm2, patient(app, old))["changed"]

    for request in ("kill", "resurrect"):  # as a reboot does it
        client.run(app.pm2, request)
    wait_until(lambda: listens("127.0.0.1", app.port), why="nothing listens after PM2 has come back")
    assert colours(app) == {"none"}
    assert not lifecycle.save(app.pm2, app.name), "nothing but PM2's own variables differs from what is saved"


def test_a_variable_that_somebody_set_by_hand_stays(app: App) -> None:
    """It is nobody's who declares it, although another release's file declares one of that name."""
    old, new = app.release("a" * 40), app.release("b" * 40, env={"COLOUR": "blue"})
    app.start(old)
    by_hand = {**app.pm2.environment(), "COLOUR": "green"}
    subprocess.run([app.pm2.executable, "reload", app.name, "--update-env"], env=by_hand, check=True)
    assert new.is_dir()
    aim = patient(app, old)
    wait_until(lambda: all(up_for(one) >= aim.demand.stable_s for one in client.listing(app.pm2, app.name).instances))
    assert not reload.reload(app.pm2, aim)["changed"]
    assert colours(app) == {"green"}


@contextlib.contextmanager
def asked(app: App) -> Iterator[list[int | str]]:
    """The statuses of requests that are made one after the other, each on a new connection, while the block runs."""
    answers: list[int | str] = []
    over = threading.Event()

    def ask() -> None:
        while not over.is_set():
            try:
                answers.append(fetch("GET", app.url, timeout_s=10).status)
            except NoAnswer as lost:
                answers.append(str(lost))

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield answers
    finally:
        over.set()
        thread.join()


@pytest.mark.parametrize("key", ["args", "node_args"])
def test_arguments_that_changed_are_refused(app: App, key: str) -> None:
    old, new = app.release("a" * 40), app.release("b" * 40, app={key: "--no-warnings"})
    app.start(old)
    before = app.instances()
    app.link(new)
    with pytest.raises(OperatorError, match=f"PM2 holds other {key} ") as refused:
        reload.reload(app.pm2, patient(app, new))
    assert f"cd {app.path} && pm2 delete" in refused.value.next_step
    assert app.instances() == before


def test_a_block_that_was_chosen_at_the_start_is_not_overwritten(app: App) -> None:
    """`pm2 start --env production`: PM2 does not say which block it was, so no declared value may replace another."""
    blocks: dict[str, Any] = {"env": {"COLOUR": "grey"}, "app": {"env_production": {"COLOUR": "red"}}}
    old, new = app.release("a" * 40, **blocks), app.release("b" * 40, **blocks)
    other = app.release("c" * 40, env={"COLOUR": "grey"}, app={"env_production": {"COLOUR": "green"}})
    app.link(old)
    client.run(app.pm2, "start", str(app.path / "ecosystem.config.cjs"), "--env", "production")
    app.link(new)
    assert preflight.preflight(app.pm2, patient(app, new), linked=True).outdated == {}
    app.link(other)
    with pytest.raises(OperatorError, match="PM2 holds values for COLOUR that no env block"):
        reload.reload(app.pm2, patient(app, other))
    assert colours(app) == {"red"}


@pytest.mark.parametrize(
    ("held", "want", "arguments", "variables"),
    [
        ({"args": ["start", "-p", "3000"]}, {"args": "start -p 3000"}, (), ()),
        ({"args": ["a b"]}, {"args": '"a b"'}, (), ()),
        ({"args": ["start"]}, {}, ("args",), ()),
        ({}, {"node_args": ["--inspect"]}, ("node_args",), ()),
        ({"env": {"PORT": "3000", "PATH": "/bin"}}, {"env": {"PORT": 3000}}, (), ()),
        ({"env": {"PORT": "3000"}}, {"env": {"PORT": 3001, "NEW": ""}}, (), ("NEW", "PORT")),
        ({"env": {"A": "2"}}, {"env": {"A": "1"}, "more": [{"A": "2"}]}, (), ()),
    ],
)
def test_where_pm2_differs_from_the_file(
    held: dict[str, Any], want: dict[str, Any], arguments: tuple[str, ...], variables: tuple[str, ...]
) -> None:
    found = differs(held, want)
    assert (found.arguments, found.variables) == (arguments, variables)


def test_a_single_instance_is_refused(app: App) -> None:
    release = app.release("a" * 40, instances=1)
    app.start(release)
    with pytest.raises(OperatorError, match="has 1 instance\\.") as refused:
        reload.reload(app.pm2, patient(app, release))
    assert "set instances: 2" in refused.value.next_step


def test_somebody_elses_reload_is_waited_for_and_named_when_it_takes_too_long(app: App) -> None:
    app.start(app.release("a" * 40, app={"listen_timeout": 30_000}))
    slow, new = app.release("b" * 40, boot_ms=8_000), app.release("c" * 40)
    app.link(slow)
    environment = app.pm2.environment()
    with subprocess.Popen(
        [app.pm2.executable, "reload", app.name], env=environment, stdout=subprocess.DEVNULL
    ) as somebody:
        deadline = time.monotonic() + 20
        before = client.listing(app.pm2, app.name)
        while not preflight.orphans(before, str(app.path)) and time.monotonic() < deadline:
            time.sleep(0.1)
            before = client.listing(app.pm2, app.name)
        hasty = replace(app.aim(slow), demand=replace(app.aim(slow).demand, instance_timeout_s=0))
        with pytest.raises(OperatorError, match=r"A reload of .* is under way: PM2 still holds pid \d+ in .*a{40}"):
            reload.reload(app.pm2, hasty)
        app.link(new)
        reload.reload(app.pm2, patient(app, new))
        somebody.wait(timeout=60)
    assert [working_directory(one.pid) for one in app.instances()] == [str(new)] * 2


def test_somebody_elses_reload_between_two_instances_is_waited_for(app: App) -> None:
    """No worker is outside the list at that moment: only PM2's lock tells that instance 1 is restarted next."""
    app.start(app.release("a" * 40))
    new = app.release("b" * 40)
    app.link(new)
    lock = Path(app.pm2.home, "reload.lock")
    lock.write_text(str(int(time.time() * 1000)))

    def the_other() -> None:
        client.run(app.pm2, "reload", "1", "--force")
        lock.write_text("")

    with ThreadPoolExecutor(1) as somebody:
        rest = somebody.submit(the_other)
        result = reload.reload(app.pm2, patient(app, new))
        rest.result()
    assert [working_directory(one.pid) for one in app.instances()] == [str(new)] * 2
    assert 0 in [one["pm_id"] for one in result["instances"]]


def test_what_does_not_run_is_not_saved_for_the_next_boot(app: App) -> None:
    app.start(app.release("a" * 40))
    client.run(app.pm2, "stop", str(app.instances()[0].pm_id))
    with pytest.raises(OperatorError, match="are not online"):
        lifecycle.save(app.pm2, app.name)
    assert not Path(app.pm2.home, "dump.pm2").exists() or app.name not in Path(app.pm2.home, "dump.pm2").read_text()


@pytest.fixture
def app_with_an_orphan(pm2_executable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[App]:
    """An application under a daemon of its own that has a child in no list."""
    home = tempfile.mkdtemp(prefix="amo-")
    made = App(client.Pm2(pm2_executable, home), "haunted", free_port(), tmp_path / "app")
    release = made.release("a" * 40)
    made.link(release)
    hook = tmp_path / "orphan.cjs"
    hook.write_text(ORPHAN)
    monkeypatch.setenv("NODE_OPTIONS", f"--require {hook}")
    monkeypatch.setenv("ORPHAN_CWD", str(release))
    client.run(made.pm2, "ping")
    monkeypatch.undo()
    try:
        made.start(made.release("b" * 40))
        yield made
    finally:
        daemon = client.daemon_of(made.pm2)
        for pid in preflight.orphans(client.listing(made.pm2, made.name), str(made.path)):
            os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(OperatorError):
            client.run(made.pm2, "kill")
        if daemon and start_ticks(daemon.pid):
            os.kill(daemon.pid, signal.SIGTERM)
        shutil.rmtree(home, ignore_errors=True)


def test_a_worker_in_no_list_is_named_with_its_pid(app_with_an_orphan: App) -> None:
    app = app_with_an_orphan
    before = app.instances()
    with pytest.raises(OperatorError, match=r"a child that is in no list and works in .*a{40}: pid") as refused:
        reload.reload(app.pm2, patient(app, app.path.resolve()))
    (orphan,) = refused.value.details["unlisted"]
    assert orphan not in [one.pid for one in before]
    assert f"kill -INT {orphan}" in refused.value.next_step
    os.kill(orphan, signal.SIGINT)
    reload.reload(app.pm2, patient(app, app.path.resolve()))
