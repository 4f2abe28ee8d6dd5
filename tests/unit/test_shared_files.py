"""The files that every release shares: found before anything is touched, or named with where they were looked for."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from at_most_one.errors import OperatorError
from at_most_one.release import retention, shared_files


@pytest.fixture
def ground(tmp_path: Path) -> tuple[Path, Path, Path]:
    """The application's path with its own settings, the directory of the releases, the wanted release."""
    path, releases = tmp_path / "app", tmp_path / "app.releases"
    path.mkdir()
    (path / ".env.production").write_text("A=1\n")
    return path, releases, releases / "new"


def test_a_file_that_is_nowhere_is_named_with_the_variable_and_both_places(ground: tuple[Path, Path, Path]) -> None:
    path, releases, _release = ground
    with pytest.raises(OperatorError) as refused:
        shared_files.inspect(*ground, [".env", ".env.production"])
    said = str(refused.value)
    assert f"prepare_shared_files names .env: neither {path} nor {releases / 'shared'} has it." in said
    assert f"{path} has .env.production." in said
    assert "set prepare_shared_files: [.env.production] in the inventory" in refused.value.next_step


@pytest.mark.parametrize(
    ("in_place", "beside", "kept"),
    [(True, None, "A=1"), (True, "A=2", "A=1"), (False, None, "A=1"), (False, "A=2", "A=2")],
)
def test_the_release_gets_a_link_to_the_true_file(
    ground: tuple[Path, Path, Path], in_place: bool, beside: str | None, kept: str
) -> None:
    """In place the application's own file is the true one; from then on the one beside the releases is."""
    _path, releases, release = ground
    shared = releases / "shared"
    release.mkdir(parents=True)
    if beside:
        shared.mkdir()
        (shared / ".env.production").write_text(beside)
    would = shared_files.link(*ground, [".env.production"], in_place=in_place, check_mode=True)
    assert list(release.iterdir()) == []
    assert shared.exists() == bool(beside)

    done = shared_files.link(*ground, [".env.production"], in_place=in_place)

    assert done == would
    assert (done.changed, done.copied) == (True, (".env.production",) if kept == "A=1" else ())
    assert (release / ".env.production").readlink() == shared / ".env.production"
    assert (release / ".env.production").read_text().strip() == kept
    assert shared.stat().st_mode & 0o777 == 0o700
    assert not shared_files.link(*ground, [".env.production"], in_place=in_place).changed


def test_what_is_copied_is_closed_to_others_and_what_leads_elsewhere_is_replaced(
    ground: tuple[Path, Path, Path],
) -> None:
    path, releases, release = ground
    for directory in (path, release):
        (directory / "config").mkdir(parents=True)
    (path / "config/.env").write_bytes(b"\xff\n")
    (release / "config/.env").symlink_to("/nowhere")
    names = [".env.production", "config/.env"]
    shared_files.link(*ground, names, in_place=True)
    files = [releases / "shared" / name for name in names]
    assert [file.stat().st_mode & 0o777 for file in files] == [0o600, 0o600]
    assert files[1].read_bytes() == b"\xff\n"
    assert (release / "config/.env").readlink() == files[1]
    files[0].chmod(0o644)
    (releases / "shared").chmod(0o755)

    again = shared_files.link(*ground, names, in_place=True)

    assert (again.directory, again.copied, again.linked) == (True, (".env.production",), ())
    assert files[0].stat().st_mode & 0o777 == 0o600


def test_a_file_that_git_has_is_not_replaced(ground: tuple[Path, Path, Path]) -> None:
    _path, releases, release = ground
    release.mkdir(parents=True)
    (release / ".env.production").write_text("of git")
    with pytest.raises(OperatorError, match=r"has \.env\.production of its own") as refused:
        shared_files.link(*ground, [".env.production"], in_place=True)
    assert f"git -C {release} ls-files .env.production" in refused.value.next_step
    assert (release / ".env.production").read_text() == "of git"
    assert not (releases / "shared").exists(), "named before anything changes"


