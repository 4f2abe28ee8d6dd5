"""What a module tells of its steps reaches the callback, and whatever goes wrong with it reaches nobody."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from at_most_one.display import progress
from at_most_one.display.translations import WORDS
from at_most_one.release import building
from at_most_one.system import live_step
from at_most_one.system.live_step import NAME, Record

from tests.support.ports import wait_until


def test_steps_and_details_are_read_until_another_task_begins(live_record: Record) -> None:
    assert live_record.read() == {}
    live_step.steps("indexes", 0, 3)
    live_step.detail("building index: scanning table 12 %")
    assert live_record.read() == {
        **{"unit": "indexes", "done": 0, "total": 3, "waits_for": ""},
        "detail": "building index: scanning table 12 %",
    }
    live_step.steps("indexes", 1, 3)
    assert "detail" not in live_record.read(), "it was of the step before"
    live_record.clear()
    assert live_record.read() == {}


def test_a_process_of_its_own_reaches_it_and_its_children_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(NAME, "")
    made = Record()
    said = (
        "import os; from at_most_one.system import live_step; live_step.take();"
        "live_step.steps('rows', 120, 300, 'resume'); print(os.environ.get(live_step.NAME))"
    )
    module_utils = str(Path(live_step.__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-c", said], env={**os.environ, "PYTHONPATH": module_utils}, capture_output=True, text=True
    )
    assert done.stdout == "None\n", done.stderr
    assert record_of(made) == ("120 of 300 rows, waits for control_action=resume", "")


def record_of(made: Record, language: str = "en") -> tuple[str, str]:
    return progress.at_work(made.read(), WORDS[language])


def test_what_is_shown_is_one_line_of_letters(live_record: Record) -> None:
    live_step.steps("rows", 120, 300)
    live_step.detail("drawn over\r\x1b[31m계획\x1b[0m\tand\x07 a \x1b[2Kcolour" + "x" * 5_000)
    steps, detail = record_of(live_record, "ko")
    assert steps == "300행 중 120행"
    assert detail.startswith("계획 and  a colourxxx")
    assert detail.isprintable()
    assert len(detail) < 300


@pytest.mark.parametrize(
    "text",
    [
        *(b"", b"[", b"[" * 2_000, b"3", b'"rows"', b"\xff\xfe", b'{"unit": "prompt"}'),
        b'{"unit": "rows", "done": "120", "total": null}',
        b'{"unit": ["rows"], "waits_for": 3, "detail": {"a": 1}}',
    ],
)
def test_what_makes_no_sense_is_not_shown(live_record: Record, text: bytes) -> None:
    with open(f"/proc/{os.getpid()}/fd/{live_record._descriptor}", "r+b", buffering=0) as file:
        file.write(text)
    assert record_of(live_record) == ("", "")


@pytest.mark.parametrize("place", ["", "/nowhere/at/all", "/proc/1/fd/999999", "/"])
def test_a_record_that_is_not_there_is_no_matter(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, place: str) -> None:
    monkeypatch.setenv(NAME, place)
    live_step.take()
    live_step.steps("rows", 1, 2)
    live_step.detail("anything")
    with live_step.following(str(tmp_path / "none"), every_s=0.01):
        time.sleep(0.05)
    monkeypatch.setenv(NAME, "")
    live_step.take()
    assert not live_step.is_watched()


def test_without_memory_files_nobody_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(NAME, "")
    monkeypatch.delattr(os, "memfd_create")
    made = Record()
    made.clear()
    assert (made.read(), os.environ[NAME]) == ({}, "")


def test_a_build_tells_its_last_line_without_its_secrets(
    live_record: Record, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written, gone = tmp_path / "written", tmp_path / "gone"
    written.write_text("first\n")
    with live_step.following(str(written), every_s=0.02):
        wait_until(lambda: live_record.read().get("detail") == "first")
        with written.open("a") as file:
            file.write("Compiling PASSWORD=hunter2 ...\n\n")
        wait_until(lambda: "Compiling" in str(live_record.read().get("detail")))
    assert "hunter2" not in str(live_record.read())
    with live_step.following(str(gone), every_s=0.02):
        time.sleep(0.1)
    order = building.Order(tmp_path, tmp_path, {}, (), 0)
    told: list[str] = []
    monkeypatch.setattr(live_step, "detail", told.append)
    building._run(order, ["sh", "-c", "echo Creating an optimized build; sleep 1.5"])
    assert told
    assert set(told) == {"Creating an optimized build"}
