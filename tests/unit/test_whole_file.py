"""A file or a link that changes in one step."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from at_most_one.system import files

from tests.support.login import umask


def test_takes_the_place_of_what_was_there_with_its_own_rights(tmp_path: Path) -> None:
    path = tmp_path / "report.md"
    path.write_text("before")
    path.chmod(0o666)

    files.write(path, "보고서\n", 0o640)

    assert path.read_text(encoding="utf-8") == "보고서\n"
    assert path.stat().st_mode & 0o777 == 0o640
    assert list(tmp_path.iterdir()) == [path]


def test_leaves_what_was_there_when_it_cannot_be_written(tmp_path: Path) -> None:
    path = tmp_path / "report.md"
    path.write_text("before")

    with pytest.raises(UnicodeEncodeError):
        files.write(path, "half \ud800", 0o640)

    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_a_program_may_write_it_by_its_name(tmp_path: Path) -> None:
    path = tmp_path / "cleanup_plan.json"

    with files.replacing(path, 0o640) as file:
        Path(file.name).write_text("fetched")
        assert not path.exists()

    assert path.read_text() == "fetched"
    assert path.stat().st_mode & 0o777 == 0o640
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_is_pointed_elsewhere_beside_what_a_killed_process_has_left(tmp_path: Path) -> None:
    link = tmp_path / "latest"
    files.link(link, "first")
    link.with_name(f".latest.{os.getpid()}.link").symlink_to("half")

    files.link(link, "second")

    assert os.readlink(link) == "second"
    assert list(tmp_path.iterdir()) == [link]


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077])
@pytest.mark.parametrize(
    ("model", "directory", "file"),
    [(0o755, 0o755, 0o644), (0o775, 0o755, 0o644), (0o750, 0o750, 0o640), (0o700, 0o700, 0o600), (None, 0o755, 0o644)],
)
def test_what_is_created_is_as_open_as_what_serves_whatever_the_umask(
    tmp_path: Path, mask: int, model: int | None, directory: int, file: int
) -> None:
    serves = tmp_path / "serves"
    if model is not None:
        serves.mkdir()
        serves.chmod(model)
    with umask(mask):
        with files.created_as(serves):
            (tmp_path / "release").mkdir()
            (tmp_path / "release/file").touch()
        (tmp_path / "after").touch()
    made = [(tmp_path / name).stat().st_mode & 0o777 for name in ("release", "release/file", "after")]
    assert made == [directory, file, 0o666 & ~mask], "and what comes later is as before"


@pytest.mark.parametrize("mask", [0o000, 0o077])
def test_directories_on_the_way_have_the_same_mode_and_those_that_are_there_keep_theirs(
    tmp_path: Path, mask: int
) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there").chmod(0o711)
    with umask(mask):
        files.directory(tmp_path / "there/a/b", 0o750)
        files.directory(tmp_path / "there/a/b", 0o700)
    modes = [(tmp_path / name).stat().st_mode & 0o777 for name in ("there", "there/a", "there/a/b")]
    assert modes == [0o711, 0o750, 0o750]
