"""What an earlier commit of this project takes for the same, here and now: by its own tree, environment and bench."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path

from .server import ROOT

COMMIT = "82aaa605bf7d101ab13672834270432f84584c22"  # before the core was packages and the phases were few calls
# That commit's own names: they stay as they are, as it does.
_DEPLOYMENT = """\
import sys
from bench.cases import hosts
from bench.run import Bench
from bench.server import ROOT
from tests.hosts.fleet import fleet_of

size = int(sys.argv[1])
with Bench() as bench:
    template = hosts._template(bench)
    with fleet_of(size, f"{ROOT}/.lab/bin/pm2") as fleet, hosts._ground(bench, template, fleet, size) as ground:
        ground.warm()
        print(ground.deploy().seconds)
"""


def deployment(hosts: int) -> float:
    """The seconds that its deploy.yml took on so many hosts.

    Raises subprocess.CalledProcessError, with git's or its own words printed, when the commit is not in this clone
    (git fetch --unshallow) or cannot be set up or run.
    """
    with tempfile.TemporaryDirectory(prefix="at-most-one-earlier-") as directory:
        tree = Path(directory) / "tree"
        subprocess.run(["git", "worktree", "add", "--quiet", "--detach", tree, COMMIT], cwd=ROOT, check=True)
        try:
            alone = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL")}
            subprocess.run(["make", "--silent", "setup-dev", "tools"], cwd=tree, env=alone, check=True, stdout=2)
            command = [f"{tree}/.venv/bin/python", "-c", _DEPLOYMENT, str(hosts)]
            environment = {**alone, "PYTHONPATH": "module_utils"}
            done = subprocess.run(command, cwd=tree, env=environment, check=True, stdout=subprocess.PIPE, text=True)
            return float(done.stdout.split()[-1])
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", tree], cwd=ROOT, check=True)
