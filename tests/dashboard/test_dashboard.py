"""The dashboard is one well-formed page that needs no network, whatever the monitor has read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from filter_plugins.at_most_one_report import course
from tests.support import rendering
from tests.support.dashboard_cases import CASES
from tests.support.html_page import Page
from tests.support.report_cases import AFTER, HOSTILE


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Each case's directory, with the page in both languages."""
    directories = {case: tmp_path_factory.mktemp(case) for case in CASES}
    for case, directory in directories.items():
        rendering.dashboard(CASES[case], directory)
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
    assert says(
        good, "50행, 디스크 64.00 KB.", "300.5일 전", "보관 기간은 90일", "The archive holds 25 rows of", "purge."
    )
    assert says(bad, "이상이 있습니다", "is missing.", "build it.", "최초 확인 2025-11-20 07:30:00 UTC")
    assert says(blind, "읽지 못함", "두 번째 점검부터")
    by_api = [page.text[page.text.index("API로 확인한 중복") + 1 :] for page in (good, bad, blind)]
    assert [next(filter(None, map(str.strip, texts))) for texts in by_api] == ["0", "이상이 있습니다", "읽지 못함"]
    course = [attributes.get("aria-label") for attributes in good.all("div") if "chart" in str(attributes.get("class"))]
    assert course == ["점검할 때마다 확인한 중복 그룹 수, 오래된 순"] * 2 + ["통계 초기화 이후 인덱스별 스캔 횟수"]
    document = json.loads((drawn["bad"] / "en/monitor.json").read_text())
    assert document["duplicates"] == 2
    assert [one["name"] for one in document["findings"]] == ["index:x"]


@pytest.mark.parametrize(("second", "below"), [("2025-11-10T09:05:00Z", "09:05"), ("2025-11-11T07:30:00Z", "11-11")])
def test_looks_of_one_day_are_told_apart_by_the_hour(second: str, below: str) -> None:
    drawing = course([{"at": "2025-11-10T07:30:00Z", "duplicates": 2}, {"at": second, "duplicates": 0}], "", "")
    assert f">{below}</text>" in drawing.replace("\n", "")
