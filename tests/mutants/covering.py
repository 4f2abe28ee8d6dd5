"""Which tests can notice a mutant: those that enter the function that it is in, as one run of all of them has shown.

A constant of a module, as most of the SQL is, belongs to the functions that use it, wherever they are.
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tests.mutants.finding import Mutant, assigned, uses
from tests.mutants.scope import CORE, ROOT, TESTS, judges

RECORDED = ROOT / ".lab/mutants/covering.json"
_AT_ONCE = 10  # test files; then what was seen is kept


class MutantsError(Exception):
    """A sentence for a person: seen, expected, next."""


def pytest_command(*arguments: str) -> list[str]:
    """pytest with nothing that these tests do not need: no other plugins, no cache, no summary."""
    plugins = ["-p", "no:cacheprovider", "-p", "tests.mutants.plugin"]
    return [sys.executable, "-m", "pytest", "-q", "--no-header", "-m", "not thorough", *plugins, *arguments]


def environment(root: Path, temporary: Path, **more: str) -> dict[str, str]:
    """For a run in ``root`` whose temporary files, the server's among them, are in ``temporary``."""
    return {
        **os.environ,
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        "PYTHONPATH": str(root),
        "TMPDIR": str(temporary),
        **more,
    }


class Covering:
    """The tests by what they enter."""

    def __init__(self, tests: dict[str, dict[str, Any]], core: Path) -> None:
        self.seconds = {name: float(test["seconds"]) for name, test in tests.items()}
        self.by_function: dict[str, list[str]] = {}
        for name, test in tests.items():
            for function in test["functions"]:
                self.by_function.setdefault(function, []).append(name)
        self.trees = {file.relative_to(core).as_posix(): ast.parse(file.read_text()) for file in core.rglob("*.py")}
        self.uses = {file: uses(tree) for file, tree in self.trees.items()}
        self.constants = {
            file: {name for statement in tree.body for name in assigned(statement)} for file, tree in self.trees.items()
        }

    def of(self, mutant: Mutant) -> list[str]:
        """The tests that may notice, the fastest first."""
        tests = {name for function in self._functions(mutant) for name in self.by_function.get(function, [])}
        return sorted(tests, key=lambda name: (self.seconds[name], name))

    def _functions(self, mutant: Mutant) -> set[str]:
        if mutant.scope not in self.constants[mutant.file]:
            return {f"{mutant.file} {mutant.scope}"}
        private = mutant.scope.startswith("_")
        files = [mutant.file] if private else list(self.uses)
        return {f"{file} {function}" for file in files for function in self.uses[file].get(mutant.scope, set())}


def recorded() -> Covering:
    """As recorded; test files that have changed since are run again, all of them when something else has."""
    beside = [*(ROOT / TESTS).iterdir(), *(ROOT / "tests/support").iterdir(), ROOT / "tests/conftest.py"]
    shared = [file for file in sorted(beside) if file.is_file() and not file.name.startswith("test_")]
    common = _digest(
        [*sorted((ROOT / "module_utils").rglob("*.py")), *sorted((ROOT / "library").glob("*.py")), *shared]
    )
    digests = {file: f"{common} {_digest([ROOT / file])}" for file in judges()}
    known = json.loads(RECORDED.read_text()) if RECORDED.exists() else {}
    known = {file: entry for file, entry in known.items() if digests.get(file) == entry["digest"]}
    stale = [file for file in digests if file not in known]
    if stale:
        print(f"Running {len(stale)} test files without any mutant, to see what each test enters.", flush=True)
    failed = []
    for first in range(0, len(stale), _AT_ONCE):
        tests = _record(stale[first : first + _AT_ONCE])
        failed += [name for name, test in tests.items() if "failed" in test]
        for name, test in tests.items():
            file = name.partition("::")[0]
            if not any(one.startswith(f"{file}::") for one in failed):
                known.setdefault(file, {"digest": digests[file], "tests": {}})["tests"][name] = test
        RECORDED.parent.mkdir(parents=True, exist_ok=True)
        RECORDED.write_text(json.dumps(known))
    if failed:
        raise MutantsError(f"without any mutant, {', '.join(failed)} failed. Expected: green. Next: make database.")
    return Covering({name: test for entry in known.values() for name, test in entry["tests"].items()}, ROOT / CORE)


def _record(files: list[str]) -> dict[str, dict[str, Any]]:
    with tempfile.TemporaryDirectory(prefix="mutants-") as directory:
        os.chmod(directory, 0o755)  # the server runs as another user
        done = subprocess.run(
            pytest_command("-p", "xdist.plugin", "--numprocesses", "2", *files),
            cwd=ROOT,
            env=environment(ROOT, Path(directory), MUTANTS_RECORD=directory),
            capture_output=True,
            text=True,
        )
        if done.returncode not in (0, 1):
            raise MutantsError(f"pytest ended with {done.returncode}:\n{done.stdout[-3000:]}{done.stderr[-1000:]}")
        written = [json.loads(file.read_text()) for file in Path(directory).glob("*.json")]
        return {name: test for part in written for name, test in part.items()}


def _digest(files: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.name.encode() + file.read_bytes())
    return digest.hexdigest()
