"""Filters of the pages and messages: what is said in them, text as Markdown, charts."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "module_utils"))
from at_most_one.display.terminal import labelled
from at_most_one.report.document import document
from at_most_one.report.facts import RunFacts
from at_most_one.report.page import page

# Chosen for a contrast of at least 3:1 on both grounds (WCAG 2.2, 1.4.11).
_GOOD, _SOFT, _BAD = "#2f8f46", "#6b7a8c", "#d1353f"
_BLUES = ("#4a90d9", "#8a6fd1", "#d0731f")
_STATUS_COLOURS = {"ok": _GOOD, "unchanged": _SOFT, "skipped": _SOFT, "failed": _BAD}
_WIDTHS = {"wide": 860, "narrow": 340}
# What an inline drawing does not need: scripts, comments, namespaces that look like addresses, ids that are not unique.
_NOT_DRAWN = re.compile(
    r"<script.*?</script>|<!--.*?-->|<\?xml.*?\?>|\sxmlns(:\w+)?=\"[^\"]*\"|\sid=\"activate-serie-\d+\"", re.DOTALL
)


def view(facts: Mapping[str, Any], words: Mapping[str, Any]) -> dict[str, Any]:
    """What the report's templates read: ``report``, which is report.json, ``page`` and ``words``."""
    run = RunFacts.of_role(facts)
    report = document(run)
    return {"report": report, "page": vars(page(run, report, words)), "words": words}


