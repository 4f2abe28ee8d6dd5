"""The page is one well-formed, accessible file that needs no network, whatever a run has left behind."""

from __future__ import annotations

import itertools
import re
from html.parser import HTMLParser

import pytest

from tests.report.cases import CASES, HOSTILE, ROOT
from tests.report.conftest import Rendered

LANGUAGES = ("en", "ko")
VOID = {"meta", "input", "br", "link", "img", "hr", "wbr"}


class Page(HTMLParser):
    """A page read strictly: every element closed in its order, with what a test asks about."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("style", "script"):
            self.text.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(params=[(case, language) for case in CASES for language in LANGUAGES], ids="-".join)
def page(request: pytest.FixtureRequest, rendered: Rendered) -> tuple[str, str, Page, str]:
    case, language = request.param
    text = rendered(case, language, "report.html")
    return case, language, Page(text), text


def test_nothing_of_a_run_becomes_markup(page: tuple[str, str, Page, str]) -> None:
    _, _, parsed, text = page
    assert "alert(" in text, "the hostile value is shown"
    assert "<script>alert" not in text
    assert HOSTILE in "".join(parsed.text), "and it is shown as it stands"


def test_needs_no_network(page: tuple[str, str, Page, str]) -> None:
    _, _, parsed, text = page
    asking = {"src", "href", "srcset", "action", "poster", "data", "xlink:href"}
    assert not [attributes for _, attributes in parsed.elements if asking & set(attributes)]
    assert "http://" not in text.replace("http://127.0.0.1", "")
    assert "https://" not in text
    assert "@import" not in text
    assert "url(" not in text


def test_has_landmarks_and_headings_in_their_order(page: tuple[str, str, Page, str]) -> None:
    _, language, parsed, _ = page
    assert parsed.all("html") == [{"lang": language}]
    assert [len(parsed.all(landmark)) for landmark in ("header", "main", "footer")] == [1, 1, 1]
    levels = [int(tag[1]) for tag, _ in parsed.elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(later <= earlier + 1 for earlier, later in itertools.pairwise(levels))
    identities = [attributes["id"] for _, attributes in parsed.elements if "id" in attributes]
    assert len(identities) == len(set(identities))
    assert all(section["aria-labelledby"] in identities for section in parsed.all("section"))
    assert all(label["for"] in identities for label in parsed.all("label"))


def test_every_header_of_a_table_says_what_it_heads(page: tuple[str, str, Page, str]) -> None:
    _, _, parsed, _ = page
    assert all(header.get("scope") in ("col", "row") for header in parsed.all("th"))
    charts = [attributes for _, attributes in parsed.elements if "chart" in (attributes.get("class") or "").split()]
    assert all(chart["role"] == "img" and chart["aria-label"] for chart in charts)


def test_says_the_outcome_first(page: tuple[str, str, Page, str]) -> None:
    case, language, _, text = page
    first = {
        "deployed": {"en": "Deployed", "ko": "배포 완료"},
        "stopped": {"en": "Stopped", "ko": "중단됨"},
        "rolled_back": {"en": "Rolled back", "ko": "롤백 완료"},
        "stopped_late": {"en": "Stopped", "ko": "중단됨"},
        "stopped_early": {"en": "Stopped", "ko": "중단됨"},
    }[case][language]
    assert re.search(r"<h1>\s*<span class=\"(good|bad)\">" + first, text)


def test_a_stopped_run_shows_what_to_do_before_what_was_seen(rendered: Rendered) -> None:
    text = rendered("stopped", "en", "report.html")
    order = ["drop it, then run again.", "1 of 3 indexes is different", "the plan&#39;s", "rollback.yml", "Timeline"]
    places = [text.index(words) for words in order]
    assert places == sorted(places)
    assert "ansible-playbook rollback.yml -i /" in text  # the inventory that was given, not one of the same name
    assert "-l web1 -e" in text  # the values of this run, then the one to add
    assert "facts.json -e rollback_restore_rows=true" in text


def test_a_deployed_run_shows_every_part(rendered: Rendered) -> None:
    text = rendered("deployed", "en", "report.html").replace("<wbr>", "")  # where a long name may be broken
    for words in (
        "CREATE UNIQUE INDEX idx_inspection_sessions_active_session_per_equipment ON aedpics.inspection_sessions",
        "180 ms",
        "42 ms",
        "Search the groups",
        "210 ms",
        "41.0",
        "05:31:10.123",
        "Checklist",
        "201",
        "cleanup_plan.json",
    ):
        assert words in text, words
    assert text.count("<svg") == 5, "timeline, course and latency; on a phone what long names leave room for"
    assert rendered("stopped_late", "en", "report.html").count("<svg") == 6, "all for both"
    assert "Slowest answer (ms)" in text


def test_a_rollback_calls_a_missing_index_good(rendered: Rendered) -> None:
    text = rendered("rolled_back", "en", "report.html")
    assert 'class="word good">missing' in text
    assert "deploy.yml -i /" in text
    assert "rollback.yml" not in text


def test_letters_stand_out_from_every_ground() -> None:
    """WCAG 2.2, 1.4.3: at least 4.5 to 1, in the light and in the dark."""

    def luminance(colour: str) -> float:
        digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
        parts = [int(digits[place : place + 2], 16) / 255 for place in (0, 2, 4)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    style = (ROOT / "roles/report/templates/page/style.css").read_text()
    schemes = [dict(re.findall(r"--(\w+): (#\w+)", block)) for block in re.findall(r":root \{([^}]+)\}", style)]
    assert len(schemes) == 3, "light, dark, paper"
    for scheme in schemes:
        for letters in ("ink", "soft", "good", "bad"):
            for ground in ("ground", "card"):
                light, dark = sorted((luminance(scheme[letters]), luminance(scheme[ground])), reverse=True)
                assert (light + 0.05) / (dark + 0.05) >= 4.5, (letters, ground, scheme)
