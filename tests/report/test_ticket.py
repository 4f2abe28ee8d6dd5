"""The ticket is Markdown that any renderer reads, and says the same as the page."""

from __future__ import annotations

import json

import pytest
import yaml
from markdown_it import MarkdownIt
from markdown_it.token import Token

from tests.report.conftest import Rendered
from tests.support.report_cases import CASES, ROOT

CONTRACT = {
    *("run_id", "environment", "plan", "commit", "outcome", "check_mode", "failed_phase", "error", "phases", "cleanup"),
    *("indexes", "duplicates_left", "traffic", "checks", "known_faults", "instances", "taken_back_by"),
    *("restored", "who", "asked", "findings", "afterwards"),
}


def tokens(text: str) -> list[Token]:
    return MarkdownIt("commonmark").enable("table").parse(text)


@pytest.mark.parametrize("language", ["en", "ko"])
@pytest.mark.parametrize("case", CASES)
def test_reads_as_markdown_and_nothing_of_a_run_becomes_markup(rendered: Rendered, case: str, language: str) -> None:
    parsed = tokens(rendered(case, language, "report.md"))
    inline = [child for token in parsed for child in token.children or []]

    assert next(token.markup for token in parsed if token.type == "heading_open") == "#"
    assert [token.tag for token in parsed if token.type == "heading_open"].count("h1") == 1
    assert not [token for token in parsed if token.type == "html_block"]
    assert {token.content for token in inline if token.type == "html_inline"} <= {"<br>"}
    shown = "".join(token.content for token in inline)
    assert '<script>alert("&")</script>|`*' in shown


def test_every_table_has_all_its_rows(rendered: Rendered) -> None:
    """A letter | that was not escaped would begin a cell that is cut off; a row that does not belong ends the table."""
    parsed = tokens(rendered("deployed", "en", "report.md"))
    types = [token.type for token in parsed]
    assert types.count("table_open") == 6  # facts, phases, groups, indexes, instances, checks
    assert types.count("tr_open") == (0 + 1 + 6) + (1 + 6) + (1 + 10) + (1 + 3) + (1 + 2) + (1 + 3)


def test_a_stopped_run_says_what_to_do(rendered: Rendered) -> None:
    text = rendered("stopped", "en", "report.md")
    assert text.index("**drop it, then run again.**") < text.index("1 of 3 indexes is different")
    assert "ansible-playbook rollback.yml -i /" in text


@pytest.mark.parametrize("case", CASES)
def test_the_data_keeps_its_contract(rendered: Rendered, case: str) -> None:
    report = json.loads(rendered(case, "en", "report.json"))
    assert set(report) == CONTRACT
    assert report["outcome"] == CASES[case]["run_end"]["outcome"]
    assert report["taken_back_by"] is None, "written by the run that takes this one back"
    assert all(set(phase) == {"name", "status", "seconds"} for phase in report["phases"])


def test_both_languages_say_everything() -> None:
    en, ko = (
        yaml.safe_load((ROOT / f"roles/report/files/words_{language}.yml").read_text()) for language in ("en", "ko")
    )
    assert set(en) == set(ko)
    assert all(set(en[name]) == set(ko[name]) for name in en if isinstance(en[name], dict))
