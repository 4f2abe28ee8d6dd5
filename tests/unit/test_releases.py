"""The link: atomic, reversible, never leading nowhere; an in-place checkout is adopted without losing a file."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
from at_most_one.errors import OperatorError
from at_most_one.release import link


@pytest.fixture
def place(tmp_path: Path) -> tuple[Path, Path, Path]:
    """An application deployed in place, and two built releases beside it."""
    app, old, new = tmp_path / "app", tmp_path / "app.releases/old", tmp_path / "app.releases/new"
    for directory, build in ((app, "old"), (new, "new")):
        directory.mkdir(parents=True)
        (directory / "BUILD_ID").write_text(build)
    return app, old, new


def test_adopts_the_directory_and_links_to_the_release(place: tuple[Path, Path, Path]) -> None:
    app, old, new = place
    inode = app.stat().st_ino

    previous, changed = link.switch(app, new, old)

    assert (previous, changed) == (old, True)
    assert app.is_symlink()
    assert app.resolve() == new
    assert old.stat().st_ino == inode, "the adopted directory is the very one that the workers run in"
    assert (old / "BUILD_ID").read_text() == "old"
    assert sorted(p.name for p in old.parent.iterdir()) == ["new", "old"], "nothing is left behind"


def test_second_switch_changes_nothing_and_goes_back_on_demand(place: tuple[Path, Path, Path]) -> None:
    app, old, new = place
    link.switch(app, new, old)

    assert link.switch(app, new, old) == (new, False)
    assert link.switch(app, old, old) == (new, True)
    assert app.resolve() == old


def test_check_mode_touches_nothing(place: tuple[Path, Path, Path]) -> None:
    app, old, new = place

    assert link.switch(app, new, old, check_mode=True) == (old, True)
    assert not app.is_symlink()
    assert not old.exists()


def test_refuses_a_release_that_is_not_there(place: tuple[Path, Path, Path]) -> None:
    app, old, new = place

    with pytest.raises(OperatorError, match="is not a directory"):
        link.switch(app, new.with_name("nowhere"), old)
    assert not app.is_symlink()


def test_refuses_to_adopt_into_a_place_that_is_taken(place: tuple[Path, Path, Path]) -> None:
    app, _, new = place

    with pytest.raises(OperatorError, match="exists already"):
        link.switch(app, new, new)
    assert not app.is_symlink()


def test_the_path_never_leads_nowhere(place: tuple[Path, Path, Path]) -> None:
    """A reader that never pauses sees a build at every instant of adoption and of 300 switches."""
    app, old, new = place
    seen: list[str] = []
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            try:
                seen.append((app / "BUILD_ID").read_text())
            except OSError as gone:
                seen.append(os.strerror(gone.errno or 0))

    reader = threading.Thread(target=read)
    reader.start()
    for n in range(300):
        link.switch(app, new if n % 2 == 0 else old, old)
    stop.set()
    reader.join()

    assert set(seen) <= {"old", "new"}
    assert len(seen) > 300


def test_an_adopted_checkout_shares_the_files_that_every_release_shares(place: tuple[Path, Path, Path]) -> None:
    """Those with the same content. Another one is left and named, and so is what is not shared."""
    app, old, new = place
    shared = old.parent / "shared"
    for directory, word in ((app, "own"), (shared, "shared")):
        (directory / "config").mkdir(parents=True)
        (directory / ".env.production").write_text("A=1\n")
        (directory / "config/.env").write_text(f"B={word}\n")
    link.switch(app, new, old)

    assert link.share(old, shared) == [old / "config/.env"]
    assert (old / ".env.production").readlink() == shared / ".env.production"
    assert (old / "config/.env").read_text() == "B=own\n"
    assert (old / "BUILD_ID").read_text() == "old"
    (shared / ".env.production").write_text("A=2\n")
    assert (old / ".env.production").read_text() == "A=2\n", "a later change reaches it"
    assert link.share(old, shared) == [old / "config/.env"]
    assert link.share(new, shared) == []
    assert link.share(old, shared.with_name("nowhere")) == []
