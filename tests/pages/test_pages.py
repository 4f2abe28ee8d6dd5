"""Report and dashboard in a real browser: on a phone, at a desk, on paper; by day and by night; in both languages."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from tests.pages import looks
from tests.pages.conftest import PAGES, Written
from tests.support.rendering import LANGUAGES

WIDTHS = {"phone": 360, "tablet": 768, "desk": 1280}
PAPER = 718  # A4 between margins of 1 cm, in pixels of 1/96 inch


@contextmanager
def opened(browser: Browser, file: Path, width: int, language: str, **options: Any) -> Iterator[Page]:
    """The page as it stands after its scripts have run. It wrote nothing to the console and asked for nothing else."""
    context = browser.new_context(viewport={"width": width, "height": 800}, locale=language, **options)
    page = context.new_page()
    wrong: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: wrong.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.on("websocket", lambda socket: asked.append(socket.url))
    try:
        page.goto(file.as_uri(), wait_until="load")
        yield page
        assert wrong == []
        assert asked == [file.as_uri()]
    finally:
        context.close()


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("name", PAGES)
def test_nothing_is_cut(browser: Browser, written: Written, name: str, language: str) -> None:
    for device, width in WIDTHS.items():
        with opened(browser, written(name, language), width, language) as page:
            assert (device, looks.cut(page)) == (device, [])
    with opened(browser, written(name, language), PAPER, language) as page:
        page.emulate_media(media="print")
        assert ("paper", looks.cut(page)) == ("paper", [])


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("name", PAGES)
def test_everybody_can_read_it(browser: Browser, written: Written, name: str, language: str) -> None:
    for width in (WIDTHS["phone"], WIDTHS["desk"]):
        for scheme in ("light", "dark"):
            with opened(browser, written(name, language), width, language, color_scheme=scheme) as page:
                assert (width, scheme, looks.inaccessible(page)) == (width, scheme, [])


def test_the_search_shows_the_groups_that_match(browser: Browser, written: Written) -> None:
    with opened(browser, written("report-deployed", "en"), WIDTHS["phone"], "en") as page:
        page.get_by_label("Search the groups").fill("11-0000003")
        assert page.locator("#groups tbody tr:visible").count() == 1
        assert page.locator("#groups-shown").inner_text() == "1"


# A look that finds nothing on any page finds nothing at all: each is shown what it is there for.
BROKEN = {
    "cut: p": '<p style="width:4rem;overflow:hidden;white-space:nowrap">one word and another word</p>',
    "leaves its box: td": '<table style="table-layout:fixed;width:4rem"><td>unbreakableunbreakable</td></table>',
    "the page scrolls sideways": '<div style="width:900px">wide</div>',
    "shortened: text": '<svg width="90" height="20"><text y="15">too lo…</text></svg>',
    "leaves its box: text": '<svg width="40" height="20"><text y="15">longer than its drawing</text></svg>',
    "a lies on b": '<svg width="90" height="20"><text y="15">a</text><text y="15">b</text></svg>',
}


@pytest.mark.parametrize("finding", BROKEN)
def test_a_look_finds_what_it_is_there_for(browser: Browser, tmp_path: Path, finding: str) -> None:
    file = tmp_path / "page.html"
    file.write_text(f'<!doctype html><html lang="en"><title>t</title><body>{BROKEN[finding]}')
    with opened(browser, file, WIDTHS["phone"], "en") as page:
        assert any(found.startswith(finding) for found in looks.cut(page))


def test_axe_finds_what_it_is_there_for(browser: Browser, tmp_path: Path) -> None:
    file = tmp_path / "page.html"
    file.write_text('<!doctype html><title>t</title><p style="color:#aaa;background:#fff">pale</p><input>')
    with opened(browser, file, WIDTHS["phone"], "en") as page:
        found = {one["rule"] for one in looks.inaccessible(page)}
        assert {"html-has-lang", "color-contrast", "label"} <= found
