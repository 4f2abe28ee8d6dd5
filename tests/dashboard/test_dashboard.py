"""The dashboard is one well-formed page that needs no network, whatever the monitor has read."""

from __future__ import annotations

import json
import os
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.report.cases import AFTER, BEFORE, HOSTILE, ROOT
from tests.report.test_page import Page

INVENTORY = "all: {hosts: {web1: {ansible_connection: local, ansible_host: 127.0.0.1}}}\n"


def _index(name: str, planned: bool, advice: str, scans: int) -> dict[str, Any]:
    return {
        **{"name": name, "table": "t", "planned": planned, "scans": scans, "bytes": 81_920, "days": 31.0},
        **{"hit_percent": None if not scans else 99.8, "bloat_percent": 12 if scans else None, "advice": advice},
    }


INDEXES = [
    _index("idx_inspection_sessions_active_session_per_equipment", True, "rule", 120_411),
    _index("idx_inspection_schedules_equipment_date", True, "fine", 8_233),
    _index("idx_inspection_schedules_active", True, "wait", 0),
    _index(f"idx_{HOSTILE}", False, "unused", 0),
    _index("inspection_sessions_pkey", False, "rule", 44_112),
]


def _history(*duplicates: int | None) -> list[dict[str, Any]]:
    first = datetime(2025, 11, 10, 7, 30, tzinfo=UTC)
    days = [(first + timedelta(days=number)).strftime("%Y-%m-%dT%H:%M:%SZ") for number in range(len(duplicates))]
    return [{"at": at, "duplicates": many} for at, many in zip(days, duplicates, strict=True)]


def _run(outcome: str | None, day: int) -> dict[str, Any]:
    who = f"deploy{HOSTILE}"
    started = f"2025-11-{day:02}T05:30:00.000Z"
    return {"outcome": outcome, "commit_before": BEFORE, "commit_after": AFTER, "who": who, "started_at": started}


GOOD: dict[str, Any] = {
    "environment_name": "production",
    "app_name": "aedpics",
    "app_min_instances": 2,
    "plan": "one-active-inspection-session",
    "project_path": str(ROOT),
    "__monitor_verified": {"duplicates_left": 0, "indexes": []},
    "__monitor_fence": {"state": "lowered"},
    "__monitor_history": {"verdict": "applied"},
    "__monitor_use": {"indexes": INDEXES},
    "__monitor_journal": {"runs": [_run("deployed", 12), _run("stopped", 11), _run("rolled_back", 10), _run(None, 9)]},
    "__monitor_service": {"checks": [{"name": "monitoring", "ok": True}]},
    "__monitor_report": {"findings": [], "since": {}, "history": _history(*[10] * 5, 3, *[0] * 20)},
    "host_serves": {"commit": AFTER, "pm2": {"instances": [{"status": "online"}, {"status": "errored"}]}},
}
BAD_FINDING = {"key": "index:x", "seen": f"Index {HOSTILE} is missing.", "expected": "it.", "next_step": "build it."}
CASES: dict[str, dict[str, Any]] = {
    "good": GOOD,
    "bad": {
        **GOOD,
        "__monitor_verified": {"duplicates_left": 2, "indexes": []},
        "__monitor_report": {
            "findings": [BAD_FINDING],
            "since": {"index:x": "2025-11-20T07:30:00Z"},
            "history": _history(0, 0, 2),
        },
    },
    # Nothing could be read, and this is the first look.
    "blind": {
        **GOOD,
        **{name: {"msg": "gone"} for name in GOOD if name.startswith("__monitor_") and name != "__monitor_report"},
        "__monitor_report": {
            "findings": [{**BAD_FINDING, "key": "database"}],
            "since": {"database": "2025-11-20T07:30:00Z"},
            "history": _history(None),
        },
        "host_serves": {"commit": "", "pm2": {"msg": "gone"}},
    },
}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Each case's directory, with the page in both languages."""
    directories = {}
    for case, facts in CASES.items():
        directory = tmp_path_factory.mktemp(case)
        (directory / "hosts.yml").write_text(INVENTORY)
        for language in ("en", "ko"):
            (directory / language).mkdir()
            place = {"report_language": language, "_monitor_path": str(directory / language)}
            (directory / "facts.json").write_text(json.dumps({**facts, **place}))
            command = [ROOT / ".venv/bin/ansible-playbook", ROOT / "tests/dashboard/render.yml"]
            command += ["-i", directory / "hosts.yml", "-l", "web1", "-e", f"@{directory / 'facts.json'}"]
            environment = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")}
            done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stdout + done.stderr
        directories[case] = directory
    return directories


@pytest.mark.parametrize("language", ["en", "ko"])
@pytest.mark.parametrize("case", CASES)
def test_every_page_is_whole_and_needs_no_network(drawn: dict[str, Path], case: str, language: str) -> None:
    text = (drawn[case] / language / "index.html").read_text()
    page = Page(text)

    assert page.all("html") == [{"lang": language}]
    assert [len(page.all(landmark)) for landmark in ("h1", "header", "main", "footer", "script")] == [1, 1, 1, 1, 0]
    asking = {"src", "href", "srcset", "action", "poster", "data", "xlink:href"}
    assert not [attributes for _, attributes in page.elements if asking & set(attributes)]
    assert "://" not in text
    assert "<script>alert" not in text, "nothing that was read becomes markup"
    shown = "".join(page.text)
    assert HOSTILE in shown, "and what was read is shown as it stands"
    # A row of a table has as many cells as the table has columns.
    for table in text.split("<table")[1:]:
        rows = table.split("</table>")[0].split("<tr>")[1:]
        assert len({row.count("</th>") + row.count("</td>") for row in rows}) == 1


def test_what_it_says(drawn: dict[str, Path]) -> None:
    good, bad, blind = (Page((drawn[case] / "ko/index.html").read_text()) for case in ("good", "bad", "blind"))

    def says(page: Page, *words: str) -> bool:
        shown = "".join(page.text)
        return all(word in shown for word in words)

    assert says(good, "모두 정상입니다", "내려감", "applied", "80.00 KB", "99.8 %", "유지", "배포 완료", AFTER[:12])
    assert not says(good, "이상 항목")
    assert says(bad, "이상이 있습니다", "is missing.", "build it.", "최초 확인 2025-11-20 07:30:00 UTC")
    assert says(blind, "읽지 못함", "두 번째 점검부터")
    course = [attributes.get("aria-label") for attributes in good.all("div") if "chart" in str(attributes.get("class"))]
    assert course == ["점검할 때마다 확인한 중복 그룹 수, 오래된 순"] * 2 + ["통계 초기화 이후 인덱스별 스캔 횟수"]
    document = json.loads((drawn["bad"] / "en/monitor.json").read_text())
    assert document["duplicates"] == 2
    assert [one["key"] for one in document["findings"]] == ["index:x"]
