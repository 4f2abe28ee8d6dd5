"""A file that appears whole or not at all."""

from __future__ import annotations

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
