"""What the documents say of ansible-core and Python is what matrix/core.json has, of the versions that are locked."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from matrix import core
from matrix.core import Python, Result
from matrix.run import MatrixError
from scripts import build_collection

ROOT = Path(__file__).parents[2]
RUN = Result("2.21.5", "3.13", "playbooks", "", "passed", 12)
LOCK = """\
alembic==1.20.1 \\
    --hash=sha256:01
    # via -r requirements/dev.in
ansible-core==2.19.14 \\
    --hash=sha256:02 \\
    --hash=sha256:03
    # via
    #   ansible-lint
ansible-lint==26.10.1 \\
    --hash=sha256:04
"""


@pytest.mark.parametrize("page", core.PAGES)
def test_a_document_has_the_table_of_what_was_run(page: str) -> None:
    text = (ROOT / page).read_text()
    assert core.page(text, core.kept(), core.PAGES[page]) == text, "Next: make docs"


def test_what_was_run_is_what_is_installed_now() -> None:
    """A newer version in a lock file has shown nothing yet: make core-matrix, or remove its lines from core.json."""
    assert [one for one in core.kept() if one.core != core.locked(core.series(one.core))] == []


def test_the_documents_name_the_versions_that_have_passed() -> None:
    passed = [name for name in core.CORES if core.has_passed(core.kept(), name)]
    for page in ("README.md", "README.ko.md"):
        text = (ROOT / page).read_text().replace(core.table(core.kept(), core.PAGES[page]), "")
        assert {*re.findall(r"(?<![\d.])2\.\d\d(?!\d|\.\d)", text)} & {*core.CORES, "2.18", "2.22"} == {*passed}, page
    requires = build_collection.read_settings()["requires_ansible"]
    assert requires == f">={passed[0]}.0"


def test_a_version_has_passed_once_a_deployment_has_and_nothing_failed() -> None:
    steps = [replace(RUN, step=step, hosts="3.9" * (step in core.ON_HOSTS)) for step in core.STEPS]
    assert core.has_passed(steps, "2.21")
    assert not core.has_passed(steps, "2.20")
    for step in core.STEPS:
        without = [one for one in steps if one.step != step]
        assert core.has_passed(without, "2.21") == (step == "tests")
        failed = [replace(one, outcome="failed") if one.step == step else one for one in steps]
        assert not core.has_passed(failed, "2.21")


def test_what_was_not_run_is_said() -> None:
    rows = core.table([], "en").splitlines()
    assert rows[2:] == [f"| {name} | {' | '.join(['not run'] * 4)} |" for name in core.CORES]
    walked = [replace(RUN, step=step, hosts="3.9") for step in core.ON_HOSTS]
    started = replace(RUN, step="modules", hosts="3.11")
    broken = replace(RUN, step="deployment", hosts="3.13", outcome="failed")
    tested = replace(RUN, step="tests", count=1234)
    row = core.table([RUN, tested, *walked, started, broken], "en").splitlines()[-1]
    assert row == "| 2.21.5 | 3.13 | 12 passed | 1,234 passed | 3.9, 3.13 failed |"
    assert core.table([replace(RUN, outcome="failed")], "ko").splitlines()[-1].startswith("| 2.21.5 | 3.13 | 실패 |")


def test_a_newer_result_replaces_its_own_and_another_version_everything() -> None:
    tested = replace(RUN, step="tests")
    failed = replace(RUN, outcome="failed")
    assert core.merged([RUN, tested], [failed]) == [failed, tested]
    other = replace(RUN, core="2.20.3")
    assert core.merged([RUN, tested], [other]) == [other, RUN, tested]
    for newer in (replace(RUN, core="2.21.6"), replace(RUN, python="3.14")):
        assert core.merged([RUN, tested], [newer]) == [newer]


def test_a_run_keeps_its_results_in_the_file_and_the_documents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(core, "ROOT", tmp_path)
    monkeypatch.setattr(core, "RESULTS", tmp_path / "core.json")
    monkeypatch.setattr(core, "PAGES", {"page.md": "en"})
    (tmp_path / "core.json").write_text("[]\n")
    (tmp_path / "page.md").write_text(f"# Page\n\n{core.BEGIN}\nold\n{core.END}\n\nThe rest.\n")
    core.keep([RUN])
    assert core.kept() == [RUN]
    text = (tmp_path / "page.md").read_text()
    assert text.startswith(f"# Page\n\n{core.BEGIN}\n| ansible-core |")
    assert text.endswith(f"| 2.21.5 | 3.13 | 12 passed | not run | not run |\n\n{core.END}\n\nThe rest.\n")
    with pytest.raises(MatrixError, match="no place for the table"):
        core.page("# Page\n", [RUN], "en")


def test_another_ansible_core_takes_the_place_of_the_locked_one_alone() -> None:
    left = core.without_core(LOCK)
    assert "ansible-core" not in left
    assert left == LOCK[: LOCK.index("ansible-core")] + LOCK[LOCK.index("ansible-lint==") :]
    assert all(core.locked(name).startswith(f"{name}.") for name in core.CORES)


def test_a_shim_that_leads_nowhere_is_no_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    shim, real = tmp_path / f"shims/python{version}", tmp_path / f"pyenv/versions/{version}.7/bin/python{version}"
    for path, text in ((shim, "echo not found >&2\nexit 127"), (real, f'exec {sys.executable} "$@"')):
        path.parent.mkdir(parents=True)
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
    monkeypatch.setenv("PATH", str(shim.parent))
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path / "pyenv"))
    monkeypatch.setattr(sys, "base_prefix", str(tmp_path / "none"))
    assert core.find_python(["4.0", version]) == Python(version, real)
    assert core.find_python(["4.0"]) is None
    real.unlink()
    assert core.find_python([version]) is None


def test_without_a_python_and_debootstrap_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(core, "find_python", lambda _: None)
    monkeypatch.setattr(core, "WORK", tmp_path)
    monkeypatch.setattr("matrix.core.shutil.which", lambda *_, **__: None)
    with pytest.raises(MatrixError, match=r"no Python 3\.13 or 3\.12 or 3\.14 here, nor debootstrap and dpkg-deb"):
        core.python_for("2.21")


def test_python_of_another_distribution_is_started_by_its_own_loader(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(core, "find_python", lambda _: None)
    monkeypatch.setattr(core, "WORK", tmp_path)
    tree, place = tmp_path / "debian-13", tmp_path / "environment"
    for name in ("usr/lib64/ld-linux-x86-64.so.2", "usr/lib/x86_64-linux-gnu/libc.so.6", "usr/bin/python3.13"):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text("")
    (tree / "usr/lib64/ld-linux-x86-64.so.2").write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    (tree / "usr/lib64/ld-linux-x86-64.so.2").chmod(0o755)
    python = core.python_for("2.21")
    assert python == Python("3.13", tree / "usr/bin/python3.13", tree)
    core.enter(place, tree, python)
    said = subprocess.run([place / "bin/python3", "-c", "1 2"], capture_output=True, text=True, check=True).stdout
    assert said.splitlines() == [
        *("--argv0", str(place / "bin/python3"), "--library-path", str(tree / "usr/lib/x86_64-linux-gnu")),
        *(str(tree / "usr/bin/python3.13"), "-c", "1 2"),
    ]
    assert f"home = {tree}/usr/bin\n" in (place / "pyvenv.cfg").read_text()


def test_a_copy_is_a_checkout_of_what_stands_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here, copy = tmp_path / "here", tmp_path / "copy"
    for name, text in ((".gitignore", "*.log\n.venv/\n"), ("a/kept.py", "1"), ("gone.py", ""), ("run.log", "")):
        (here / name).parent.mkdir(parents=True, exist_ok=True)
        (here / name).write_text(text)
    for words in (["init", "--quiet"], ["add", "--all"]):
        subprocess.run(["git", *words], cwd=here, check=True)
    (here / "gone.py").unlink()
    (here / "new.py").write_text("")
    (copy / ".venv").mkdir(parents=True)
    (copy / "old").mkdir()
    monkeypatch.setattr(core, "ROOT", here)
    core.copy_tree(copy)
    assert {path.name for path in copy.iterdir()} - {".git", ".lab", "collections"} == {
        ".gitignore",
        ".venv",
        "a",
        "new.py",
    }
    shown = subprocess.run(
        ["git", "ls-tree", "-r", "--name-only", "HEAD"], cwd=copy, capture_output=True, text=True
    ).stdout
    assert shown.split() == [".gitignore", "a/kept.py", "new.py"]


def test_a_python_of_the_hosts_proves_that_it_was_started(tmp_path: Path) -> None:
    log, command = tmp_path / "log", tmp_path / "python"
    log.write_text("")
    command.write_text(core.COUNTING.format(log=log, command=sys.executable))
    command.chmod(0o755)
    python = core.HostPython("3.9", command, log)
    shown = [subprocess.run([command, "-c", f"print({n})"], capture_output=True, text=True).stdout for n in (1, 2)]
    assert (shown, python.starts(), python.starts()) == (["1\n", "2\n"], 2, 0)


def test_an_unknown_version_or_step_is_refused() -> None:
    assert core.chosen("2.21,2.19", list(core.CORES), "ansible-core") == ["2.19", "2.21"]
    assert core.chosen("", core.STEPS, "step") == [*core.STEPS]
    with pytest.raises(MatrixError, match=r"no step deploy\. Expected: any of playbooks, modules, deployment, tests"):
        core.chosen("deploy", core.STEPS, "step")


def test_the_file_of_results_is_lines_of_known_steps() -> None:
    for one in json.loads((ROOT / "matrix/core.json").read_text()):
        result = Result(**one)
        assert result.step in core.STEPS
        assert result.outcome in ("passed", "failed")
        assert (result.hosts in core.HOSTS) == (result.step in core.ON_HOSTS)
