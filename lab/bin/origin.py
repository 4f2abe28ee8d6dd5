#!/usr/bin/env python3
"""The bare origin of the lab's application, from the folders app, prisma-7, app-after, commits, faults and variants.

Every commit has a fixed identity, date and parent, so its hash follows from its files alone: all checkouts of the same
sources agree on it, and a second run changes nothing.

    origin.py [--origin DIR] build [--prisma 7]  before and after on branch main; prints JSON
    origin.py [--origin DIR] checkout COMMIT TO  a clone whose branch main is at COMMIT, as production has it
    origin.py [--origin DIR] push BRANCH    one more commit, on top of main, on a branch of its own; prints its hash
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

LAB = Path(__file__).resolve().parents[1]
IDENTITY = "aedpics lab"
EMAIL = "lab@localhost"
# What lab/commits holds: message and day.
COMMITS = {"second-rule": ("Add the rule of one valid inspection record per equipment and day", "2025-12-01")}

PRISMA = ("6", "7")  # major versions; lab/app has the first


class Origin:
    """A bare repository, spoken to in plumbing: no hook, no configuration of the person, no clock takes part."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def git(self, *arguments: str, work_tree: Path | None = None, index: Path | None = None, date: str = "") -> str:
        """Run git on this repository and return its output, stripped."""
        environment = {
            "PATH": os.environ.get("PATH", os.defpath),
            "LC_ALL": "C",
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_DIR": str(self.path),
            "GIT_AUTHOR_NAME": IDENTITY,
            "GIT_AUTHOR_EMAIL": EMAIL,
            "GIT_AUTHOR_DATE": date,
            "GIT_COMMITTER_NAME": IDENTITY,
            "GIT_COMMITTER_EMAIL": EMAIL,
            "GIT_COMMITTER_DATE": date,
        }
        if work_tree and index:
            environment |= {"GIT_WORK_TREE": str(work_tree), "GIT_INDEX_FILE": str(index)}
        command = ["git", *arguments]
        done = subprocess.run(  # noqa: S603 (a fixed program and our own arguments, no shell)
            command, env=environment, cwd=work_tree or "/", capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise SystemExit(f"git {arguments[0]} failed on {self.path}: {done.stderr.strip()}")
        return done.stdout.strip()

    def create(self) -> None:
        """Make the repository if it is not there; a file of another object format would change every hash."""
        if not (self.path / "HEAD").exists():
            self.path.mkdir(parents=True, exist_ok=True)
            self.git("init", "--quiet", "--bare", "--object-format=sha1", "--initial-branch=main", str(self.path))
            self.git("config", "core.autocrlf", "false")

    def commit(self, sources: Path, message: str, date: str, parent: str = "") -> str:
        """A commit of the parent's files with those of ``sources`` laid over them. Returns its hash."""
        with tempfile.TemporaryDirectory() as scratch:
            index = Path(scratch) / "index"
            if parent:
                self.git("read-tree", parent, work_tree=sources, index=index)
            self.git("add", "--no-all", ".", work_tree=sources, index=index)
            tree = self.git("write-tree", work_tree=sources, index=index)
        parents = ["-p", parent] if parent else []
        return self.git("commit-tree", tree, *parents, "-m", message, date=date)

    def point(self, branch: str, commit: str) -> bool:
        """Let a branch name a commit. True when it did not before."""
        reference = f"refs/heads/{branch}"
        if self.git("for-each-ref", "--format=%(objectname)", reference) == commit:
            return False
        self.git("update-ref", reference, commit)
        return True


def build(origin: Origin, prisma: str) -> dict[str, str | bool]:
    """The two commits: the service as it is, with that major version of Prisma, and the service with the rule."""
    origin.create()
    before = origin.commit(LAB / "app", "The service before the rule", "2025-11-01T00:00:00+0000")
    if prisma != PRISMA[0]:
        date = "2025-11-05T00:00:00+0000"
        before = origin.commit(LAB / f"prisma-{prisma}", f"Go to Prisma {prisma}", date, before)
    after = origin.commit(
        LAB / "app-after", "Add the partial unique index and answer 409", "2025-11-10T00:00:00+0000", before
    )
    return {"before": before, "after": after, "changed": origin.point("main", after)}


def checkout(origin: Origin, commit: str, to: Path) -> None:
    """A checkout on branch main at ``commit``, which has not heard of anything newer."""
    if to.exists():
        shutil.rmtree(to)
    origin.git("clone", "--quiet", "--no-hardlinks", "--no-checkout", "--branch", "main", str(origin.path), str(to))
    clone = Origin(to / ".git")
    clone.git("update-ref", "refs/remotes/origin/main", commit)
    clone.git("update-ref", "refs/heads/main", commit)
    clone.git("read-tree", commit, work_tree=to, index=to / ".git" / "index")
    clone.git("checkout-index", "--all", work_tree=to, index=to / ".git" / "index")


def push(origin: Origin, branch: str) -> str:
    """A third commit on a branch of its own: lab/commits/NAME on NAME, lab/faults and lab/variants on fault/NAME."""
    commits = {entry.name: (entry, COMMITS[entry.name]) for entry in (LAB / "commits").iterdir()}
    faults = [entry for folder in ("faults", "variants") for entry in (LAB / folder).iterdir()]
    commits |= {f"fault/{entry.name}": (entry, (f"Fault: {entry.name}", "2025-11-11")) for entry in faults}
    if branch not in commits:
        raise SystemExit(f"There is no commit for branch {branch}. Known: {', '.join(sorted(commits))}.")
    sources, (message, day) = commits[branch]
    after = origin.git("rev-parse", "--verify", "refs/heads/main")
    commit = origin.commit(sources, message, f"{day}T00:00:00+0000", after)
    origin.point(branch, commit)
    return commit


def main(arguments: list[str]) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description="Build the origin of the lab's application.")
    parser.add_argument("--origin", type=Path, default=LAB.parent / ".lab" / "origin" / "aedpics.git")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("build").add_argument("--prisma", choices=PRISMA, default=PRISMA[0])
    place = commands.add_parser("checkout")
    place.add_argument("commit")
    place.add_argument("to", type=Path)
    commands.add_parser("push").add_argument("branch")
    given = parser.parse_args(arguments)
    origin = Origin(given.origin.resolve())
    if given.command == "build":
        print(json.dumps(build(origin, given.prisma)))
    elif given.command == "checkout":
        checkout(origin, given.commit, given.to.resolve())
    else:
        print(push(origin, given.branch))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
