"""`make collection` builds what installs offline, and finds all of its own parts by the collection's names."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jinja2
import pytest
import yaml
from jinja2 import nodes

from scripts import build_collection
from tests.conftest import ROOT

BIN = Path(sys.executable).parent
NAME = "aedpics.at_most_one"
MODULES = sorted(path.stem for path in (ROOT / "library").glob("*.py"))
PLAYBOOKS = sorted(path.stem for path in (ROOT / "playbooks").glob("*.yml"))
NAMES = build_collection.names_of(ROOT, NAME)


@pytest.fixture(scope="module")
def user(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project of somebody else, with the built collection, an inventory and a plan; nothing of it is in this tree."""
    directory = tmp_path_factory.mktemp("user")
    built = build_collection.build(directory / "dist")
    run(directory, "ansible-galaxy", "collection", "install", "--offline", str(built), "-p", "collections")
    for path, text in {
        "mine/hosts.yml": "local: {hosts: {lab: {ansible_connection: local}}}\n",
        "mine/target_guard.yml": f"plugin: {NAME}.target_guard\n",
        "mine/group_vars/local.yml": "environment_name: local\n",
    }.items():
        (directory / path).parent.mkdir(parents=True, exist_ok=True)
        (directory / path).write_text(text)
    (directory / "plans").mkdir()
    (directory / "plans/one-active-inspection-session.yml").write_text(
        (ROOT / "plans/one-active-inspection-session.yml").read_text()
    )
    return directory


def run(directory: Path, program: str, *arguments: str, expected: int = 0) -> str:
    """What it prints. Nothing of this project's settings, only the collection in the user's directory."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
    done = subprocess.run(
        [BIN / program, *arguments],
        cwd=directory,
        env={**kept, "ANSIBLE_COLLECTIONS_PATH": str(directory / "collections"), "NO_COLOR": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == expected, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_it_has_every_module_role_and_playbook_and_says_what_it_needs(user: Path) -> None:
    installed = user / "collections/ansible_collections/aedpics/at_most_one"
    assert sorted(path.stem for path in (installed / "plugins/modules").iterdir()) == MODULES
    assert sorted(path.stem for path in (installed / "playbooks").iterdir()) == PLAYBOOKS
    assert {path.name for path in (installed / "roles").iterdir()} == {path.name for path in (ROOT / "roles").iterdir()}
    runtime = yaml.safe_load((installed / "meta/runtime.yml").read_text())
    assert runtime["requires_ansible"] == ">=2.19.0"
    assert {"deploy_run", "index_set"} <= set(runtime["action_groups"]["database"]) <= {*MODULES} - {"notification"}
    assert (installed / "requirements.txt").read_text() == "psycopg2-binary>=2.9,<2.10\npygal>=3.1,<3.2\n"


def test_ansible_doc_knows_every_module(user: Path) -> None:
    """Their fragments too: a module whose fragment is not found has no documentation."""
    documented = json.loads(run(user, "ansible-doc", "--json", *(f"{NAME}.{module}" for module in MODULES)))
    assert {name.rpartition(".")[2] for name, found in documented.items() if found["doc"]["options"]} == set(MODULES)
    for kind, plugin in (("callback", "phases"), ("inventory", "target_guard")):
        assert json.loads(run(user, "ansible-doc", "--json", "--type", kind, f"{NAME}.{plugin}"))


def test_every_playbook_parses_outside_of_this_tree(user: Path) -> None:
    """With the inventory's plugin, which Ansible's own plugin `auto` loads by its name in the file."""
    playbooks = [f"{NAME}.{playbook}" for playbook in PLAYBOOKS]
    shown = run(user, "ansible-playbook", *playbooks, "-i", "mine", "-l", "local", "--syntax-check")
    assert shown.count("playbook: ") == len(PLAYBOOKS)
    refused = run(user, "ansible-playbook", f"{NAME}.deploy", "-i", "mine", "-l", "locl", expected=4)
    assert "--limit locl: locl is neither a host nor a group" in refused


def test_no_part_is_left_with_the_name_that_it_has_in_the_tree(user: Path) -> None:
    """Ansible looks for filters and dynamic includes only once they are needed."""
    installed = user / "collections/ansible_collections/aedpics/at_most_one"
    filters: set[str] = set()
    for path in [*installed.glob("roles/**/*.yml"), *installed.glob("playbooks/*.yml")]:
        content = yaml.safe_load(path.read_text())
        filters |= {name for text in texts(content) for name in filters_of(text)}
        tasks = content if isinstance(content, list) else []
        assert set(keys(tasks)).isdisjoint(MODULES), path
    for path in installed.glob("roles/**/*.j2"):
        filters |= set(filters_of(path.read_text()))
    ours = {name for name in filters if "at_most_one" in name}
    assert {name for name in ours if not name.startswith(f"{NAME}.")} == set()
    assert len(ours) > 10
    for path in installed.glob("plugins/**/*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            modules = [node.module] if isinstance(node, ast.ImportFrom) and not node.level else []
            assert not [name for name in modules if name and re.match(r"(ansible\.module_utils\.)?at_most_one", name)]


def texts(value: Any) -> Iterator[str]:
    for item in value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else [value]:
        if isinstance(item, (Mapping, list)):
            yield from texts(item)
        elif isinstance(item, str):
            yield item


def filters_of(text: str) -> Iterator[str]:
    """The filters of a template, or of an expression such as that of ``when``."""
    for source in (text,) if "{{" in text or "{%" in text else (f"{{{{ {text} }}}}",):
        try:
            tree = jinja2.Environment(autoescape=True).parse(source)
        except jinja2.TemplateSyntaxError:
            assert "at_most_one_" not in text, text  # a sentence
        else:
            yield from (found.name for found in tree.find_all(nodes.Filter))


def keys(tasks: list[Any]) -> Iterator[str]:
    for task in tasks:
        for key, value in task.items():
            yield key
            if key in build_collection.TASK_LISTS:
                yield from keys(value)


@pytest.mark.parametrize(
    ("rename", "before", "after"),
    [
        (
            build_collection.yaml_file,
            "- name: Ask\n  deploy_checklist:\n    rehearsal_evidence: here # rehearsal_evidence: says\n",
            f"- name: Ask\n  {NAME}.deploy_checklist:\n    rehearsal_evidence: here # rehearsal_evidence: says\n",
        ),
        (
            build_collection.yaml_file,
            "- block:\n  - include_role: {name: run}\n  rescue:\n  - ansible.builtin.include_role: {name: run}\n",
            "- block:\n  - include_role: {name: run}\n  rescue:\n  - ansible.builtin.include_role: "
            f"{{name: {NAME}.run}}\n",
        ),
        (
            build_collection.yaml_file,
            'a: "{{ b | at_most_one_markdown }}" # c | at_most_one_markdown\n',
            f'a: "{{{{ b | {NAME}.at_most_one_markdown }}}}" # c | at_most_one_markdown\n',
        ),
        (
            build_collection.python,
            '"""Née"""\nfrom ansible.module_utils.at_most_one.plan import parse\nname = "at_most_one.plan"\n',
            f'"""Née"""\nfrom ansible_collections.{NAME}.plugins.module_utils.at_most_one.plan import parse\n'
            'name = "at_most_one.plan"\n',
        ),
    ],
)
def test_names_are_found_by_structure(rename: Any, before: str, after: str) -> None:
    assert rename(before, NAMES) == after
