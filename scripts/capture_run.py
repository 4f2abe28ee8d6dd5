#!/usr/bin/env python3
"""What a run says, as text: capture_run.py {terminal,log,runner} FILE PLAYBOOK [options of ansible-playbook ...]

terminal: in tmux, 100 columns wide: the screen at the last moment that something was waited for, then all lines.
log: as in CI, without a terminal. runner: through ansible-runner. Paths of this checkout are left out.
Ends as the playbook has ended.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import ansible_runner

ROOT = Path(__file__).parents[1]
COLUMNS, ROWS = 100, 30
WAITING = re.compile("^  [⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏] ", re.MULTILINE)
BIN = ROOT / ".venv/bin"
# A server of its own: neither the settings nor the sessions of whoever captures.
TMUX = ["tmux", "-L", "at-most-one-capture", "-f", "/dev/null"]
Captured = tuple[str, int]


def terminal(playbook: list[str]) -> Captured:
    """The lines of a run in tmux, and before them the screen while it waited."""
    with tempfile.TemporaryDirectory() as directory:
        code, waiting = Path(directory) / "code", ""
        command = f"{shlex.join([str(BIN / 'ansible-playbook'), *playbook])}; echo $? > {code}; sleep 60"
        bare = ["env", "-u", "CI", "-u", "NO_COLOR", "TERM=screen-256color", "sh", "-c", command]
        size = ["-x", str(COLUMNS), "-y", str(ROWS)]
        _tmux("new-session", "-d", *size, shlex.join(bare))
        try:
            while not code.exists():
                time.sleep(1)
                screen = _tmux("capture-pane", "-p")
                waiting = screen if WAITING.search(screen) else waiting
            lines = _tmux("capture-pane", "-p", "-S", "-")
            return f"--- while it waits ---\n{waiting.rstrip()}\n\n--- at its end ---\n{lines}", int(code.read_text())
        finally:
            _tmux("kill-server")


def _tmux(*arguments: str) -> str:
    done = subprocess.run([*TMUX, *arguments], cwd=ROOT, capture_output=True, text=True, check=True)  # noqa: S603 (tmux)
    return done.stdout


def log(playbook: list[str]) -> Captured:
    """As in CI: nobody looks, and what is written goes to a file."""
    environment = {**os.environ, "CI": "true"}
    command = [str(BIN / "ansible-playbook"), *playbook]
    done = subprocess.run(  # noqa: S603 (this project's own playbooks)
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    return done.stdout, done.returncode


def runner(playbook: list[str]) -> Captured:
    """As AWX and AAP run it: with a terminal of ansible-runner's own, and its events."""
    os.environ["PATH"] = f"{BIN}:{os.environ['PATH']}"  # where ansible-runner looks for ansible-playbook
    with tempfile.TemporaryDirectory() as directory:
        done = ansible_runner.run(
            private_data_dir=directory,
            project_dir=str(ROOT),
            playbook=playbook[0],
            cmdline=shlex.join(playbook[1:]),
            quiet=True,
            envvars={"ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_STDOUT_CALLBACK": "phases"},
        )
        return done.stdout.read(), int(done.rc)


def main(arguments: list[str]) -> int:
    """The command line."""
    ways = {"terminal": terminal, "log": log, "runner": runner}
    if len(arguments) < 3 or arguments[0] not in ways:
        print(__doc__, file=sys.stderr)
        return 2
    text, code = ways[arguments[0]](arguments[2:])
    file = Path(arguments[1])
    file.parent.mkdir(parents=True, exist_ok=True)
    command = shlex.join(["ansible-playbook", *arguments[2:]])
    file.write_text(f"$ {command}\n{text.replace(f'{ROOT}/', '').rstrip()}\n[exit {code}]\n", encoding="utf-8")
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
