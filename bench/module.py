"""A module of library/ as Ansible runs it, in a process whose memory is measured."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import Any

import yaml
from at_most_one.postgres.connection import Login

from tests.support.module_process import HARNESS

from . import peak
from .seed import PLAN_FILE
from .server import ROOT


def run(name: str, login: Login, **arguments: Any) -> tuple[dict[str, Any], int]:
    """The module's result and its peak memory in KiB. Raises RuntimeError when it fails."""
    arguments |= {"login": asdict(login), "plan": yaml.safe_load(PLAN_FILE.read_text(encoding="utf-8"))}
    files = [str(ROOT / "library" / f"{name}.py"), str(ROOT / "module_utils")]
    done = peak.run([sys.executable, "-c", HARNESS, *files], json.dumps({"ANSIBLE_MODULE_ARGS": arguments}))
    if done.code:
        raise RuntimeError(f"{name} failed:\n{done.output[:2000]}")
    return json.loads(done.output), done.peak_kb
