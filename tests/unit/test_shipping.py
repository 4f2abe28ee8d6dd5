"""A release that is packed on one host and unpacked on another is the same, but for what belongs to a host."""

from __future__ import annotations

import os
import stat
import subprocess
import tarfile
from pathlib import Path

import pytest
from at_most_one.errors import OperatorError
from at_most_one.release import shipping

from tests.support.login import umask

SHARED = [".env.production"]


@pytest.fixture
def built(tmp_path: Path) -> Path:
    """A release as prepare leaves it on the host that builds."""
    release = tmp_path / "a/releases/commit"
    for name, content in {
        "server.js": "x",
        ".env.example": "of git",
        ".env.local": "a secret that nobody named",
        "node_modules/next/bin/next": "#!/usr/bin/env node",
        ".next/BUILD_ID": "id",
        ".next/cache/webpack": "large",
        ".next/static/chunks/new.js": "new",
        ".next/static/chunks/old.js": "carried",
        ".at-most-one-assets.json": '{"chunks/old.js": 1}',
        ".at-most-one.json": '{"commit": "abc"}',
    }.items():
        (release / name).parent.mkdir(parents=True, exist_ok=True)
        (release / name).write_text(content)
    (release / "node_modules/.bin").mkdir()
    (release / "node_modules/.bin/next").symlink_to("../next/bin/next")
    (release / "node_modules/next/bin/next").chmod(0o775)
    (tmp_path / "a/releases/shared").mkdir()
    (tmp_path / "a/releases/shared/.env.production").write_text("a secret")
    (release / ".env.production").symlink_to(tmp_path / "a/releases/shared/.env.production")
    os.utime(release / ".next/static/chunks/new.js", (1_000, 1_000.5))
    for command in (["init", "-q"], ["add", ".env.example"]):
        subprocess.run(["git", "-C", str(release), *command], check=True, capture_output=True)
    return release


def test_what_is_unpacked_is_what_was_packed_without_what_belongs_to_a_host(built: Path, tmp_path: Path) -> None:
    archive, release = tmp_path / "archive", tmp_path / "b/releases/commit"
    sha256 = shipping.pack(built, archive, SHARED)

    assert stat.S_IMODE(archive.stat().st_mode) == 0o600
    with tarfile.open(archive) as packed:
        names = set(packed.getnames())
    assert {"server.js", ".env.example", ".git", "node_modules/.bin/next", ".next/static/chunks/new.js"} <= names
    assert not {name for name in names if "secret" in name or "old.js" in name or name.startswith(".at-most-one")}
    assert not {".env.production", ".env.local", ".next/cache", ".next/cache/webpack"} & names

    shipping.unpack(archive, release, tmp_path / "b/app")

    assert not archive.exists()
    assert [path.name for path in release.parent.iterdir()] == ["commit"]
    (release / ".env.production").symlink_to("/nowhere")
    (release / ".next/static/chunks/mine.js").write_text("carried here")
    (release / ".at-most-one-assets.json").write_text('{"chunks/mine.js": 1}')
    shipping.require(release, sha256, SHARED)
    assert (release / "node_modules/.bin/next").readlink() == Path("../next/bin/next")
    assert os.access(release / "node_modules/next/bin/next", os.X_OK)
    assert (release / ".next/static/chunks/new.js").stat().st_mtime == 1_000, "what answers name it by is the same"


def test_a_directory_of_carried_assets_alone_belongs_to_its_host(built: Path, tmp_path: Path) -> None:
    """The hosts of an environment need not have served the same builds before: one may have been away."""
    (built / ".next/static/build-1").mkdir()
    (built / ".next/static/build-1/_buildManifest.js").write_text("of build 1")
    (built / ".at-most-one-assets.json").write_text('{"chunks/old.js": 1, "build-1/_buildManifest.js": 1}')
    archive, release = tmp_path / "archive", tmp_path / "b/releases/commit"
    sha256 = shipping.pack(built, archive, SHARED)
    shipping.unpack(archive, release, tmp_path / "b/app")
    assert not (release / ".next/static/build-1").exists()

    (release / ".next/static/build-0/chunks").mkdir(parents=True)
    (release / ".next/static/build-0/chunks/a.js").write_text("of build 0")
    (release / ".at-most-one-assets.json").write_text('{"build-0/chunks/a.js": 1}')

    shipping.require(release, sha256, SHARED)


@pytest.mark.parametrize("mask", [0o000, 0o077])
def test_what_is_unpacked_is_as_open_as_what_serves_whatever_the_umask(built: Path, tmp_path: Path, mask: int) -> None:
    archive, release, live = tmp_path / "archive", tmp_path / "b/releases/commit", tmp_path / "b/app"
    live.mkdir(parents=True)
    shipping.pack(built, archive, SHARED)
    with umask(mask):
        shipping.unpack(archive, release, live)
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (release, release / ".next/static", release / "server.js")]
    assert modes == [0o755, 0o755, 0o644]


@pytest.mark.parametrize("harm", ["changed", "missing", "added"])
def test_a_release_that_is_not_what_was_packed_is_found(built: Path, harm: str) -> None:
    sha256 = shipping.digest(built, SHARED)
    if harm == "changed":
        (built / "server.js").write_text("y")
    elif harm == "missing":
        (built / "server.js").unlink()
    else:
        (built / "more.js").touch()
    with pytest.raises(OperatorError, match=r"has the digest .* after unpacking") as stop:
        shipping.require(built, sha256, SHARED)
    assert sha256[:12] in stop.value.expected


def test_a_broken_archive_leaves_the_release_as_it_was(built: Path, tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    shipping.pack(built, archive, SHARED)
    archive.write_bytes(archive.read_bytes()[:-400])
    with pytest.raises(OperatorError, match="cannot be unpacked"):
        shipping.unpack(archive, built, tmp_path / "app")
    assert (built / "server.js").read_text() == "x"
    assert not archive.exists()
    assert list(built.parent.glob(".incoming-*")) == []


def test_what_serves_is_never_replaced(built: Path, tmp_path: Path) -> None:
    archive, live = tmp_path / "archive", tmp_path / "app"
    shipping.pack(built, archive, SHARED)
    live.symlink_to(built)
    with pytest.raises(OperatorError, match="serves, or a process works in it"):
        shipping.unpack(archive, built, live)
    live.unlink()
    with subprocess.Popen(["sleep", "60"], cwd=built) as process:
        with pytest.raises(OperatorError, match="serves, or a process works in it"):
            shipping.unpack(archive, built, live)
        process.kill()
    assert (built / "server.js").exists()


def test_another_build_that_does_not_serve_is_replaced(built: Path, tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    shipping.pack(built, archive, SHARED)
    (built / ".next/BUILD_ID").write_text("of its own")
    shipping.unpack(archive, built, tmp_path / "app")
    assert (built / ".next/BUILD_ID").read_text() == "id"
    assert not (built / ".at-most-one.json").exists(), "it is not finished yet"


def test_a_host_without_node_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(OperatorError, match="does not answer on this host"):
        shipping.platform("")


def test_node_tells_what_it_runs(tmp_path: Path) -> None:
    node = tmp_path / "node"
    node.write_text("#!/bin/sh\nprintf 'Node.js 22, x64, glibc'\n")
    node.chmod(0o755)
    assert shipping.platform(str(tmp_path)) == "Node.js 22, x64, glibc"
