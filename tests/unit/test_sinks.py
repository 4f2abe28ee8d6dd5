"""What comes from outside (rows, files, branches, plans) is text wherever it is shown: one property for each place.

The alphabets hold what the place itself gives a meaning to.
"""

from __future__ import annotations

import html
import json
import re
import shlex
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from at_most_one.findings import Finding
from at_most_one.monitoring.prometheus import metrics
from at_most_one.notify.messages import Notice, for_slack
from at_most_one.release import git_origin
from at_most_one.runs import superseded
from at_most_one.system import command_line
from hypothesis import given
from hypothesis import strategies as st
from jinja2 import Environment, FileSystemLoader
from markdown_it import MarkdownIt

from filter_plugins.at_most_one_report import markdown

ROOT = Path(__file__).parents[2]
PAGE = Environment(loader=FileSystemLoader(ROOT / "roles/report/templates"), autoescape=False)  # as Ansible renders it


def of(alphabet: str) -> st.SearchStrategy[str]:
    return st.text(alphabet=alphabet + "a0 .한\u2028\x85\x1b", max_size=30)


class _Read(HTMLParser):
    """The tags, attributes and text of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, list[tuple[str, str | None]]]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, attrs))

    def handle_data(self, data: str) -> None:
        self.text += data


@given(of("<>&\"'/=!-;#`\n{}%"))
def test_html(value: str) -> None:
    cells = PAGE.get_template("page/cells.j2").module.__dict__
    for shown, tags in (
        (cells["row"]({"id": value}), ["code", "br"]),
        (cells["number"](value), []),
        (cells["breaking"](value.replace("_", "")), []),
    ):
        read = _Read()
        read.feed(str(shown))
        read.close()
        assert [tag for tag, _ in read.tags] == tags
        assert read.text == value
    page = superseded.in_page('<h1><span class="bad">x</span></h1><title>x |', value, value, value)
    read = _Read()
    read.feed(page)
    read.close()
    assert [tag for tag, _ in read.tags if tag not in ("p", "strong", "title")] == ["h1", "span"]


@given(of("\\\\`*_[]()|#~<>&!+-=:@/\n\r\t1.\"'{}"))
def test_markdown(value: str) -> None:
    parser = MarkdownIt("commonmark").enable(["table", "strikethrough"])
    words = " ".join(value.split())
    for document, kinds in (
        (f"| a | b |\n| --- | --- |\n| {markdown(value)} | end |\n", {"td"}),
        (f"text: {markdown(value)} end\n", {"paragraph"}),
    ):
        inline = [token for token in parser.parse(document) if token.type == "inline"]
        told = inline[-2] if "td" in kinds else inline[-1]
        assert {child.type for child in told.children or []} <= {"text", "text_special"}
        text = "".join(child.content for child in told.children or [])
        assert text == (words.strip() if "td" in kinds else f"text: {words} end")
    assert not re.search(r"(?<![\w&])@", markdown(value))  # nobody is told


@given(of("<>&!@#|*_~`:\n\"'"))
def test_slack(value: str) -> None:
    words = {"seen": "Seen", "expected": "Expected", "next_step": "Next"}
    body = for_slack(Notice("stop", value, ((value, value),), f"{value} Expected: x Next: y", words))
    section = body["blocks"][1]["fields"][0]["text"]
    assert html.unescape(section) == f"*{value}*\n{value}"
    for text in [body["text"], *re.findall(r'"mrkdwn", "text": "((?:[^"\\\\]|\\\\.)*)"', json.dumps(body))]:
        assert not re.search(r"[<>]|&(?!amp;|lt;|gt;)", text)


@given(of('\\\\"\n{}=,\t#'), of('\\\\"\n{}=,#'))
def test_prometheus(environment: str, host: str) -> None:
    facts: dict[str, Any] = {
        **{"environment": environment, "plan": host, "database": {}},
        "hosts": {host: {"pm2": {"instances": []}}},
    }
    told = metrics(facts, [Finding(environment, "s", "e", "n")], 1.0)
    label = r'[a-z_]+="(?:[^"\\\n]|\\[\\n"])*"'
    line = re.compile(rf"at_most_one_[a-z_]+\{{({label}(?:,{label})*)\}} \S+|# (?:HELP|TYPE) [a-z_]+ [^\n]+")
    for one in told.removesuffix("\n").split("\n"):
        assert line.fullmatch(one), one
    (shown,) = re.findall(r'instances_online\{.*host="((?:[^"\\\n]|\\.)*)"\}', told)
    meant = {"\\\\": "\\", "\\n": "\n", '\\"': '"'}
    assert re.sub(r"\\.", lambda found: meant[found[0]], shown) == host


@given(of("'\"\\\\$`;&|<>*?!(){}[]#~=\n\t-"), of("'\"\\\\$`;|\n\t"))
def test_shell(limit: str, value: str) -> None:
    given_values = json.dumps({"plan": value})
    options = {"inventory": ["inventories/x"], "subset": limit, "extra_vars": [given_values], "args": ["deploy.yml"]}
    words = shlex.split(command_line.command("deploy.yml", options, str(ROOT)))
    assert words[:4] == ["ansible-playbook", "deploy.yml", "-i", "inventories/x"]
    assert words[4:6] == (["-l", limit] if limit else words[4:6])
    assert json.loads(words[-1]) == {"plan": value}


@pytest.mark.parametrize("run_id", ["..", ".", "", "a/../..", "/etc", "latest", "a\n", "-", "../x"])
def test_a_path_is_made_of_no_name_that_leads_elsewhere(run_id: str) -> None:
    assert superseded.directory_of(Path("artifacts/staging"), run_id) is None


@given(st.text(alphabet="./\\\\~\n-_aA0:*", max_size=12))
def test_paths(run_id: str) -> None:
    found = superseded.directory_of(Path("/artifacts/staging"), run_id)
    assert found is None or (found.resolve().parent == Path("/artifacts/staging") and found.name == run_id)


def test_a_branch_is_the_one_of_that_name() -> None:
    """ls-remote takes a pattern, which the end of another branch's name and a star match as well."""
    answer = "1111 refs/heads/a/refs/heads/main\n2222 refs/heads/main\n".replace(" ", "\t")
    assert git_origin.commit_of(answer, "main") == "2222"
    assert git_origin.commit_of(answer, "*") is None
    assert git_origin.commit_of(answer, "ma?n") is None
