"""A file or a link that changes in one step."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from at_most_one.system import files


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
