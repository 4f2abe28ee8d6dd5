"""Try one mutant: in a copy of the checkout, which is never changed itself, and in a process group of its own."""

from __future__ import annotations

import compileall
import contextlib
import json
import os
import py_compile
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.mutants.covering import Covering, MutantsError, environment, pytest_command
from tests.mutants.finding import Mutant
from tests.mutants.scope import CORE, ROOT

_COPIED = ("filter_plugins", "library", "matrix", "module_utils", "plans", "playbooks", "roles", "tests")
_LINKED = (".venv", ".lab", "collections", "lab", "requirements")
_NOTICED = (1, 2)  # pytest: a test failed; collecting failed
_NOTHING_RUN = 5
_IMPORT = "the import"


class Tree:
    """A copy of the checkout, with room for the server that each run starts."""

    def __init__(self, covering: Covering) -> None:
        self.covering = covering
        self.fit: dict[str, bool] = {}  # by test: whether it passes here without a mutant
        self.directory = Path(tempfile.mkdtemp(prefix="mutants-"))
        self.directory.chmod(0o755)  # the server runs as another user
        self.root = self.directory / "checkout"
        self.root.mkdir()
        for name in _COPIED:
            shutil.copytree(ROOT / name, self.root / name, ignore=shutil.ignore_patterns("__pycache__", "node_modules"))
        for name in _LINKED:
            (self.root / name).symlink_to(ROOT / name)
        for file in [*ROOT.glob("*.yml"), *ROOT.glob("*.toml"), *ROOT.glob("*.cfg")]:
            shutil.copy(file, self.root)
        # By their hash: a mutant may have the size and the second of the file before it.
        mode = py_compile.PycInvalidationMode.CHECKED_HASH
        compileall.compile_dir(self.root / "module_utils", quiet=1, invalidation_mode=mode)

    def remove(self) -> None:
        shutil.rmtree(self.directory, ignore_errors=True)

    def control(self) -> None:
        """Without a mutant the fastest tests pass here. Raises MutantsError."""
        tests = sorted(self.covering.seconds, key=self.covering.seconds.__getitem__)[:5]
        if killer := self._run(tests):
            raise MutantsError(f"{killer} fails in the copy of the checkout without any mutant. Expected: it passes.")

    def killer(self, mutant: Mutant, tests: Sequence[str]) -> str | None:
        """The test that notices the mutant; None when all of them pass."""
        if not tests:
            return None
        file = self.root / CORE / mutant.file
        original = file.read_text()
        left = [test for test in tests if self.fit.get(test, True)]
        while True:
            file.write_text(mutant.applied(original))
            try:
                killer = self._run(left)
            finally:
                file.write_text(original)
            if killer is None or self._is_fit(killer):
                return killer
            left.remove(killer)

    def _is_fit(self, test: str) -> bool:
        """Whether a test that has noticed a mutant passes without one: only then it has noticed it."""
        if test != _IMPORT and test not in self.fit:
            self.fit[test] = self._run([test]) is None
            if not self.fit[test]:
                print(f"Left out, because it fails in the copy without a mutant: {test}", flush=True)
        return test == _IMPORT or self.fit[test]

    def _run(self, tests: Sequence[str]) -> str | None:
        temporary = self.directory / "temporary"
        temporary.mkdir(mode=0o755)
        wanted = self.directory / "tests.json"
        killer = wanted.with_suffix(".killer")
        killer.write_text(_IMPORT)
        wanted.write_text(json.dumps({name: 30 + round(10 * self.covering.seconds[name]) for name in tests}))
        files = list(dict.fromkeys(name.partition("::")[0] for name in tests))
        process = subprocess.Popen(
            pytest_command("-x", *files),
            cwd=self.root,
            env=environment(
                self.root, temporary, MUTANTS_TESTS=str(wanted), DATABASE_TESTS_CLUSTER=str(self.directory / "cluster")
            ),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            output, _ = process.communicate()
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # what a killed test has left
            process.wait()
            shutil.rmtree(temporary, ignore_errors=True)
        if process.returncode in (0, _NOTHING_RUN):
            return None
        if process.returncode in _NOTICED or process.returncode == -signal.SIGALRM:
            return killer.read_text()
        raise MutantsError(f"pytest ended with {process.returncode}:\n{output.decode()[-3000:]}")
