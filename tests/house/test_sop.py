"""The operating procedure quotes the product: each phrase in quotation marks is one that it prints, in Korean."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOP = (ROOT / "docs/sop.ko.md").read_text(encoding="utf-8")
PRINTS = (
    "roles/*/vars/**/*.yml",
    "roles/*/files/*.yml",
    "roles/*/tasks/*.yml",
    "roles/*/templates/**/*.j2",
    "module_utils/**/*.py",
    "module_utils/at_most_one/locale/ko/**/*.po",
)
QUOTED = sorted(
    {" ".join(text.split()) for text in re.findall(r'"([^"`]+)"', SOP)} - {"큰따옴표", "최대 1개", "배포 전 상태"}
)


@cache
def product() -> str:
    """Every text that the product may print, on one line."""
    files = sorted(path for pattern in PRINTS for path in ROOT.glob(pattern))
    texts = " ".join(re.sub(r'"\n"', "", path.read_text(encoding="utf-8")) for path in files)  # a catalogue cuts lines
    return " ".join(texts.split())


def printed(phrase: str) -> bool:
    """Whether some text has the phrase, with something else for each …."""
    parts = [re.escape(part) for part in phrase.split("…")]
    return re.search(r"[^.]{0,120}?".join(parts).strip(), product()) is not None


def test_the_procedure_quotes_the_product() -> None:
    assert len(QUOTED) >= 15


@pytest.mark.parametrize("phrase", QUOTED)
def test_a_quoted_phrase_is_printed_as_it_is_quoted(phrase: str) -> None:
    assert printed(phrase), f"nothing prints {phrase!r}"


@pytest.mark.parametrize("phrase", QUOTED)
def test_a_quoted_phrase_is_what_its_readers_see(phrase: str) -> None:
    assert re.search("[가-힣]", phrase), f"{phrase!r} is not what report_language ko prints"


def test_a_phrase_that_nothing_prints_is_found() -> None:
    assert not printed("쓰기 차단(fence)이 남아 있음")
    assert not printed("The write wall is …")
