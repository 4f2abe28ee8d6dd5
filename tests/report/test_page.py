"""The page is one well-formed, accessible file that needs no network, whatever a run has left behind."""

from __future__ import annotations

import itertools
import json
import re

import pytest

from tests.report.conftest import Rendered
from tests.support.html_page import Page
from tests.support.report_cases import AFTER, BEFORE, CASES, EARLIER, HOSTILE, ROOT, RUN

LANGUAGES = ("en", "ko")


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
        "left": {"en": "Rolled back without 2 rows", "ko": r"롤백 완료\(2행 제외\)"},
        "taken_back": {"en": "Rolled back", "ko": "롤백 완료"},
        "refused": {"en": "Stopped", "ko": "중단됨"},
        "above_the_ceiling": {"en": "Stopped", "ko": "중단됨"},
        "running": {"en": "Running", "ko": "실행 중"},
        "verified": {"en": "Done as asked: Verify", "ko": "요청한 단계만 실행: 인덱스 검증"},
    }[case][language]
    assert re.search(r"<h1>\s*<span class=\"(good|bad|soft)\">" + first, text)


def test_a_stopped_run_shows_what_to_do_before_what_was_seen(rendered: Rendered) -> None:
    text = rendered("stopped", "en", "report.html")
    order = ["drop it, then run again.", "1 of 3 indexes is different", "the plan&#39;s", "rollback.yml", "Timeline"]
    places = [text.index(words) for words in order]
    assert places == sorted(places)
    assert "ansible-playbook rollback.yml -i /" in text  # the inventory that was given, not one of the same name
    assert "-l web1 -e" in text  # the values of this run, then the one to add
    assert "facts.json -e rollback_restore_rows=true" in text


def test_what_a_run_did_not_get_to_is_one_line(rendered: Rendered) -> None:
    text = rendered("stopped_early", "en", "report.html")
    empty = re.search("Not reached, or not needed: ([^<]*)[.]<", text)
    assert empty
    assert {"Timeline", "Clean-up", "Indexes", "Instances", "Health checks"} <= set(empty[1].split(", "))
    assert text.count("<h2") == 3, "what to do now, how to go on, how to roll back"
    assert "Not reached" not in rendered("running", "en", "report.html")


def test_what_was_found_is_told_where_the_clean_up_stopped_before_it_removed_a_row(rendered: Rendered) -> None:
    found = json.loads(rendered("above_the_ceiling", "en", "report.json"))["cleanup"]
    assert {name: found[name] for name in ("groups", "planned", "removed", "archived")} == {
        "groups": 4,
        "planned": 8,
        "removed": 0,
        "archived": 0,
    }


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
    assert "ansible-playbook rollback.yml" not in text
    assert "do not run rollback.yml again" in text


@pytest.mark.parametrize("name", ["report.html", "report.md"])
def test_the_way_back_is_offered_where_this_run_is_what_it_takes_back(rendered: Rendered, name: str) -> None:
    stopped, refused = rendered("stopped", "en", name), rendered("refused", "en", name)
    takes = f"It takes back run {RUN}, {EARLIER}: {BEFORE[:12]} serves again instead of {AFTER[:12]}."
    assert takes in stopped
    assert "ansible-playbook rollback.yml" in stopped
    assert "ansible-playbook rollback.yml" not in refused, "it would take back the deployment before this run"
    assert "ansible-playbook deploy.yml" in refused


@pytest.mark.parametrize("name", ["report.html", "report.md"])
def test_a_run_that_took_itself_back_asks_for_no_rollback(rendered: Rendered, name: str) -> None:
    text = rendered("taken_back", "en", name)
    assert "It is already rolled back: do not run rollback.yml." in text
    assert "ansible-playbook rollback.yml" not in text
    assert "read in traffic.json what failed and when." in text.replace("\\", "")
    assert "3 of the planned indexes dropped, 20 rows restored" in text
    assert "이미 되돌렸습니다. rollback.yml을 실행하지 마십시오." in rendered("taken_back", "ko", name)


@pytest.mark.parametrize("name", ["report.html", "report.md"])
def test_a_rollback_that_left_rows_in_the_archive_never_reads_as_before(rendered: Rendered, name: str) -> None:
    text, korean = (rendered("left", language, name).replace("\\", "") for language in ("en", "ko"))
    assert "Rolled back without 2 rows" in text
    assert "the database are as they were before" not in text
    assert "2 rows of aedpics.inspection_sessions: constraint sessions_fkey rejects them" in text
    assert "facts.json -e rollback_only_rows=true" in text
    assert "do not run rollback.yml" not in text
    assert "롤백 완료(2행 제외)" in korean
    assert "aedpics.inspection_sessions 2행: 제약 조건 sessions_fkey 위반" in korean


@pytest.mark.parametrize("name", ["report.html", "report.md"])
def test_a_run_at_work_says_how_to_see_that_and_what_to_do_if_it_is_dead(rendered: Rendered, name: str) -> None:
    text = rendered("running", "en", name)
    assert "its process 4242 on gateway-1 shows that (ps -p 4242)" in text
    assert "ansible-playbook deploy.yml -i /" in text
    assert "rollback.yml" not in text


@pytest.mark.parametrize("name", ["report.html", "report.md"])
def test_single_phases_say_what_they_have_proven(rendered: Rendered, name: str) -> None:
    text = rendered("verified", "en", name)
    assert "exactly the 3 planned indexes, 0 duplicates" in text
    assert "The run was asked for single phases" in text
    for words in ("Clean-up", "Health checks", "Write pause", "did not get there", "Nothing was changed"):
        assert words not in text, words


def test_a_deployment_that_lost_requests_says_how_many(rendered: Rendered) -> None:
    assert "1 of 240 requests failed (0.42 %)" in rendered("deployed", "en", "report.html")
    assert "요청 240건 중 1건 실패(0.42 %)" in rendered("deployed", "ko", "report.md")


def test_every_open_gate_is_a_finding_of_its_own(rendered: Rendered) -> None:
    text = rendered("refused", "en", "report.html")
    places = [text.index(words) for words in ("set prepare_backup_taken_at.", "[backup] no age", "at most 24 hours.")]
    assert places == sorted(places)
    assert "gates of the checklist are open" not in text, "the list says how many"


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