def markdown(value: Any) -> str:
    """A value inside a Markdown table or line: on one line, and nothing in it is markup."""
    text = " ".join(str(value).split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    text = re.sub(r"([\\`*_\[\]|#~])", r"\\\1", text)
    return re.sub(r"(?<!\w)@", "&#64;", text)  # a forge would tell whoever has that name


def timeline(phases: Sequence[Mapping[str, Any]], names: Mapping[str, str], label: str) -> str:
    """Each phase as a bar that begins where the one before has ended, in seconds; drawn for a desk and for a phone."""
    if not phases:
        return ""
    spans = [float(phase.get("seconds") or 0) for phase in phases]
    starts = [sum(spans[:number]) for number in range(len(spans))]
    bars = [
        {"value": round(span, 1), "color": _STATUS_COLOURS.get(str(phase.get("status")), _SOFT)}
        for phase, span in zip(phases, spans, strict=True)
    ]
    labels = [str(names.get(phase["name"], phase["name"])) for phase in phases]
    gaps = [{"value": start, "color": "transparent"} for start in starts]
    return _drawn("HorizontalStackedBar", labels, [("", gaps), ("", bars)], label=label, legend=False)


def latency(traffic: Mapping[str, Any], label: str) -> str:
    """The percentiles of each watched request, in milliseconds; empty when nothing was watched or answered."""
    targets = traffic.get("targets") or {}
    answered = {name: figures for name, figures in targets.items() if figures.get("p50_ms") is not None}
    if not answered:
        return ""
    series = [
        (f"p{percent}", [{"value": float(figures[f"p{percent}_ms"])} for figures in answered.values()])
        for percent in (50, 95, 99)
    ]
    return _drawn("HorizontalBar", list(answered), series, label=label, legend=True)


def traffic_course(traffic: Mapping[str, Any], label: str, slowest: str, failures: str) -> str:
    """The slowest answer of each step of the receipt in milliseconds and, if there were any, the failed requests."""
    steps = traffic.get("course") or []
    if len(steps) < 2:
        return ""
    series = [(slowest, [{"value": step["slowest_ms"]} for step in steps])]
    if any(step["failures"] for step in steps):
        series.append((failures, [{"value": step["failures"] or None} for step in steps]))
    return _drawn("Line", [f"{step['from_s']} s" for step in steps], series, label=label, legend=True, upright=True)


def course(history: Sequence[Mapping[str, Any]], label: str, title: str) -> str:
    """The duplicates of each look of the monitor, the last 90, oldest first; empty until there are two.

    Under each look stands its day, or while all are of one day its hour and minute, in UTC.
    """
    looks = [look for look in history if look.get("duplicates") is not None][-90:]
    if len(looks) < 2:
        return ""
    values = [{"value": int(look["duplicates"])} for look in looks]
    one_day = len({str(look["at"])[:10] for look in looks}) == 1
    labels = [str(look["at"])[11:16] if one_day else str(look["at"])[5:10] for look in looks]
    return _drawn("Line", labels, [(title, values)], label=label, legend=False, upright=True)


def scans(indexes: Sequence[Mapping[str, Any]], label: str) -> str:
    """How often each index was used, at a desk; on a phone long names leave no room. Empty when none was used yet."""
    bars = [{"value": int(index["scans"]), "color": _GOOD if index["planned"] else _SOFT} for index in indexes]
    names = [str(index["name"]) for index in indexes]
    used = any(bar["value"] for bar in bars)
    return _drawn("HorizontalBar", names, [("", bars)], label=label, legend=False) if used else ""


def _needed_width(labels: Sequence[str]) -> int:
    """Pixels of the longest label: a Korean letter is as wide as the font is high, another one 0.6 of it."""
    return round(13 * max(sum(0.6 if ord(letter) < 0x1100 else 1.0 for letter in label) for label in labels))


def _missing_width(labels: Sequence[str]) -> int:
    """Pixels: pygal reserves 0.6 of the font's height for every letter, a Korean one included."""
    return max(0, _needed_width(labels) - round(13 * 0.6 * max(len(label) for label in labels)))


def _drawn(
    kind: str,
    labels: list[str],
    series: Iterable[tuple[str, Any]],
    *,
    label: str,
    legend: bool,
    upright: bool = False,
) -> str:
    """Two inline drawings; the page's style shows the one that fits. Without the library none: the tables remain.

    An upright one has its labels below, in their order; the others have them beside, from top to bottom. Where these
    would take a phone's room, only a desk gets the drawing.
    """
    try:
        import pygal
        from markupsafe import escape
        from pygal.style import Style
    except ImportError:
        return ""
    drawings, series = [], list(series)
    row = 26 if legend is False else 62
    more: dict[str, Any] = {"margin_right": 24}
    if upright:
        most = max([int(one["value"]) for _, values in series for one in values if one["value"] is not None] + [1])
        steps = list(range(0, most + 1, max(1, -(-most // 5))))  # whole numbers only
        more = {"margin_right": 44, "show_minor_x_labels": False, "y_labels": steps, "dots_size": 2}
    for name, width in _WIDTHS.items():
        if not upright and _needed_width(labels) > 0.6 * width:
            continue
        columns = 3 if name == "wide" else 1  # beside long labels a phone has no room for a legend in one line
        style = Style(
            background="transparent",
            plot_background="transparent",
            foreground="var(--ink)",
            foreground_strong="var(--ink)",
            foreground_subtle="var(--line)",
            font_family="inherit",
            label_font_size=13,
            major_label_font_size=13,
            legend_font_size=13,
            value_font_size=12,
            opacity="1",
            opacity_hover="1",
            transition="none",
            guide_stroke_color="var(--line)",
            major_guide_stroke_color="var(--line)",
            colors=_BLUES,
        )
        chart = getattr(pygal, kind)(
            style=style, width=width, explicit_size=False,
            height=240 if upright else row * len(labels) + (56 + 36 + 22 * (3 // columns - 1) if legend else 56),
            show_legend=legend, legend_at_bottom=True, legend_at_bottom_columns=columns, js=[], spacing=8,
            margin=4, margin_left=4 + (0 if upright else _missing_width(labels)),
            truncate_label=-1, truncate_legend=-1, print_values=False, show_y_guides=True, rounded_bars=2,
            x_labels_major_count=4, y_labels_major_count=4, disable_xml_declaration=True, pretty_print=False,
            value_formatter=lambda value: f"{value:g}", x_label_rotation=0, max_scale=4 if name == "narrow" else 10,
            **more,
        )  # fmt: skip
        chart.x_labels = labels if upright else list(reversed(labels))
        for title, values in series:
            chart.add(title, values if upright else list(reversed(values)))
        drawing = _NOT_DRAWN.sub("", chart.render(is_unicode=True)).strip()
        drawings.append(f'<div class="chart {name}" role="img" aria-label="{escape(label)}">{drawing}</div>')
    return "".join(drawings)


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, Any]:
        return {
            "at_most_one_course_chart": course,
            "at_most_one_labelled": labelled,
            "at_most_one_latency_chart": latency,
            "at_most_one_markdown": markdown,
            "at_most_one_report_view": view,
            "at_most_one_scans_chart": scans,
            "at_most_one_timeline_chart": timeline,
            "at_most_one_traffic_chart": traffic_course,
        }
