"""What a run leaves has no secret, whichever writer has let one through; and loses nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from at_most_one.findings import Finding
from at_most_one.monitoring.prometheus import metrics
from at_most_one.system.artifacts import directory, without_secrets, write

from tests.support.login import umask

URL = "postgresql://deploy:hunter2-hunter@db/service"
TOKEN = "ghp_" + "a1B2" * 9
PAGE = """<!doctype html>
<title>Stopped | key: value</title>
<style>:root { --token: #0a0; --pass: 1px }</style>
<p class="secret" data-key="checks">
  AMO-1014 &amp; &lt;b&gt; &#39;user&#39;
</p>
<svg viewBox="0 0 1 1"><path d="M0 0"/></svg>
<script>let token = "search";</script>
"""


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("report.html", PAGE),
        ("report.md", "# Stopped\n\n| a | b |\n"),
        ("report.json", '{"a": ["b"],\n "count": 3}\n'),
        ("history.jsonl", '{"at": "2025-11-10T05:30:00Z", "findings": []}\n{"at": ""}\n'),
        ("empty.jsonl", ""),
        ("traffic.txt", "text\n"),
    ],
)
def test_what_has_no_secret_stays_as_it_is(name: str, text: str) -> None:
    assert without_secrets(name, text) == text


@pytest.mark.parametrize(
    ("name", "text", "shown"),
    [
        ("a.html", f"<p>\n  it said: {URL} &amp;\n</p>\n", "<p>\n  it said: postgresql://***@db/service &amp;\n</p>\n"),
        ("report.html", f'<p title="{TOKEN}" class="a">b</p>', '<p title="***" class="a">b</p>'),
        ("index.html", "<code>password=&#34;a b&#34;</code>", "<code>password=***</code>"),
        ("report.md", f"it said: {URL}\n", "it said: postgresql://***@db/service\n"),
        ("report.json", json.dumps({"error": URL, "password": "x"}), None),
        ("a.jsonl", json.dumps({"a": f"b\u2028{TOKEN}"}, ensure_ascii=False) + "\n{}\n", '{"a": "b\\n***"}\n{}\n'),
        ("at.prom", f'finding{{key="a",host="{TOKEN}"}} 1\n', 'finding{key="a",host="***"} 1\n'),
    ],
)
def test_what_looks_like_a_secret_is_masked_in_each_format(name: str, text: str, shown: str | None) -> None:
    masked = without_secrets(name, text)
    if shown is None:
        assert json.loads(masked) == {"error": "postgresql://***@db/service", "password": "***"}
    else:
        assert masked == shown
    assert without_secrets(name, masked) == masked


def test_the_figures_of_a_monitor_stay_as_they_are() -> None:
    facts: dict[str, Any] = {"environment": "staging", "plan": "rule", "database": {}, "hosts": {"web1": {}}}
    text = metrics(facts, [Finding("pm2:web1", "s", "e", "n")], 1.0)
    assert 'key="pm2:web1"' in text
    assert without_secrets("at_most_one.prom", text) == text


@pytest.mark.parametrize(("mask", "above"), [(0o000, 0o770), (0o002, 0o770), (0o022, 0o750), (0o077, 0o750)])
def test_owner_and_group_may_read_what_was_written_whatever_the_umask(tmp_path: Path, mask: int, above: int) -> None:
    with umask(mask):
        write(directory(tmp_path / "artifacts/staging/run-1") / "report.md", "text\n")
    made = tmp_path / "artifacts"
    modes = {path: path.stat().st_mode & 0o777 for path in [made, *made.rglob("*")]}
    report = made / "staging/run-1/report.md"
    assert modes == {made: above, report.parents[1]: above, report.parent: 0o750, report: 0o640}