def test_the_call_says_what_it_links_and_builds_nothing_that_is_built(
    ground: tuple[Path, Path, Path], run_module: Callable[..., dict[str, Any]]
) -> None:
    path, releases, release = ground
    release.mkdir(parents=True)
    places = {"live": str(path), "releases": str(releases), "release": str(release), "in_place": True}
    order = {"commands": [["false"]], "needed": [], "keep_assets_hours": 1, "marker": {"commit": "c" * 40}}
    arguments = {**places, **order, "shared": [".env.production"], "build": False}
    file = f"{releases}/shared/.env.production"
    for check in (True, False):
        done = run_module("release_build", arguments, check=check)
        assert (done["changed"], done["copied"], done["linked"]) == (True, [".env.production"], [".env.production"])
        assert done["diff"]["after"] == f"{file}\n{release}/.env.production -> {file}\n"
        assert "A=1" not in str(done)
    assert run_module("release_build", arguments)["changed"] is False
    assert not (release / retention.MARKER).exists(), "only a build marks it"


def test_a_finished_release_that_has_lost_files_is_refused(ground: tuple[Path, Path, Path]) -> None:
    _path, _releases, release = ground
    (release / ".next").mkdir(parents=True)
    (release / retention.MARKER).write_text("{}")
    (release / ".env.production").symlink_to(ground[0] / ".env.production")
    found = shared_files.inspect(*ground, [".env.production"])
    assert (found.built, found.shared) == (True, True)
    (release / ".next/build-manifest.json").write_text('{"rootMainFiles": ["static/chunks/a.js"]}')
    with pytest.raises(OperatorError, match=r"has no \.next/static/chunks/a\.js"):
        shared_files.inspect(*ground, [".env.production"])


def test_a_path_that_cannot_become_a_link_is_named_before_a_release_is_made(
    ground: tuple[Path, Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, releases, release = ground
    monkeypatch.setattr(os, "access", lambda place, _mode: place != path.parent)
    with pytest.raises(OperatorError, match=rf"{path} cannot be made a link to a release: \w+ may not") as refused:
        shared_files.inspect(*ground, [])
    assert str(path.parent) in refused.value.seen
    shared_files.inspect(path, releases, path, [])

    monkeypatch.setattr(os, "access", lambda *_: True)
    with pytest.raises(OperatorError, match=f"{releases} is on another file system"):
        shared_files.inspect(Path("/proc"), releases, release, [])
    link = path.with_name("link")
    link.symlink_to("/proc")
    shared_files.inspect(link, releases, release, [])
    shared_files.inspect(*ground, [])
    assert not releases.exists()


@pytest.mark.parametrize("check", [True, False])
def test_a_full_disk_is_named_before_a_release_is_made(
    ground: tuple[Path, Path, Path], run_module: Callable[..., dict[str, Any]], check: bool
) -> None:
    """What is finished, or serves, needs no more space."""
    path, releases, release = ground
    places = {"live": str(path), "releases": str(releases), "release": str(release)}
    arguments = {"shared": [".env.production"], "min_free_mb": 10**12, **places}

    full = run_module("release_info", arguments, check=check)
    assert "MB left." in full["msg"]
    assert "release_min_free_mb" in full["expected"]
    assert not releases.exists()

    assert not run_module("release_info", {**arguments, "release": str(path)}, check=check)["built"]
    release.mkdir(parents=True)
    (release / retention.MARKER).write_text("{}")
    assert run_module("release_info", arguments, check=check)["built"]


def test_for_several_hosts_the_build_and_the_host_are_told_too(
    ground: tuple[Path, Path, Path], tmp_path: Path, run_module: Callable[..., dict[str, Any]]
) -> None:
    path, releases, release = ground
    (release / ".next").mkdir(parents=True)
    (release / ".next/BUILD_ID").write_text("id")
    node = tmp_path / "bin/node"
    node.parent.mkdir()
    node.write_text("#!/bin/sh\nprintf 'Node.js 24, x64, glibc'\n")
    node.chmod(0o755)
    places = {"live": str(path), "releases": str(releases), "release": str(release)}
    arguments = {"shared": [".env.production"], **places}

    found = run_module("release_info", {**arguments, "several_hosts": True, "environment_path": str(node.parent)})

    assert found["platform"] == "Node.js 24, x64, glibc"
    assert (found["build"]["serves"]["build_id"], found["build"]["marker"]) == ("id", {})
    assert "platform" not in run_module("release_info", arguments)
