"""`make collection` builds what installs offline, and finds all of its own parts by the collection's names."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
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
HERE = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
NOWHERE = {
    "environment_name": "local",
    "report_language": "en",
    "app_path": "/nowhere",
    "app_url": "http://127.0.0.1:1",  # nothing listens there
    **{f"database_{name}": "nowhere" for name in ("name", "user", "password")},
    "database_host": "127.0.0.1",
    "database_port": 1,
    **{f"app_{who}_login": {"email": "a", "password": "b"} for who in ("admin", "user")},
}
NAMES = build_collection.names_of(ROOT, NAME)


@pytest.fixture(scope="module")
def user(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project of somebody else, with the built collection, an inventory and a plan; nothing of it is in this tree."""
    directory = tmp_path_factory.mktemp("user")
    built = build_collection.build(directory / "dist")
    run(directory, "ansible-galaxy", "collection", "install", "--offline", str(built), "-p", "collections")
    for path, text in {
        "ansible.cfg": f"[defaults]\ncollections_path = collections\nstdout_callback = {NAME}.phases\n",
        "mine/hosts.yml": json.dumps({"local": {"hosts": {"lab": HERE}}}),
        "mine/target_guard.yml": f"plugin: {NAME}.target_guard\n",
        # An inventory of theirs: two of these begin as our variables do.
        "mine/group_vars/local.yml": json.dumps({**NOWHERE, "database_url": "theirs", "monitor_every": "theirs"}),
    }.items():
        (directory / path).parent.mkdir(parents=True, exist_ok=True)
        (directory / path).write_text(text)
    return directory


def run(directory: Path, program: str, *arguments: str, expected: int = 0) -> str:
    """What it prints. Nothing of this project's settings counts, only those in the user's directory."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
    environment = {**kept, "NO_COLOR": "1"}
    command = [str(BIN / program), *arguments]
    done = subprocess.run(command, cwd=directory, env=environment, capture_output=True, text=True)
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


def test_it_has_the_messages_in_every_language(user: Path) -> None:
    installed = user / "collections/ansible_collections" / NAME.replace(".", "/") / "plugins/module_utils/at_most_one"
    for compiled in (ROOT / "module_utils/at_most_one/locale").rglob("*.mo"):
        copy = installed / compiled.relative_to(ROOT / "module_utils/at_most_one")
        assert copy.read_bytes() == compiled.read_bytes()


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
    assert "--limit locl: " in refused
    assert "AMO-1036" in refused


def test_plans_and_artifacts_are_those_of_the_project_where_it_was_started(user: Path) -> None:
    """And the commands that it offers are of that directory too."""
    monitor = ("ansible-playbook", f"{NAME}.monitor", "-i", "mine", "-l", "local")
    missing = " ".join(run(user, *monitor, expected=2).split())
    assert "There is no plan one-active-inspection-session: plans/one-active-inspection-session.yml does not" in missing
    assert "No role knows" not in missing

    elsewhere = user / "deep/er"
    shutil.copytree(ROOT / "plans", elsewhere / "plans")
    shown = " ".join(run(user, *monitor, "-e", "at_most_one_project=deep/er", expected=2).split())
    assert "Not as it should be: local | aedpics" in shown, "modules of the collection have looked"
    assert "Connection refused" in shown
    assert (elsewhere / "artifacts/local/monitor/index.html").is_file()
    assert not (user / "artifacts").exists()

    wrong = run(
        user, *monitor, "-e", "at_most_one_project=deep/er", "-e", "plan=one-active-inspection-sesion", expected=2
    )
    command = f"ansible-playbook {NAME}.monitor -i mine -l local -e at_most_one_project=deep/er"
    assert f"Next: {command} -e plan=one-active-inspection-session" in wrong


def test_a_plan_is_checked_without_a_checkout(user: Path) -> None:
    script = f"collections/ansible_collections/{NAME.replace('.', '/')}/scripts/plan_check.py"
    (user / "checked.yml").write_text((ROOT / "tests/unit/plans/good.yml").read_text().replace("shop", "7"))
    said = run(user, "python", script, "checked.yml", expected=1)
    assert "checked.yml:2: id is 'good'." in said
    assert "checked.yml:5: schema is 7 (int)." in said
    assert f"as collections/ansible_collections/{NAME.replace('.', '/')}/plans/README.md describes it" in said


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
