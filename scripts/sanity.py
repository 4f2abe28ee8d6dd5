#!/usr/bin/env python3
"""Run ansible-test's sanity checks over the collection of this tree.

    python -m scripts.sanity [TEST ...]       validate-modules, import, yamllint, pep8 and pylint by default

tests/sanity/ignore.txt has what is not to be found, each line with its reason; it is ansible-test's own file, which
finds a line that is not needed any more. What the tests need comes from the package index, in the versions that
ansible-core names.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import ansible

from scripts.build_collection import ROOT, read_settings, stage

TESTS = ("validate-modules", "import", "yamllint", "pep8", "pylint")
WORK = ROOT / ".ansible/sanity"
# ansible-test would fetch get-pip.py from a server of Ansible's own; Python carries the same.
ENSUREPIP = "import ensurepip\n\nensurepip.bootstrap(upgrade=True)\n"
PIP = re.compile(r"\bpip='([\d.]+)'")  # the version of which ansible-test keeps a copy


def main(tests: list[str]) -> int:
    settings = read_settings()
    target = WORK / "ansible_collections" / settings["namespace"] / settings["name"]
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    stage(ROOT, target, settings)
    subprocess.run(["git", "init", "--quiet", target], check=True)  # noqa: S603, S607  # it looks at git's files alone
    (target / ".gitignore").write_text("/tests/output/\n", encoding="utf-8")
    (target / "tests/sanity").mkdir(parents=True)
    version = ".".join(ansible.__version__.split(".")[:2])
    shutil.copyfile(ROOT / "tests/sanity/ignore.txt", target / f"tests/sanity/ignore-{version}.txt")
    requirements = Path(ansible.__file__).parents[1] / "ansible_test/_internal/python_requirements.py"
    (pip,) = PIP.findall(requirements.read_text(encoding="utf-8"))
    script = WORK / f".ansible/test/cache/get_pip_{pip.replace('.', '_')}.py"
    script.parent.mkdir(parents=True, exist_ok=True)
    script.write_text(ENSUREPIP, encoding="utf-8")
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    chosen = [option for test in tests or TESTS for option in ("--test", test)]
    return subprocess.run(  # noqa: S603 (our own program)
        [
            Path(sys.executable).with_name("ansible-test"),
            "sanity",
            "--venv",
            "--python",
            python,
            "--color",
            "no",
            *chosen,
        ],
        cwd=target,
        env={**os.environ, "HOME": str(WORK), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        check=False,
    ).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
