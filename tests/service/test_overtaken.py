"""A run that another one has overtaken on a host moves no link, reloads and stops no instance, and builds nothing."""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from at_most_one.errors import OperatorError
from at_most_one.findings import observed, say
from at_most_one.pm2 import lifecycle, reload
from at_most_one.system import run_token

from tests.service.conftest import App

Module = Callable[..., dict[str, Any]]
OLD, NEW = "a" * 40, "b" * 40
BY = "was overtaken by run run-42 (number 42)"


def option(releases: Path, number: int) -> dict[str, Any]:
    return {"id": f"run-{number}", "number": number, "path": str(releases)}


def guard_of(releases: Path, number: int) -> run_token.Guard:
    return run_token.guard(run_token.Run(f"run-{number}", number, releases))


def overtake(releases: Path) -> None:
    with guard_of(releases, 42)([]):
        pass


def picture(directory: Path) -> dict[str, str]:
    """Everything below a directory but the token: files by content, links by where they lead."""
    found = {}
    for path in sorted(directory.rglob("*")):
        if path.is_symlink():
            found[str(path)] = f"-> {path.readlink()}"
        elif path.is_file() and not path.name.startswith(".run."):
            found[str(path)] = path.read_text()
    return found


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A link to a release, with another one beside it; the path of the link."""
    for commit in (OLD, NEW):
        static = tmp_path / "app.releases" / commit / ".next/static"
        static.mkdir(parents=True)
        (static / f"{commit[:1]}.js").write_text(commit)
    (tmp_path / "app").symlink_to(tmp_path / "app.releases" / OLD)
    return tmp_path / "app"


def switch(run_module: Module, site: Path, commit: str, number: int, *, check: bool = False) -> dict[str, Any]:
    releases = site.with_name("app.releases")
    arguments = {"path": str(site), "release": str(releases / commit), "keep_assets_hours": 168}
    return run_module("release_link", {**arguments, "run": option(releases, number)}, check=check)


def test_the_link_follows_later_runs_only(run_module: Module, site: Path) -> None:
    before = picture(site.parent)
    assert switch(run_module, site, NEW, 41, check=True)["changed"]
    assert picture(site.parent) == before
    assert run_token.last_number(site.with_name("app.releases")) == 0, "check mode writes no number down"

    assert switch(run_module, site, NEW, 42)["changed"]
    there = picture(site.parent)
    for check in (False, True):
        refused = switch(run_module, site, OLD, 41, check=check)
        assert refused["failed"], refused
        assert BY in refused["msg"]
        assert refused["details"]["overtaken_by"] == "run-42"
    assert picture(site.parent) == there, "neither the link nor an asset"

    assert not switch(run_module, site, NEW, 42)["changed"], "a second time, by the same run"
    assert switch(run_module, site, OLD, 43)["changed"], "a later run goes back to an earlier one's release"
    assert site.resolve().name == OLD


def test_a_run_that_takes_over_is_the_last_one_before_it_has_moved_anything(run_module: Module, site: Path) -> None:
    releases = site.with_name("app.releases")
    before = picture(site.parent)
    claim = {"state": "claimed", "path": str(site)}
    claimed = run_module("release_link", {**claim, "run": option(releases, 42)})
    assert (claimed["changed"], claimed["previous"]) == (False, str(releases / OLD))
    assert BY in switch(run_module, site, NEW, 41)["msg"]
    assert BY in run_module("release_link", {**claim, "run": option(releases, 41)})["msg"]
    assert picture(site.parent) == before

    run_module("release_link", {**claim, "run": option(releases, 43)}, check=True)
    assert run_token.last_number(releases) == 42, "check mode writes no number down"
    assert "run" in run_module("release_link", claim)["msg"], "of which run?"


def built(run_module: Module, site: Path, number: int, *commands: Sequence[str]) -> dict[str, Any]:
    releases = site.with_name("app.releases")
    (releases / "shared").mkdir(exist_ok=True)
    (releases / "shared/.env").write_text("A=1\n")
    arguments = {
        **{"release": str(releases / NEW), "live": str(site), "releases": str(releases), "shared": [".env"]},
        **{"commands": commands, "needed": [], "keep_assets_hours": 168, "marker": {"commit": NEW}},
    }
    return run_module("release_build", {**arguments, "run": option(releases, number)})


def test_nothing_is_built_for_an_overtaken_run(run_module: Module, site: Path) -> None:
    releases = site.with_name("app.releases")
    overtake(releases)
    refused = built(run_module, site, 41, ["touch", "ran"])
    assert BY in refused["msg"]
    assert not (releases / NEW / "ran").exists()
    assert not (releases / NEW / ".env").is_symlink()


def test_a_build_that_was_overtaken_meanwhile_stays_unfinished(run_module: Module, site: Path) -> None:
    releases = site.with_name("app.releases")
    token = json.dumps({"number": 42, "run_id": "run-42", "written_at": "now"})
    refused = built(run_module, site, 41, ["sh", "-c", f"echo '{token}' > {releases}/.run.json"])
    assert BY in refused["msg"]
    assert f"{releases / NEW} built" in refused["msg"], "what was changed before is said"
    assert not (releases / NEW / ".at-most-one.json").exists(), "without its marker nothing links to it"


def test_nothing_is_fetched_or_unpacked_for_an_overtaken_run(run_module: Module, site: Path) -> None:
    releases, release = site.with_name("app.releases"), site.with_name("app.releases") / ("c" * 40)
    subprocess.run(["git", "init", "-q", str(site)], check=True)
    subprocess.run(["git", "-C", str(site), "remote", "add", "origin", str(site)], check=True)
    overtake(releases)
    run = option(releases, 41)
    source = {"path": str(site), "commit": "c" * 40, "release_path": str(release)}
    packed = {"state": "unpacked", "release": str(release), "live": str(site), "archive": str(site / "none")}
    for name, arguments in (("git_origin", source), ("release_archive", packed)):
        assert BY in run_module(name, {**arguments, "run": run})["msg"], name
    assert not release.exists()


def test_the_number_is_read_with_what_serves(run_module: Module, site: Path) -> None:
    subprocess.run(["git", "init", "-q", str(site)], check=True)
    identity = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
    subprocess.run(["git", "-C", str(site), *identity, "commit", "-q", "--allow-empty", "-m", "one"], check=True)
    releases = site.with_name("app.releases")
    asked = {"path": str(site), "releases": str(releases)}
    assert run_module("git_origin_info", asked)["run_number"] == 0
    overtake(releases)
    assert run_module("git_origin_info", asked)["run_number"] == 42
    (releases / ".run.json").write_text("{")
    broken = run_module("git_origin_info", asked)
    assert f"rm {releases}/.run.json" in broken["next_step"]


def releases_of(app: App) -> Path:
    return app.path.with_name(f"{app.path.name}.releases")


def processes(app: App) -> list[tuple[int, str]]:
    return [(one.pid, one.status) for one in app.instances()]


def overtaken_after(writes: int, releases: Path) -> run_token.Guard:
    """The guard of run 41, and run 42 that writes on the host after that many writes of run 41."""
    done: list[None] = []

    @contextlib.contextmanager
    def guard(changed: Sequence[str]) -> Iterator[None]:
        if len(done) == writes:
            overtake(releases)
        done.append(None)
        with guard_of(releases, 41)(changed):
            yield

    return guard


def test_a_reload_ends_at_the_instance_before_which_it_was_overtaken(run_module: Module, app: App) -> None:
    old, new = app.release(OLD), app.release(NEW)
    app.start(old)
    app.link(new)
    before = processes(app)
    with pytest.raises(OperatorError) as stopped:
        reload.reload(app.pm2, app.aim(new), guard=overtaken_after(2, releases_of(app)))
    first, second = app.instances()
    assert BY in stopped.value.seen
    assert f"instance {first.pm_id} reloaded (pid {before[0][0]} -> {first.pid})" in stopped.value.seen
    assert (second.pid, second.status) == before[1], "the other one was not touched"
    assert first.pid != before[0][0]

    # Its way back is refused as well, and what the later run serves is saved by that one only.
    there = processes(app)
    arguments = {**app.module_arguments(), "run": option(releases_of(app), 41), "probe": {"url": app.url}}
    for asked in (
        {"state": "reloaded", "release_path": str(old)},
        {"state": "reloaded", "release_path": str(old), "save": True, "restore": True, "only": [first.pm_id]},
        {"state": "saved"},
    ):
        assert BY in run_module("pm2_app", {**arguments, **asked})["msg"], asked
    assert processes(app) == there
    assert lifecycle.save(app.pm2, app.name, check=True), "nothing was saved"

    # A later run may bring every instance to the release of an earlier one.
    app.link(old)
    back = {**arguments, "state": "reloaded", "release_path": str(old), "run": option(releases_of(app), 43)}
    assert run_module("pm2_app", back, check=True)["changed"]


def test_an_overtaken_run_stops_no_instance_that_it_could_not_prove(app: App) -> None:
    """The instance that it cannot prove may be the later run's by now."""
    old, broken = app.release(OLD), app.release(NEW, fault="crash after boot")
    app.start(old)
    app.link(broken)
    with pytest.raises(OperatorError) as stopped:
        reload.reload(app.pm2, app.aim(broken), guard=overtaken_after(2, releases_of(app)))
    assert BY in stopped.value.seen
    assert "begun and not proven (crashed)" in stopped.value.seen
    assert "stopped" not in {status for _, status in processes(app)}


def test_an_overtaken_run_that_pm2_does_not_answer_says_what_it_had_begun(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Frozen while it asks PM2, it wakes up after the time that it gives it."""
    old, new = app.release(OLD), app.release(NEW)
    app.start(old)
    app.link(new)

    def prove(*_: object, **__: object) -> None:
        raise OperatorError(observed("AMO-4204", "pm2 jlist did not end."), expected=say("a"), next_step=say("b"))

    monkeypatch.setattr(reload, "prove", prove)
    for guard, words in ((overtaken_after(2, releases_of(app)), (BY, "instance 0 begun and not proven")),
                         (guard_of(releases_of(app), 43), ("pm2 jlist did not end",))):  # fmt: skip
        with pytest.raises(OperatorError) as stopped:
            reload.reload(app.pm2, app.aim(new), guard=guard)
        assert all(word in stopped.value.seen for word in words), stopped.value.seen
