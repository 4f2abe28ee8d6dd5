"""The table of history.yml: a dead run is not called running, and rows that came back are dated."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jinja2
import pytest
from at_most_one.findings import Finding, observed, say
from at_most_one.runs import run_error
from at_most_one.system.commit_names import short

from filter_plugins.at_most_one import told, word

TEMPLATES = Path(__file__).parents[2] / "roles/history/templates"


def table(language: str, *, fences: tuple[dict[str, Any], ...] = (), **run: Any) -> str:
    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(TEMPLATES), undefined=jinja2.StrictUndefined)
    environment.filters["at_most_one_told"] = told
    environment.filters["at_most_one_word"] = word
    environment.filters["at_most_one_short"] = short
    base: dict[str, Any] = {
        **{"run_id": "R1", "started_at": "2025-11-10T05:30:00.000Z", "who": "minsu", "controller": "gw", "error": None},
        **{"environment": "production", "plan_id": "p", "plan_sha256": "0" * 64, "commit_before": None, "seconds": 9.0},
        **{"commit_after": None, "failed_phase": None, "taken_over_by": None, "phases": [], "rows": None},
        **{"outcome": None, "dead_since": None},
    }
    shown = {**base, **run}
    shown["error_phrase"] = run_error.of(shown).as_data()
    return environment.get_template(f"table.{language}.j2").render(
        {
            **{"__history_journal": {"runs": [shown], "fences": fences}, "report_language": language},
            **{"environment_name": "production", "project_artifacts": "/h/artifacts"},
        }
    )


DEAD: dict[str, Any] = {
    "dead_since": "2025-11-10T06:00:00Z",
    "rows": {"archived": 25, "restored": 0, "restored_at": None},
}
BACK = {"outcome": "deployed", "rows": {"archived": 0, "restored": 25, "restored_at": "2025-11-11T01:02:03Z"}}
PURGED = {"outcome": "deployed", "phases": [{"name": "purged", "details": {"rows": 25, "at": "2026-03-01T05:30:00Z"}}]}
PURGE = {"outcome": "unchanged", "phases": [{"name": "purge", "details": {}}]}
LEFT = {"outcome": "rolled_back", "phases": [{"name": "rollback", "details": {"left_count": 2}}]}
STOPPED: dict[str, Any] = {"outcome": "stopped", "failed_phase": "cleanup"}


@pytest.mark.parametrize(
    ("language", "run", "words"),
    [
        ("en", {}, "R1  running"),
        ("ko", {}, "R1  진행 중"),
        ("en", DEAD, "R1  dead since 2025-11-10 06:00:00"),
        ("ko", DEAD, "R1  2025-11-10 06:00:00 이후 응답 없음"),
        ("en", DEAD, "| 25 rows removed\n"),
        ("en", BACK, "| 25 rows removed | 25 put back at 2025-11-11 01:02:03\n"),
        ("ko", BACK, "| 25행 정리 | 25행 복원 (2025-11-11 01:02:03)\n"),
        ("en", PURGED, " | 25 rows purged at 2026-03-01 05:30:00\n"),
        ("ko", PURGED, " | 25행 파기 (2026-03-01 05:30:00)\n"),
        ("en", PURGE, "R1  archive purged\n"),
        ("ko", PURGE, "R1  보관 자료 파기\n"),
        ("en", LEFT, " | 2 rows could not return\n"),
        ("ko", LEFT, " | 2행은 복원하지 못함\n"),
        ("en", STOPPED, "R1  stopped (in cleanup)\n"),
        ("ko", STOPPED, "R1  중단됨 (단계 중복 정리)\n"),
    ],
)
def test_each_line_says_what_became_of_the_run(language: str, run: dict[str, Any], words: str) -> None:
    assert words in table(language, **run)


def test_a_dead_run_is_not_called_running() -> None:
    assert "running" not in table("en", **DEAD)
    assert "진행 중" not in table("ko", **DEAD)


FOUND = Finding(
    "",
    observed("AMO-2321", "The server is a standby (in recovery)."),
    say("the primary."),
    say("point database_host at the primary."),
)
TEXT = f"{FOUND}\nRolled back automatically: no host was switched."
FAILED = {"name": "cleanup", "status": "failed", "details": {"error": TEXT, "findings": [FOUND.as_data()]}}
OF_AN_OLDER_RELEASE = {**FAILED, "details": {"error": TEXT, "removed": 0}}
TAKEN_OVER = {"outcome": "abandoned", "taken_over_by": "R2"}


@pytest.mark.parametrize(
    ("language", "run", "line"),
    [
        (
            "en",
            {**STOPPED, "error": TEXT, "phases": [FAILED]},
            "The server is a standby (in recovery). [AMO-2321] Expected: the primary."
            " Next: point database_host at the primary.",
        ),
        (
            "ko",
            {**STOPPED, "error": TEXT, "phases": [FAILED]},
            "서버가 대기 서버(standby, 복구 모드)입니다. [AMO-2321] 기대: 주 서버(primary)여야 합니다."
            " 다음: database_host가 주 서버(primary)를 가리키게 하십시오.",
        ),
        ("ko", {**STOPPED, "error": TEXT, "phases": [OF_AN_OLDER_RELEASE]}, str(FOUND)),
        ("ko", {**STOPPED, "error": "No such file", "phases": [{**FAILED, "details": None}]}, "No such file"),
        ("ko", {**STOPPED, "error": "Verify failed.", "failed_phase": "verify", "phases": [FAILED]}, "Verify failed."),
        (
            "ko",
            {**TAKEN_OVER, "error": "taken over by jiwoo: its process 42 on gw is gone"},
            "jiwoo이(가) 이어받음: gw의 프로세스 42이(가) 사라짐",
        ),
        (
            "ko",
            {**TAKEN_OVER, "error": "taken over by jiwoo: its lease ended at 2025-11-10T06:00:00Z"},
            "jiwoo이(가) 이어받음: 점유 기한이 2025-11-10T06:00:00Z에 끝남",
        ),
        ("en", {**TAKEN_OVER, "error": "taken over by jiwoo: takeover was asked for"}, None),
        (
            "ko",
            {**TAKEN_OVER, "error": "taken over by jiwoo: takeover was asked for"},
            "jiwoo이(가) 이어받음: 이어받기를 요청받음",
        ),
        ("ko", {**TAKEN_OVER, "error": "taken over by jiwoo: it was late"}, "jiwoo이(가) 이어받음: it was late"),
    ],
)
def test_how_a_run_ended_is_in_the_reader_s_language(language: str, run: dict[str, Any], line: str | None) -> None:
    assert f"\n    {line or run['error']}\n" in table(language, **run)


def test_a_secret_in_how_a_run_ended_stays_hidden() -> None:
    assert "hunter2" not in table("en", **STOPPED, error="password=hunter2 was refused")


def test_a_fence_that_no_run_is_at_work_behind_is_named_beneath() -> None:
    left = observed("AMO-2231", "The write fence {index} is up.", index="aedpics.at_most_one_fence_0")
    for language in ("en", "ko"):
        assert "\nThe write fence aedpics.at_most_one_fence_0 is up.\n" in table(language, fences=(left.as_data(),))
