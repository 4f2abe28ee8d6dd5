"""The newest releases stay, and so does every one that somebody may still need."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from at_most_one.errors import OperatorError
from at_most_one.release import retention

NOBODY = 65_534


@pytest.fixture
def releases(tmp_path: Path) -> list[Path]:
    """Six releases, the oldest first, beside what is none."""
    made = []
    for number in range(6):
        release = tmp_path / (str(number) * 40)
        release.mkdir()
        (release / retention.MARKER).write_text("{}")
        os.utime(release / retention.MARKER, (1_000 + number, 1_000 + number))
        made.append(release)
    (tmp_path / "shared").mkdir()
    (tmp_path / ("f" * 40)).write_text("a file")
    return made


def test_the_newest_stay(releases: list[Path], tmp_path: Path) -> None:
    assert retention.surplus(tmp_path, 2, []) == releases[:4]
    assert retention.surplus(tmp_path, 9, []) == []
    assert retention.surplus(tmp_path / "absent", 2, []) == []


def test_what_is_kept_is_named_by_its_commit(releases: list[Path], tmp_path: Path) -> None:
    assert retention.kept(tmp_path) == [release.name for release in releases]
    assert retention.kept(tmp_path / "absent") == []


def test_never_the_one_that_serves_the_one_before_or_one_that_a_process_works_in(
    releases: list[Path], tmp_path: Path
) -> None:
    link = tmp_path / "app"
    link.symlink_to(releases[0])
    (releases[2] / "below").mkdir()
    worker = subprocess.Popen(["sleep", "60"], cwd=releases[2] / "below")
    try:
        assert retention.surplus(tmp_path, 1, [link, releases[1]]) == releases[3:5]
    finally:
        worker.kill()
        worker.wait()


def test_one_stays_whatever_is_asked_for_and_check_mode_removes_none(releases: list[Path], tmp_path: Path) -> None:
    gone = [*map(str, releases[1:5])]
    assert retention.prune(str(tmp_path), 0, [str(releases[0])], check=True) == gone
    assert retention.kept(tmp_path) == [release.name for release in releases]
    assert retention.prune(str(tmp_path), 0, [str(releases[0])]) == gone
    assert retention.kept(tmp_path) == [releases[0].name, releases[5].name]


def test_a_removal_that_was_interrupted_is_finished(releases: list[Path], tmp_path: Path) -> None:
    (tmp_path / ".going-of-before").mkdir()

    retention.remove(tmp_path, releases[:2])

    assert {path.name for path in tmp_path.iterdir()} == {"shared", "f" * 40, *(one.name for one in releases[2:])}


def test_a_full_disk_stops_before_anything_is_built(tmp_path: Path) -> None:
    retention.require_free_space(tmp_path / "not/yet/there", 1)
    with pytest.raises(OperatorError, match=r"MB left.*release_min_free_mb"):
        retention.require_free_space(tmp_path, 10**12)


def require(said: bool) -> None:
    assert said


def as_nobody(work: Callable[[], None]) -> int:
    """Do it in a process that may not do all: the exit code."""
    child = os.fork()
    if child == 0:
        try:
            if os.geteuid() == 0:
                os.setgroups([])
                os.setgid(NOBODY)
                os.setuid(NOBODY)
            work()
            os._exit(0)
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_what_may_not_be_removed_stops_nothing_and_goes_another_time(
    tmp_path: Path, run_module: Callable[..., dict[str, Any]]
) -> None:
    """A directory that another account, or a container, has left in an old release; the service is proven."""
    releases = Path(tempfile.mkdtemp())  # where everybody may go
    try:
        old = releases / ("0" * 40)
        cache = old / ".next/cache"
        cache.mkdir(parents=True)
        (cache / "image").write_text("x")
        newer = releases / ("1" * 40)
        newer.mkdir()
        for path in (releases, old, old / ".next", cache, cache / "image", newer):
            if os.geteuid() == 0:
                os.chown(path, NOBODY, NOBODY)
        cache.chmod(0o500)

        os.utime(old, (1_000, 1_000))
        assert as_nobody(lambda: require(retention.prune(str(releases), 1, []) == [])) == 0, "it says what went"
        (going,) = retention.left(releases)
        assert (going / ".next/cache/image").exists()
        places = {"live": str(tmp_path), "releases": str(releases), "release": str(tmp_path / "none")}
        assert "AMO-1037" in str(run_module("release_info", places)["warnings"])

        (going / ".next/cache").chmod(0o700)
        assert as_nobody(lambda: retention.remove(releases, [])) == 0
        assert retention.left(releases) == []
        assert "AMO-1037" not in str(run_module("release_info", places))
    finally:
        shutil.rmtree(releases)
