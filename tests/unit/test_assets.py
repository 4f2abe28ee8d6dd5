"""Old assets travel with the releases for as long as they are asked to, counted from when their build was replaced."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from at_most_one.release import assets

HOUR = 3600.0


def build(directory: Path, *names: str) -> Path:
    for name in names:
        file = directory / "static" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{directory.name} {name}")
    return directory


def carry(before: Path, release: Path, now: float, *, check_mode: bool = False) -> assets.Carried:
    return assets.carry(before, release, "static", 10 * HOUR, now, check_mode=check_mode)


def names(release: Path) -> set[str]:
    static = release / "static"
    return {path.relative_to(static).as_posix() for path in static.rglob("*") if path.is_file()}


def test_a_release_has_what_the_builds_before_it_had_until_their_time_is_over(tmp_path: Path) -> None:
    first = build(tmp_path / "1", "chunks/a.js", "shared.js")
    second = build(tmp_path / "2", "chunks/b.js", "shared.js")
    third, fourth = build(tmp_path / "3", "chunks/c.js"), build(tmp_path / "4", "chunks/d.js")

    assert carry(first, second, now=0) == assets.Carried(kept=1, left=0)
    assert names(second) == {"chunks/a.js", "chunks/b.js", "shared.js"}
    assert (second / "static/shared.js").read_text() == "2 shared.js", "its own are never replaced"

    carry(second, third, now=9 * HOUR)
    assert names(third) == {"chunks/a.js", "chunks/b.js", "chunks/c.js", "shared.js"}

    assert carry(third, fourth, now=11 * HOUR) == assets.Carried(kept=3, left=1)
    assert names(fourth) == {"chunks/b.js", "chunks/c.js", "chunks/d.js", "shared.js"}, "a.js was replaced 11 hours ago"


def test_a_second_time_changes_nothing_and_forgets_nothing(tmp_path: Path) -> None:
    first, second, third = build(tmp_path / "1", "a.js"), build(tmp_path / "2", "b.js"), build(tmp_path / "3", "c.js")
    carry(first, second, now=0)
    carry(first, second, now=HOUR)

    assert carry(second, third, now=10.5 * HOUR).kept == 2, "the later time counts: until then it was asked again"
    assert names(third) == {"a.js", "b.js", "c.js"}


def test_check_mode_and_an_application_without_assets(tmp_path: Path) -> None:
    first, second = build(tmp_path / "1", "a.js"), build(tmp_path / "2", "b.js")
    (tmp_path / "0").mkdir()

    assert carry(first, second, now=0, check_mode=True) == assets.Carried(kept=1, left=0)
    assert names(second) == {"b.js"}
    assert not (second / assets.LIST).exists()
    assert carry(tmp_path / "0", second, now=0) == assets.Carried(kept=0, left=0)


def test_going_back_takes_the_assets_along_and_replaces_nothing(tmp_path: Path) -> None:
    oldest, old, new = (
        build(tmp_path / "0", "z.js"),
        build(tmp_path / "1", "a.js", "shared.js"),
        build(tmp_path / "2", "b.js", "shared.js"),
    )
    carry(oldest, old, now=0)
    carry(old, new, now=1 * HOUR)

    assert carry(new, old, now=5 * HOUR).kept == 2, "b.js, and z.js that both have"
    assert names(old) == {"a.js", "b.js", "shared.js", "z.js"}
    assert (old / "static/shared.js").read_text() == "1 shared.js", "its own are never replaced"

    later = build(tmp_path / "3", "c.js")
    assert carry(old, later, now=12 * HOUR).left == 1, "z.js: 12 hours ago; b.js: 7 hours ago, when it went back"
    assert names(later) == {"a.js", "b.js", "c.js", "shared.js"}


def test_an_attempt_that_was_killed_is_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a part of a file nor a file that counts as the release's own is left, or there meanwhile."""
    first, second = build(tmp_path / "1", "a.js", "b.js"), build(tmp_path / "2", "c.js")
    copied = shutil.copy2

    def killed(source: Path, place: Path) -> None:
        copied(source, place)
        assert names(second) == {"c.js"}, "a file that is not whole yet is no asset"
        raise KeyboardInterrupt

    monkeypatch.setattr(shutil, "copy2", killed)
    with pytest.raises(KeyboardInterrupt):
        carry(first, second, now=0)
    assert names(second) == {"c.js"}
    monkeypatch.undo()
    assert carry(first, second, now=HOUR).kept == 2
    assert names(second) == {"a.js", "b.js", "c.js"}
    third = build(tmp_path / "3", "d.js")
    assert carry(second, third, now=11.5 * HOUR) == assets.Carried(kept=1, left=2), "they were replaced 10.5 hours ago"
