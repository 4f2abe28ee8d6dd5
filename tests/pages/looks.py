"""What a person would see wrong on a page: text that is cut, runs out of its box or leaves the screen."""

from __future__ import annotations

from typing import Any

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page

# Text that is there for screen readers only is no cut text. A pixel is what rounding makes of half of one.
_CUT = """
() => {
  const found = [], name = element => element.tagName.toLowerCase() + ': ' + element.textContent.trim().slice(0, 60);
  const clipped = element => getComputedStyle(element).clipPath === 'inset(50%)';
  const aside = element => element && (clipped(element) || aside(element.parentElement));
  const shown = element => element.checkVisibility() && !aside(element);
  const say = (wrong, what, element) => wrong && found.push(what + ': ' + name(element));
  for (const element of document.querySelectorAll('body, body *')) {
    if (!shown(element)) continue;
    const style = getComputedStyle(element), {scrollWidth, clientWidth, scrollHeight, clientHeight} = element;
    say(style.overflowX !== 'visible' && scrollWidth > clientWidth + 1, 'cut', element);
    say(style.overflowY !== 'visible' && scrollHeight > clientHeight + 1, 'cut', element);
    say(style.textOverflow === 'ellipsis', 'ends in an ellipsis', element);
  }
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let text; text = texts.nextNode();) {
    const parent = text.parentElement, drawing = parent.closest('svg'), range = document.createRange();
    if (!text.data.trim() || parent.closest('style, script') || !shown(parent)) continue;
    let box = drawing || parent;
    while (!drawing && getComputedStyle(box).display === 'inline') box = box.parentElement;
    range.selectNodeContents(text);
    const inside = range.getBoundingClientRect(), outside = box.getBoundingClientRect();
    if (inside.width === 0) continue;
    say(inside.left < outside.left - 1 || inside.right > outside.right + 1, 'leaves its box', parent);
    say(inside.left < 0 || inside.right > innerWidth + 1, 'leaves the screen', parent);
    say(drawing && text.data.includes('\u2026'), 'shortened', parent);
  }
  const page = document.documentElement;
  if (page.scrollWidth > innerWidth) found.push(`the page scrolls sideways: ${page.scrollWidth} > ${innerWidth}`);
  return found;
}
"""
# Letters of a chart that lie on one another are as illegible as cut ones.
_OVERLAPPING = """
() => [...document.querySelectorAll('svg')].filter(svg => svg.checkVisibility()).flatMap(svg => {
  const texts = [...svg.querySelectorAll('text')].filter(text => text.textContent.trim() && text.checkVisibility());
  const boxes = texts.map(text => text.getBoundingClientRect());
  return texts.flatMap((text, one) => texts.slice(one + 1).filter((_, next) => {
    const a = boxes[one], b = boxes[one + 1 + next];
    return Math.min(a.right, b.right) - Math.max(a.left, b.left) > 1
        && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 3;
  }).map(other => `${text.textContent} lies on ${other.textContent}`));
})
"""


def cut(page: Page) -> list[str]:
    """Every text that is not whole where the page shows it."""
    return [*page.evaluate(_CUT), *page.evaluate(_OVERLAPPING)]


def inaccessible(page: Page) -> list[dict[str, Any]]:
    """What axe calls serious or critical: the rule, and the elements that break it."""
    violations = Axe().run(page).response["violations"]
    return [
        {"rule": one["id"], "impact": one["impact"], "elements": [node["html"][:200] for node in one["nodes"]]}
        for one in violations
        if one["impact"] in ("serious", "critical")
    ]
