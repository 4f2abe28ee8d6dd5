"""The files that every release shares: found before anything is touched, or named with where they were looked for."""

from __future__ import annotations

from pathlib import Path

import pytest
from at_most_one.errors import OperatorError
from at_most_one.release import shared_files


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
        shared_files.inspect(*ground, [".env", ".env.production"], in_place=True)
    said = str(refused.value)
    assert f"prepare_shared_files names .env: neither {path} nor {releases / 'shared'} has it." in said
    assert f"{path} has .env.production." in said
    assert "set prepare_shared_files: [.env.production] in the inventory" in refused.value.next_step


@pytest.mark.parametrize(
    ("in_place", "beside", "to_copy"),
    [(True, False, 1), (True, True, 1), (False, False, 1), (False, True, 0)],
)
def test_what_is_to_be_copied(ground: tuple[Path, Path, Path], in_place: bool, beside: bool, to_copy: int) -> None:
    """In place the application's own file is the true one; from then on the one beside the releases is."""
    if beside:
        (ground[1] / "shared").mkdir(parents=True)
        (ground[1] / "shared/.env.production").write_text("A=2\n")
    found = shared_files.inspect(*ground, [".env.production"], in_place=in_place)
    assert (found.built, found.shared, len(found.to_copy)) == (False, False, to_copy)


def test_a_finished_release_that_has_lost_files_is_refused(ground: tuple[Path, Path, Path]) -> None:
    _path, _releases, release = ground
    (release / ".next").mkdir(parents=True)
    (release / shared_files.MARKER).write_text("{}")
    (release / ".env.production").symlink_to(ground[0] / ".env.production")
    found = shared_files.inspect(*ground, [".env.production"], in_place=False)
    assert (found.built, found.shared) == (True, True)
    (release / ".next/build-manifest.json").write_text('{"rootMainFiles": ["static/chunks/a.js"]}')
    with pytest.raises(OperatorError, match=r"has no \.next/static/chunks/a\.js"):
        shared_files.inspect(*ground, [".env.production"], in_place=False)
