"""A release is built, required to be whole, and marked, in one call that stops at the first step that fails."""

from __future__ import annotations

import json
import os
import subprocess
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from at_most_one.errors import OperatorError
from at_most_one.release import building, shipping

from tests.support.login import umask

COMMIT = "c" * 40
BUILD = "mkdir -p .next/static .next/server && echo id > .next/BUILD_ID && echo new > .next/static/new.js"
Build = Callable[..., dict[str, Any]]


@pytest.fixture
def release(tmp_path: Path) -> Path:
    """A checkout in the place of a release, beside an application with an asset of its build."""
    (tmp_path / "app/.next/static").mkdir(parents=True)
    (tmp_path / "app/.next/static/old.js").write_text("old")
    release = tmp_path / "app.releases" / COMMIT
    release.mkdir(parents=True)
    return release


@pytest.fixture
def build(release: Path, run_module: Callable[..., dict[str, Any]]) -> Build:
    """Calls the module with these shell scripts as the commands of the build."""

    def run(*scripts: str, check: bool = False, **more: Any) -> dict[str, Any]:
        arguments = {
            "release": str(release),
            "live": str(release.parent.with_name("app")),
            "releases": str(release.parent),
            "commands": [["sh", "-c", script] for script in scripts],
            "needed": [".next/BUILD_ID", ".next/server", ".next/static"],
            "keep_assets_hours": 168,
            "marker": {"commit": COMMIT, "run_id": "run-1"},
        }
        return run_module("release_build", {**arguments, **more}, check=check)

    return run


def order(release: Path, *scripts: str) -> building.Order:
    return building.Order(
        release=release,
        live=release.parent.with_name("app"),
        marker={"commit": COMMIT},
        needed=[".next/BUILD_ID"],
        keep_assets_s=60,
        commands=[["sh", "-c", script] for script in scripts],
    )


def test_the_commands_run_in_order_and_a_second_call_changes_nothing(build: Build, release: Path) -> None:
    assert build("echo one >> log", check=True)["changed"] is True
    assert list(release.iterdir()) == [], "check mode makes nothing"

    made = build("echo one >> log", f"echo two >> log; {BUILD}", with_digest=True)

    assert (made["changed"], made["carried"], made["left"]) == (True, 1, 0)
    assert [one["command"].split()[0] for one in made["commands"]] == ["sh", "sh"]
    assert made["build"]["serves"]["build_id"] == "id"
    assert (release / ".next/static/old.js").read_text() == "old"
    marker = json.loads((release / ".at-most-one.json").read_text())
    assert marker == made["build"]["marker"]
    build_id = sha256(b"id\n").hexdigest()
    digest = shipping.digest(release, [])
    assert marker == {"commit": COMMIT, "run_id": "run-1", "build_id_sha256": build_id, "digest": digest}

    before = {path: path.stat().st_mtime_ns for path in release.rglob("*")}
    for check in (True, False):
        again = build("echo three >> log", check=check)
        assert (again["changed"], again["commands"], again["build"]) == (False, [], made["build"])
    assert {path: path.stat().st_mtime_ns for path in release.rglob("*")} == before
    assert (release / "log").read_text() == "one\ntwo\n"


@pytest.mark.parametrize("mask", [0o000, 0o077])
def test_what_is_built_is_as_open_as_what_serves_whatever_the_umask(build: Build, release: Path, mask: int) -> None:
    """A web server reads its assets, a unit may have an account of its own; and nobody else may change it."""
    with umask(mask):
        assert build(BUILD)["changed"] is True
    made = {path: path.stat().st_mode & 0o777 for path in release.rglob("*")}
    assert {mode for path, mode in made.items() if path.is_dir()} == {0o755}
    assert {mode for path, mode in made.items() if path.is_file() and path.name != ".at-most-one-build.lock"} == {0o644}
    assert made[release / ".at-most-one-build.lock"] & 0o022 == 0


