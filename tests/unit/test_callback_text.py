"""What the screen is made of: an error taken apart, a line cut to its cells, the table of phases."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest
import yaml
from at_most_one import findings
from at_most_one.display import progress, terminal
from at_most_one.display.translations import WORDS
from at_most_one.errors import OperatorError

ROOT = Path(__file__).parents[2]


def test_an_operator_error_comes_apart_again() -> None:
    error = OperatorError("2 rows are left.", expected="0 rows.", next_step="run it again: it goes on.")
    parsed = findings.parse(f"{error} Report: /a/b/report.html")
    assert parsed.findings == (findings.Finding("", "2 rows are left.", "0 rows.", "run it again: it goes on."),)
    assert parsed.report == "/a/b/report.html"


def test_a_text_of_several_findings_has_each_of_them() -> None:
    text = "2 gates are open. Seen: a. Expected: b. Next: c. Seen: d. Expected: e. Next: f."
    assert [tuple(finding.phrases().values()) for finding in findings.parse(text).findings] == [
        ("a.", "b.", "c."),
        ("d.", "e.", "f."),
    ]
    assert findings.parse(text).head == "2 gates are open."
    lines = "2 gates are open.\n  Seen: a.\n    Expected: b.\n    Next: c.\n  Seen: d.\n    Expected: e.\n    Next: f."
    assert findings.parse(lines) == findings.parse(text), "a list on lines of its own is the same"


@pytest.mark.parametrize(
    "said", ["Rolled back automatically: 3 indexes", "The way back failed: x Next: y", "The journal stays open: z"]
)
def test_what_came_after_the_first_error_is_no_part_of_what_to_do(said: str) -> None:
    parsed = findings.parse(f"It failed. Expected: a. Next: b.\n{said}\nThe write fence stays up: c Report: /a")
    assert parsed.findings == (findings.Finding("", "It failed.", "a.", "b."),)
    assert parsed.afterwards == f"{said}\nThe write fence stays up: c"
    assert findings.parse(f"Something else broke\n{said}") == findings.Message(
        (findings.Finding("", "Something else broke", "", ""),), "", "", said
    )


@pytest.mark.parametrize(
    ("asked", "left"),
    [
        ("read the log; after a cutover, roll back while the old release is still there.", "read the log."),
        (
            "read x.json. A whole run takes itself back where it may; otherwise\nansible-playbook rollback.yml -l a",
            "read x.json.",
        ),
        ("ansible-playbook rollback.yml -l a", ""),
        ("run it again: it goes on.", "run it again: it goes on."),
        ("lower the load, then the same command", "lower the load, then the same command."),
    ],
)
def test_a_run_that_was_taken_back_does_not_ask_for_it(asked: str, left: str) -> None:
    assert findings.without_going_back(asked) == left


@pytest.mark.parametrize("text", ["", "Something else broke", "Expected: x. Next: y."])
def test_a_text_of_another_shape_stays_whole(text: str) -> None:
    assert findings.parse(text) == findings.Message((findings.Finding("", text, "", ""),), "")


@pytest.mark.parametrize(
    ("text", "cells", "shown"),
    [
        ("abc", 3, "abc"),
        ("abcd", 3, "ab…"),
        ("중복 정리", 9, "중복 정리"),
        ("중복 정리", 8, "중복 정…"),
        ("중복", 2, "…"),
        ("  indented", 20, "  indented"),
    ],
)
def test_a_line_is_cut_to_its_cells(text: str, cells: int, shown: str) -> None:
    assert terminal.fit(text, cells) == shown
    assert terminal.width(shown) <= cells


def test_a_long_error_is_broken_between_words_and_only_on_a_terminal() -> None:
    assert terminal.wrap("one two three", 12, "  ") == ["  one two", "  three"]
    assert terminal.wrap("one two three", None, "  ") == ["  one two three"]
    assert terminal.wrap("/a/path/longer/than/the/line", 10, "  ") == ["  /a/path/longer/than/the/line"]


def test_a_command_is_broken_nowhere_because_half_of_it_would_do_something_else() -> None:
    command = """ansible-playbook rollback.yml -l a -e '{"b": "c d"}' --check -e rollback_only_rows=true"""
    text = f"Remove what bars them, then {command}; or wait for it."
    assert terminal.wrap(text, 40, "  ") == ["  Remove what bars them, then", f"  {command};", "  or wait for it."]
    assert terminal.flow(text, 40) == f"Remove what bars them, then\n  {command};\n  or wait for it."
    assert terminal.wrap(f"{command} 명령을 실행", 40, "") == [command, "명령을 실행"]


def test_a_message_keeps_its_lines_and_goes_on_under_their_beginning() -> None:
    message = "=== Table ===\n\n    Goes:\n      id=1, status=active, id=2"
    assert terminal.flow(message, None) == message
    assert terminal.flow(message, 40) == message
    assert terminal.flow(message, 25) == (
        "=== Table ===\n\n    Goes:\n      id=1,\n        status=active,\n        id=2"
    )
    assert terminal.flow("  두 칸씩 차지하는 글자", 16) == "  두 칸씩\n    차지하는\n    글자"
    assert (
        terminal.flow("  Cause    it has failed again", 22) == "  Cause    it has\n           failed\n           again"
    )
    assert terminal.flow("/a/path/longer/than/the/line", 10) == "/a/path/longer/than/the/line"


@pytest.mark.parametrize(
    ("value", "shown"), [(0.04, "0.0 s"), (9.94, "9.9 s"), (9.96, "10 s"), (119.4, "119 s"), (125.2, "2 min 05 s")]
)
def test_durations_are_said_as_a_person_says_them(value: float, shown: str) -> None:
    assert terminal.seconds(value) == shown


@pytest.mark.parametrize("name", ["CI", "NO_COLOR", "ANSIBLE_NOCOLOR"])
def test_a_line_lives_on_a_terminal_only_and_when_nobody_minds(name: str) -> None:
    usual = {"TERM": "xterm"}
    assert terminal.is_live(True, usual)
    assert not terminal.is_live(False, usual)
    assert not terminal.is_live(True, {**usual, name: "1"})
    assert not terminal.is_live(True, {"TERM": "dumb"})


def test_a_long_task_says_in_a_log_that_it_still_runs() -> None:
    reading, writing = os.pipe()
    ticker = terminal.Ticker(writing, live=False, still_s=0.1, compose=lambda frame: f"[{frame}] still")
    ticker.start()
    time.sleep(1.5)
    ticker.stop()
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        assert pipe.read().splitlines()[0] == b"[] still"


def test_hosts_are_named_until_there_are_too_many() -> None:
    assert progress.named(["a", "b"]) == "a, b"
    assert progress.named([f"web{n}" for n in range(500)]) == "web0, web1, web2, web3 (+496)"


def test_the_table_has_every_phase_beside_the_run_before() -> None:
    phases = [
        progress.Phase("(0/2) Open the run", "", "실행 시작", begun=0.0, ended=3.0),
        progress.Phase("(1/2) Clean up", "cleanup", "중복 정리", begun=3.0, ended=15.0, changed=True),
        progress.Phase("(2/2) Verify", "verify", "인덱스 검증", begun=15.0, ended=16.0),
    ]
    lines = list(progress.table(phases, stopped=True, check_mode=False, earlier={"cleanup": 11.0}, words=WORDS["ko"]))
    assert [red for _, red in lines] == [False, False, True, False]
    assert lines[1][0].split() == [
        "(1/2)",
        "중복",
        "정리",
        "완료",
        "12",
        "s",
        "지난",
        "실행",
        "11",
        "s",
    ]
    assert "중단됨" in lines[2][0]
    assert not any("Clean" in line for line, _ in lines), "one language"
    assert len({terminal.width(line.split(" s")[0]) for line, _ in lines}) == 1, "the seconds stand under one another"


def test_a_phase_that_is_not_part_of_the_run_is_not_called_done() -> None:
    left = progress.Phase("(2/2) Check the health", "healthcheck", begun=1.0, ended=2.0, left_out=True)
    phases = [progress.Phase("(1/2) Verify", "verify", begun=0.0, ended=1.0), left]
    lines = [line for line, _ in progress.table(phases, stopped=False, check_mode=False, earlier={}, words=WORDS["en"])]
    assert "no change" in lines[0]
    assert WORDS["en"]["left_out"] in lines[1]
    assert "no change" not in lines[1]
    assert len({terminal.width(line.split(" s")[0]) for line in lines}) == 1


def test_the_time_beside_is_that_of_the_last_run_that_deployed_here(tmp_path: Path) -> None:
    def report(environment: str, run: str, outcome: str, seconds: float, age_s: int) -> None:
        path = tmp_path / environment / run / "report.json"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps({"outcome": outcome, "phases": [{"name": "cleanup", "seconds": seconds}]}))
        os.utime(path, (time.time() - age_s,) * 2)

    assert progress.earlier_seconds(tmp_path, "production") == {}
    report("staging", "1", "deployed", 4.0, 10)
    assert progress.earlier_seconds(tmp_path, "production") == {"cleanup": 4.0}, (
        "the rehearsal, where there is nothing else"
    )
    report("production", "2", "deployed", 2.0, 900)
    report("production", "3", "deployed", 3.0, 500)
    report("production", "4", "stopped", 9.0, 5)
    (tmp_path / "production/5").mkdir()
    (tmp_path / "production/5/report.json").write_text("{half")
    assert progress.earlier_seconds(tmp_path, "production") == {"cleanup": 3.0}


@pytest.mark.parametrize(
    ("given", "found"),
    [(None, "/p/artifacts"), ("{{ project_path }}/artifacts", "/p/artifacts"), ("/mnt/shared", "/mnt/shared")],
)
def test_earlier_reports_are_looked_for_where_they_were_written(given: str | None, found: str) -> None:
    assert progress.reports_in(given, Path("/p")) == Path(found)


def test_both_languages_say_everything() -> None:
    assert set(WORDS["en"]) == set(WORDS["ko"])


@pytest.mark.parametrize(
    ("name", "language", "found"),
    [
        ("(0/7) Open the run", "ko", "실행 시작"),
        ("Purge the archive", "ko", "보관된 행 파기"),
        ("(0/7) Open the run", "en", ""),
        ("(1/3) A play of somebody else", "ko", ""),
    ],
)
def test_a_play_is_translated_without_its_number(name: str, language: str, found: str) -> None:
    assert progress.translated(name, language) == found


@pytest.mark.parametrize("language", ["en", "ko"])
@pytest.mark.parametrize("check_mode", [False, True])
def test_the_table_of_a_deployment_fits_80_columns(language: str, check_mode: bool) -> None:
    plays = [
        play
        for name in ("deploy", "rollback")
        for play in yaml.safe_load((ROOT / f"playbooks/{name}.yml").read_text(encoding="utf-8"))
    ]
    phases = [
        progress.Phase(
            play["name"],
            (play.get("vars") or {}).get("run_phase", ""),
            progress.translated(play["name"], language),
            begun=0.0,
            ended=35_999.0,
            changed=number % 2 == 0,
            left_out=number == 3,
        )
        for number, play in enumerate(plays)
    ]
    lines = progress.table(phases, stopped=True, check_mode=check_mode, earlier={}, words=WORDS[language])
    widths = [terminal.width(line) for line, _ in lines]
    assert len(widths) == len(phases) + 1
    assert max(widths) <= 80
