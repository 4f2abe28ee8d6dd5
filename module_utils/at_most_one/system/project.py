"""Where this program's own files are, and from where its user's are named. Only the control node asks.

A checkout is both. As an installed collection it serves the project in whose directory the command was started.
"""

from __future__ import annotations

import json
import subprocess
from functools import cache
from pathlib import Path

# aedpics.at_most_one, as ansible-galaxy has installed it; empty in a checkout.
COLLECTION = ".".join(__name__.split(".")[1:3]) if __name__.startswith("ansible_collections.") else ""
_STARTED_IN = Path.cwd()


@cache
def home() -> Path:
    """The directory of the roles, the playbooks and the common values."""
    return next(path for path in Path(__file__).parents if (path / "inventories/all.yml").is_file())


def base() -> Path:
    """What relative paths of inventories and commands are relative to, and the default of at_most_one_project."""
    return _STARTED_IN if COLLECTION else home()


def playbook(name: str) -> str:
    """The name by which ansible-playbook finds the playbook ``name`` (deploy.yml); another's name stays as it is."""
    ours = COLLECTION and (home() / "playbooks" / name).is_file()
    return f"{COLLECTION}.{Path(name).stem}" if ours else name


@cache
def release() -> str:
    """The version of this program: that of an installed collection, or the commit that a checkout is at."""
    manifest = home() / "MANIFEST.json"
    if manifest.is_file():
        return str(json.loads(manifest.read_text(encoding="utf-8"))["collection_info"]["version"])
    command = ["git", "-C", str(home()), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        described = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 (no shell)
    except OSError:  # no git: an unpacked copy
        return "unknown"
    return described.stdout.strip() or "unknown"
