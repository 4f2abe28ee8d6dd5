"""Which clean-up plans on the control node are past their time: only those that a run of this plan has written."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest
from at_most_one.duplicates.old_plan_files import NAME, of_runs
from at_most_one.duplicates.plan_file import Digest, digest, write

PLAN, RUN = "one-open-order", "20250101T000000Z-1a2b3c"


def stamp(days: float) -> str:
    return time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(time.time() - days * 86_400))


def left(directory: Path, name: str, plan_id: str = PLAN, **other: Any) -> Path:
    """The file as the run ``name`` has left it; ``other`` is said in its header in the place of what is true."""
    rows = [["a", "1"], ["b", "2"]]

    def fill(hand_over: Any) -> dict[str, Any]:
        for row in rows:
            hand_over(Digest().add(row))
        return {"run_id": name, "plan": {"id": plan_id}, "digest": digest(rows), **other}

    place = directory / name
    place.mkdir(mode=0o755)
    write(str(place / NAME), fill)
    return place / NAME


def found(directory: Path, *runs: str, keep_days: int = 90) -> dict[str, str]:
    """Why each file stays, by the directory that it is in; empty where it goes."""
    return {one.run_id: one.why for one in of_runs(directory, PLAN, runs, keep_days)}


def test_the_plan_of_a_run_goes_and_one_that_is_not_there_is_no_error(tmp_path: Path) -> None:
    path = left(tmp_path, RUN)
    (file,) = of_runs(tmp_path, PLAN, [RUN, "20250101T000000Z-gone"], 0)
    assert (file.run_id, file.path, file.bytes, file.why) == (RUN, str(path), path.stat().st_size, "")


@pytest.mark.parametrize(
    "changed", [{"run_id": "another"}, {"plan": {"id": "another"}}, {"digest": "0" * 64}, {"plan": None}, {"plan": {}}]
)
def test_a_file_that_is_not_as_the_run_has_written_it_stays(tmp_path: Path, changed: dict[str, Any]) -> None:
    left(tmp_path, RUN, **changed)
    assert found(tmp_path, RUN) == {RUN: "changed"}


def test_a_file_that_cannot_be_read_as_a_plan_stays(tmp_path: Path) -> None:
    left(tmp_path, RUN).write_text("not what was written\n")
    assert found(tmp_path, RUN) == {RUN: "changed"}


@pytest.mark.parametrize("name", ["..", ".", "../elsewhere", "", "a/b"])
def test_a_name_that_no_run_has_leads_nowhere(tmp_path: Path, name: str) -> None:
    """The journal is in the service's database: what it names is no path that a file may be removed at."""
    reports = tmp_path / "reports"
    reports.mkdir()
    for place in (tmp_path, reports, tmp_path / "elsewhere", reports / "a/b"):
        place.mkdir(parents=True, exist_ok=True)
        (place / NAME).write_text("somebody's\n")
    assert found(reports, name) == {}


def test_a_link_in_the_files_place_stays(tmp_path: Path) -> None:
    path = left(tmp_path, RUN)
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    assert found(tmp_path, RUN) == {RUN: "not_a_file"}


def test_a_file_that_others_may_have_written_stays(tmp_path: Path) -> None:
    path = left(tmp_path, RUN)
    path.chmod(0o660)
    assert found(tmp_path, RUN) == {RUN: "writable"}


class TestChecks:
    """A check is in no journal: its plan goes by the time in its directory's name."""

    def test_those_of_this_plan_go_once_they_are_old_enough(self, tmp_path: Path) -> None:
        old, young = f"{stamp(91)}-check", f"{stamp(89)}-check"
        for name in (old, young):
            left(tmp_path, name)
        assert found(tmp_path) == {old: ""}
        assert found(tmp_path, keep_days=88) == {old: "", young: ""}

    def test_with_0_days_they_are_kept_for_ever(self, tmp_path: Path) -> None:
        left(tmp_path, f"{stamp(9_999)}-check")
        assert found(tmp_path, keep_days=0) == {}

    def test_those_of_another_plan_are_left_to_that_plans_purge(self, tmp_path: Path) -> None:
        left(tmp_path, f"{stamp(91)}-check", plan_id="another")
        assert found(tmp_path) == {}

    @pytest.mark.parametrize("text", ["", "{", '{\n"plan": {},\n"rows": [\n]\n}\n', '{\n"plan": 1,\n"rows": [\n]\n}\n'])
    def test_one_of_which_nobody_knows_the_plan_is_named_and_stays(self, tmp_path: Path, text: str) -> None:
        name = f"{stamp(91)}-check"
        left(tmp_path, name).write_text(text)
        assert found(tmp_path) == {name: "changed"}

    def test_a_directory_that_only_looks_like_one_is_left_out(self, tmp_path: Path) -> None:
        for name in ("20250101-check", "x20250101T000000Z-check", "20251399T000000Z-check"):
            left(tmp_path, name)
        os.makedirs(tmp_path / "20250101T000000Z-check")  # a check that wrote no plan
        assert found(tmp_path) == {}
