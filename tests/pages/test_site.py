"""The documents as pages (`make site`), from the disk: on a phone and at a desk, by day and by night."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from tests.pages import looks

SITE = Path(__file__).parents[2] / "dist/site"
# 404.html is for a web server: its addresses begin at the server's root.
PAGES = sorted({path.relative_to(SITE).as_posix() for path in SITE.rglob("*.html")} - {"404.html"})
SEEN = {
    "phone": {"viewport": {"width": 390, "height": 800}, "color_scheme": "light"},
    "desk": {"viewport": {"width": 1280, "height": 800}, "color_scheme": "dark"},
}
# Tables and code may scroll within themselves, nothing else.
OUTSIDE = """
() => {
  const scrolls = element => element && (['auto', 'scroll'].includes(getComputedStyle(element).overflowX)
      || scrolls(element.parentElement.closest('article *')));
  const leaves = box => box.width > 0 && (box.left < -1 || box.right > innerWidth + 1);
  const found = [...document.querySelectorAll('article *')]
      .filter(element => element.checkVisibility() && leaves(element.getBoundingClientRect()) && !scrolls(element))
      .map(element => element.tagName + ': ' + element.textContent.trim().slice(0, 60));
  const width = document.documentElement.scrollWidth;
  return width > innerWidth ? [...found, `the page scrolls sideways: ${width}`] : found;
}
"""


def test_the_site_was_built() -> None:
    assert "index.html" in PAGES, f"{SITE} has no pages. Expected: the site. Next: make site"


@contextmanager
def opened(browser: Browser, name: str, **options: Any) -> Iterator[tuple[Page, list[str]]]:
    """The page as a reader opens it, and what it wrote to the console or asked of a network."""
    context = browser.new_context(**options)
    page, wrong = context.new_page(), list[str]()
    page.on("console", lambda message: wrong.append(message.text))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("request", lambda request: None if request.url.startswith("file:") else wrong.append(request.url))
    try:
        page.goto((SITE / name).as_uri(), wait_until="load")
        yield page, wrong
    finally:
        context.close()


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_whole_and_everybody_can_read_it_without_a_network(browser: Browser, name: str) -> None:
    for device, options in SEEN.items():
        with opened(browser, name, **options) as (page, wrong):
            assert (device, page.evaluate(OUTSIDE), wrong) == (device, [], [])
            assert (device, looks.inaccessible(page)) == (device, [])  # axe itself writes to the console


@pytest.mark.parametrize(("typed", "wanted"), [("waitstart", "docs/versions.html"), ("파기", "docs/sop.ko.html")])
def test_the_search_finds_a_page_on_the_disk(browser: Browser, typed: str, wanted: str) -> None:
    with opened(browser, "index.html", **SEEN["desk"]) as (page, wrong):
        page.locator(".md-search__input").fill(typed)
        page.locator(".md-search__input").press("End")  # the search listens to keys, and fill presses none
        page.locator(f".md-search-result__link[href*='{wanted}']").first.wait_for(state="attached")
        assert wrong == []
