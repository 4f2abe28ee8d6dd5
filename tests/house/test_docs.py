"""Every page of docs/ says when to read it, and stands in the site's contents and the index at the same moment."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
PAGES = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob("docs/*.md"))
TITLE = re.compile(r"# [^\n]+\n\n(?:<!--.*?-->\n\n)?(?P<opening>.+?)(?:\n\n|\Z)", re.DOTALL)
WHEN = {".md": r"Read it (when|while|before|after)\b", ".ko.md": r"[^.]+ 때 읽습니다\.|[^.]+ 전에 읽습니다\."}
NOT_IN_THE_INDEX = {"README.md", "docs/index.md"}


class Loader(yaml.SafeLoader):
    """The site's settings name a Python function."""


Loader.add_multi_constructor("tag:yaml.org,2002:python/", lambda loader, suffix, node: suffix)


def contents() -> dict[str, list[str]]:
    """The pages of the site by moment; those of no moment have the empty one."""
    settings: dict[str, Any] = yaml.load((ROOT / ".config/site/mkdocs.yml").read_text(), Loader)
    found: dict[str, list[str]] = {"": []}
    for entry in settings["nav"]:
        ((name, pages),) = entry.items()
        found |= {name: pages} if isinstance(pages, list) else {"": [*found[""], pages]}
    return found


def opens_with_its_moment(page: str, text: str) -> bool:
    opening = TITLE.match(text)
    when = WHEN[".ko.md" if page.endswith(".ko.md") else ".md"]
    return bool(opening and re.match(when, opening["opening"]))


@pytest.mark.parametrize("page", PAGES)
def test_a_page_opens_with_when_to_read_it(page: str) -> None:
    assert opens_with_its_moment(page, (ROOT / page).read_text()), f"{page}: Expected: {WHEN}"


@pytest.mark.parametrize(
    ("page", "text"),
    [
        ("docs/a.md", "# A\n\nThis is A. Read it when you can.\n"),
        ("docs/a.md", "Read it when you can.\n"),
        ("docs/a.ko.md", "# A\n\nA입니다.\n"),
    ],
)
def test_an_opening_without_a_moment_is_found(page: str, text: str) -> None:
    assert not opens_with_its_moment(page, text)


def test_every_page_is_in_the_contents_once() -> None:
    named = [page for pages in contents().values() for page in pages]
    assert sorted(page for page in named if page.startswith("docs/")) == PAGES
    assert [page for page in named if not (ROOT / page).is_file()] == []


def test_the_index_has_the_same_pages_at_the_same_moments() -> None:
    index = (ROOT / "docs/index.md").read_text()
    seen: dict[str, set[str]] = {}
    for part in index.split("\n## ")[1:]:
        title, text = part.split("\n", 1)
        targets = re.findall(r"^\| \[.+?\]\(([^)#]+)\)", text, re.MULTILINE)
        seen[title] = {(ROOT / "docs" / target).resolve().relative_to(ROOT).as_posix() for target in targets}
    moments = {name: {*pages} - NOT_IN_THE_INDEX for name, pages in contents().items() if name}
    assert seen == moments
