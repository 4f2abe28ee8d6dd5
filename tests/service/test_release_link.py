"""The switch of the link as a task calls it: in both directions open pages find their assets in what serves next."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Module = Callable[..., dict[str, Any]]
OLD, NEW = "a" * 40, "b" * 40


@pytest.fixture
def app(tmp_path: Path) -> Path:
    """An application deployed in place, a release built beside it, and the files that all releases share."""
    path = tmp_path / "app"
    for directory, chunk in ((path, "old"), (tmp_path / "app.releases" / NEW, "new")):
        (directory / ".next/static/chunks").mkdir(parents=True)
        (directory / f".next/static/chunks/{chunk}.js").write_text(chunk)
        (directory / ".next/static/chunks/both.js").write_text(f"both, of {chunk}")
    shared = tmp_path / "app.releases/shared"
    shared.mkdir()
    for directory in (path, shared):
        (directory / ".env").write_text("A=1\n")
    (path / ".env.local").write_text("OWN=s3cret\n")
    (shared / ".env.local").write_text("OWN=other\n")
    return path


def chunks(release: Path) -> dict[str, str]:
    return {file.name: file.read_text() for file in sorted((release / ".next/static/chunks").iterdir())}


def switch(run_module: Module, app: Path, commit: str, *, check: bool = False) -> dict[str, Any]:
    releases = app.with_name("app.releases")
    arguments = {
        "path": str(app),
        "release": str(releases / commit),
        "adopt_as": str(releases / OLD),
        "keep_assets_hours": 168,
        "shared": str(releases / "shared"),
    }
    return run_module("release_link", arguments, check=check)


def test_the_withdrawn_release_gives_its_assets_to_the_adopted_checkout_before_that_serves(
    run_module: Module, app: Path
) -> None:
    old, new = (app.with_name("app.releases") / commit for commit in (OLD, NEW))
    planned = switch(run_module, app, NEW, check=True)
    assert (planned["changed"], planned["carried"]) == (True, 1)
    assert not app.is_symlink()
    assert "old.js" not in chunks(new)

    forward = switch(run_module, app, NEW)
    assert (forward["previous"], forward["carried"]) == (str(old), 1)
    assert chunks(new) == {"both.js": "both, of new", "new.js": "new", "old.js": "old"}

    first_seen: list[dict[str, str]] = []

    def wait() -> None:
        while not first_seen:
            if app.resolve() == old:
                first_seen.append(chunks(app))

    watcher = threading.Thread(target=wait)
    watcher.start()
    back = switch(run_module, app, OLD)
    watcher.join(30)
    assert (back["changed"], back["carried"]) == (True, 1)
    assert first_seen == [{"both.js": "both, of old", "new.js": "new", "old.js": "old"}]
    assert switch(run_module, app, OLD)["changed"] is False


def test_the_adopted_checkout_shares_its_files_and_says_which_it_does_not(run_module: Module, app: Path) -> None:
    done = switch(run_module, app, NEW)
    adopted, shared = (app.with_name("app.releases") / name for name in (OLD, "shared"))
    assert (adopted / ".env").readlink() == shared / ".env"
    assert (adopted / ".env.local").read_text() == "OWN=s3cret\n"
    assert str(adopted / ".env.local") in str(done["warnings"])
    assert "s3cret" not in str(done)
