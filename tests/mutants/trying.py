"""Try mutants in a pytest that stays: each in a fork of it, so that a trial costs its tests and nothing else."""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.mutants.covering import Covering, MutantsError, environment, pytest_command
from tests.mutants.finding import Mutant
from tests.mutants.plugin import IMPORT
from tests.mutants.scope import CORE, FILES, ROOT

_STARTING_S = 120


class Session:
    """A pytest with all tests collected and a server of its own; begun again after a trial that had to be ended."""

    def __init__(self, covering: Covering) -> None:
        self.covering = covering
        self.fit: dict[str, bool] = {}  # by test: whether it passes here without a mutant
        self.directory = Path(tempfile.mkdtemp(prefix="mutants-"))
        self.directory.chmod(0o755)  # the server runs as another user
        self._begin()

    def remove(self) -> None:
        self._end()
        shutil.rmtree(self.directory, ignore_errors=True)

    def control(self) -> None:
        """Without a mutant the fastest tests pass, and every file can be swapped. Raises MutantsError."""
        tests = sorted(self.covering.seconds, key=self.covering.seconds.__getitem__)[:5]
        for name in FILES:
            same = {"file": f"{name}.py", "source": (ROOT / CORE / f"{name}.py").read_text(), "scope": ""}
            if killer := self._try(same, tests[:1]):
                raise MutantsError(f"{killer} fails with {name} as it is. Expected: it passes.")
        if killer := self._try({}, tests):
            raise MutantsError(f"{killer} fails without any mutant. Expected: it passes.")

    def killer(self, mutant: Mutant, tests: Sequence[str]) -> str | None:
        """The test that notices the mutant; None when all of them pass."""
        source = mutant.applied((ROOT / CORE / mutant.file).read_text())
        left = [test for test in tests if self.fit.get(test, True)]
        while left:
            killer = self._try({"file": mutant.file, "source": source, "scope": mutant.scope}, left)
            if killer is None or self._is_fit(killer):
                return killer
            left.remove(killer)
        return None

    def _is_fit(self, test: str) -> bool:
        """Whether a test that has noticed a mutant passes without one: only then it has noticed it."""
        if test != IMPORT and test not in self.fit:
            self.fit[test] = self._try({}, [test]) is None
            if not self.fit[test]:
                print(f"Left out, because it fails here without a mutant: {test}", flush=True)
        return test == IMPORT or self.fit[test]

    def _try(self, mutant: dict[str, Any], tests: Sequence[str]) -> str | None:
        os.write(self.requests, f"{json.dumps({**mutant, 'tests': list(tests)})}\n".encode())
        return self._answer()

    def _answer(self, limit_s: float = _STARTING_S) -> str | None:
        """The test that has failed, or has taken ten times its time; None when all have passed."""
        now = IMPORT
        while True:
            if not select.select([self.answers], [], [], limit_s)[0]:
                self._end()
                self._begin()
                return now
            line = self.answers.readline().decode().strip()
            if line in ("killed", "passed"):
                return now if line == "killed" else None
            if not line:
                raise MutantsError(f"pytest has ended: {(self.directory / 'log').read_text()[-3000:]}")
            now = line
            limit_s = 30 + 10 * self.covering.seconds.get(now, 1)

    def _begin(self) -> None:
        (self.directory / "temporary").mkdir(mode=0o755)
        asked, self.requests = os.pipe()
        answers, said = os.pipe()
        self.answers = os.fdopen(answers, "rb", buffering=0)
        files = sorted({name.partition("::")[0] for name in self.covering.seconds})
        with (self.directory / "log").open("w") as log:
            self.process = subprocess.Popen(
                pytest_command(*files),
                cwd=ROOT,
                env=environment(ROOT, self.directory / "temporary", MUTANTS_PIPES=f"{asked},{said}"),
                pass_fds=(asked, said),
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        os.close(asked)
        os.close(said)
        if failed := self._answer():
            raise MutantsError(f"{failed} failed in the first test. Expected: green. Next: make database.")

    def _end(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)  # with what a trial has started; the server follows its parent
        self.process.wait()
        self.answers.close()
        os.close(self.requests)
        shutil.rmtree(self.directory / "temporary", ignore_errors=True)
