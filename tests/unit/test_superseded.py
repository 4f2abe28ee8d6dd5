"""The report of a run that was taken back, or taken over, says so: on the page, in the ticket and in the data."""

from __future__ import annotations

import json
from pathlib import Path

from at_most_one.runs import superseded

PAGE = """<title>Stopped | the rule | local</title>
<h1><span class="bad">Stopped</span> <span class="subject">the rule</span></h1>
<main>
<section aria-labelledby="now">
<h2 id="now">What to do now</h2>
<p>drop it</p>
</section>
<section aria-labelledby="rollback">
<h2 id="rollback">How to roll back</h2>
<pre>ansible-playbook rollback.yml -l local</pre>
</section>
<section aria-labelledby="timeline">
</section>
</main>
"""
TICKET = """# Stopped: the rule

| | |
|---|---|

## What to do now

**drop it**

## How to go on

```
ansible-playbook deploy.yml -l local
```

## How to roll back

It takes back run 1.

```
ansible-playbook rollback.yml -l local
```
"""
NOTE = "Already rolled back by run <2>. Do not run rollback.yml for this run."


def test_says_it_first_and_offers_no_command_any_more(tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text(PAGE)
    (tmp_path / "report.md").write_text(TICKET)
    (tmp_path / "report.json").write_text(json.dumps({"outcome": "stopped", "taken_back_by": None}))

    assert len(superseded.write(tmp_path, "Taken <b>ack", "What to do now", NOTE, {"taken_back_by": "2"})) == 3
    texts = {path.name: path.read_text() for path in tmp_path.iterdir()}

    assert json.loads(texts["report.json"]) == {"outcome": "stopped", "taken_back_by": "2"}
    assert texts["report.md"].startswith(f"# Taken <b>ack: the rule\n\n**{NOTE}**\n\n| | |")
    assert '<span class="soft">Taken &lt;b&gt;ack</span> <span class="subject">the rule' in texts["report.html"]
    assert "<title>Taken &lt;b&gt;ack | the rule | local</title>" in texts["report.html"]
    assert "by run &lt;2&gt;. Do not run" in texts["report.html"]
    assert texts["report.html"].count("<section") == texts["report.html"].count("</section>") == 2
    assert "drop it" not in texts["report.html"]
    for text in (texts["report.html"], texts["report.md"]):
        assert "ansible-playbook" not in text

    superseded.write(tmp_path, "Taken <b>ack", "What to do now", NOTE, {"taken_back_by": "2"})
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == texts, "a second time changes nothing"


def test_a_report_that_is_not_here_is_left_out(tmp_path: Path) -> None:
    assert superseded.write(tmp_path / "elsewhere", "x", "What to do now", NOTE, {}) == []