def test_it_stops_at_the_command_that_fails_and_the_next_call_goes_on(
    build: Build, release: Path, tmp_path: Path
) -> None:
    tool = tmp_path / "tools/compile"
    tool.parent.mkdir()
    tool.write_text("#!/bin/sh\necho page.tsx: no such component\necho TOKEN=hunter2 npm error >&2\nexit 3\n")
    tool.chmod(0o755)

    failed = build(f"echo one >> log; {BUILD}", "compile", "echo three >> log", environment_path=str(tool.parent))

    assert failed["seen"] == (
        "The build's command `sh -c compile` ended with exit code 3: page.tsx: no such component | TOKEN=*** npm error."
    ), "what it wrote to both, in its order"
    assert failed["details"]["rc"] == 3
    assert "hunter2" not in json.dumps(failed)
    assert (release / "log").read_text() == "one\n"
    assert not (release / ".at-most-one.json").exists()
    by_hand = failed["next_step"].split(": ", 1)[1].split("; ")[0]
    done = subprocess.run(by_hand, shell=True, cwd=tmp_path, capture_output=True, text=True)  # as a person types it
    assert (done.returncode, done.stdout) == (3, "page.tsx: no such component\n")

    tool.write_text("#!/bin/sh\n")
    assert build("compile", environment_path=str(tool.parent))["changed"] is True
    assert (release / ".at-most-one.json").exists()


@pytest.mark.parametrize(
    ("command", "how"),
    [
        (["no-such-npm", "ci"], "`no-such-npm ci` cannot be started: No such file or directory."),
        (["sh", "-c", "kill -KILL $$"], "was ended by SIGKILL."),
    ],
)
def test_a_command_that_is_missing_or_killed_is_named(build: Build, command: list[str], how: str) -> None:
    assert build(commands=[command])["seen"].endswith(how)


def test_what_the_build_left_out_is_named(build: Build, release: Path) -> None:
    failed = build("mkdir -p .next/static")
    assert f"The build of {release} left no .next/BUILD_ID, .next/server." in failed["msg"]
    assert not (release / ".at-most-one.json").exists()

    build(BUILD)
    (release / ".next/BUILD_ID").unlink()
    assert "left no .next/BUILD_ID" in build(BUILD)["msg"], "a marker alone is no release"


def test_a_release_that_was_shipped_is_marked_only_as_what_was_packed(build: Build, release: Path) -> None:
    subprocess.run(BUILD, shell=True, cwd=release, check=True)
    marker = {"commit": COMMIT, "run_id": "run-1", "digest": "of the builder"}

    refused = build(marker=marker, sha256="0" * 64)
    assert "after unpacking" in refused["seen"]
    assert not (release / ".at-most-one.json").exists()

    packed = shipping.digest(release, [])
    assert build(marker=marker, sha256=packed, with_digest=True)["build"]["marker"]["digest"] == "of the builder"


def test_a_build_that_a_killed_run_has_begun_is_waited_for_by_the_person(build: Build, release: Path) -> None:
    begun, go_on = release / "begun", release / "go-on"
    for fifo in (begun, go_on):
        os.mkfifo(fifo)
    with ThreadPoolExecutor() as pool:
        first = pool.submit(build, f"echo > begun; cat go-on; {BUILD}")
        begun.read_text()
        second = build("touch second")
        go_on.write_text("")
        assert first.result()["changed"] is True

    holder = (release / ".at-most-one-build.lock").read_text()
    assert second["seen"] == f"{release} is being built by process {holder} on this host."
    assert f"ps -p {holder}" in second["next_step"]
    assert not (release / "second").exists()


def test_a_long_build_is_not_kept_in_memory(release: Path) -> None:
    tracemalloc.start()
    with pytest.raises(OperatorError, match=r"exit code 1: .*the reason\.") as failed:
        building.make(order(release, "head -c 40000000 /dev/zero | tr '\\0' x; echo; echo the reason; exit 1"))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(str(failed.value)) < 1_000
    assert peak < 5_000_000
