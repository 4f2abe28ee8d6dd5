"""The monitor's findings and figures in Prometheus' text format."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from ..findings import Finding
from .findings import Facts, online_instances


def metrics(facts: Facts, found: Sequence[Finding], now: float) -> str:
    """The state in Prometheus' text format: https://prometheus.io/docs/instrumenting/exposition_formats/"""
    database = facts["database"]
    verified, fence = database.get("verified") or {}, database.get("fence") or {}
    base = {"environment": facts["environment"], "plan": facts["plan"]}
    families: list[tuple[str, str, list[tuple[Mapping[str, str], float]]]] = [
        ("last_run_timestamp_seconds", "When the monitor ran.", [({}, round(now, 3))]),
        ("findings", "How many things are not as they should be.", [({}, len(found))]),
        ("finding", "Each of them.", [({"key": one.name}, 1) for one in found]),
    ]
    if "duplicates_left" in verified:
        families += [
            ("duplicate_groups", "Groups of rows that break the rule.", [({}, verified["duplicates_left"])]),
            (
                "index_as_planned",
                "Whether a planned index is there by definition, valid and ready.",
                [
                    ({"index": one["name"]}, float(one["verdict"] == "present"))
                    for one in verified["indexes"]
                    if one["verdict"] != "unexpected"
                ],
            ),
        ]
    if "state" in fence:
        up = fence["state"] != "lowered"
        families.append(("fence_up", "Whether the write fence stands.", [({}, float(up))]))
    archive = (database.get("journal") or {}).get("archive") or {}
    if archive:
        overdue = sum(one["rows"] for one in archive["overdue"])
        families += [
            ("archive_rows", "Rows that the archive holds, of every plan.", [({}, archive["rows"])]),
            ("archive_size_bytes", "Size of the archive.", [({}, archive["bytes"])]),
            ("archive_oldest_days", "Age of its oldest row.", [({}, archive["oldest_days"] or 0)]),
            ("archive_overdue_rows", "Rows that purge.yml would remove, of every plan.", [({}, overdue)]),
        ]
    use = (database.get("use") or {}).get("indexes") or []
    for name, key, description in (
        ("index_scans_total", "scans", "Scans of an index since the statistics were reset."),
        ("index_size_bytes", "bytes", "Size of an index."),
        ("index_hit_percent", "hit_percent", "Percent of an index's blocks that were found in memory."),
        ("index_bloat_percent", "bloat_percent", "Estimated percent of an index's pages that its rows do not need."),
    ):
        samples: list[tuple[Mapping[str, str], float]] = [
            ({"index": one["name"]}, float(one[key])) for one in use if one[key] is not None
        ]
        families.append((name, description, samples))
    per_host: list[tuple[Mapping[str, str], float]] = [
        ({"host": host}, count)
        for host, state in sorted(facts["hosts"].items())
        if (count := online_instances(state)) is not None
    ]
    families.append(("instances_online", "Instances of the application that are online.", per_host))
    return "".join(_family(f"at_most_one_{name}", text, samples, base) for name, text, samples in families)


def _family(name: str, text: str, samples: Sequence[tuple[Mapping[str, str], float]], base: Mapping[str, str]) -> str:
    if not samples:
        return ""
    kind = "counter" if name.endswith("_total") else "gauge"
    lines = [f"# HELP {name} {text}", f"# TYPE {name} {kind}"]
    for labels, value in samples:
        shown = ",".join(f'{key}="{_label(str(item))}"' for key, item in {**base, **labels}.items())
        lines.append(f"{name}{{{shown}}} {value:.17g}")
    return "\n".join(lines) + "\n"


def _label(text: str) -> str:
    return re.sub(r'[\\"]', r"\\\g<0>", text).replace("\n", "\\n")
