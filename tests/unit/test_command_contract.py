"""The contract of docs/command.md, which each way to deploy on that page passes: asked, applied, back, mixed, silent.

The scripts and lists of arguments are those of the page. docker, kubectl, kamal, curl and systemctl are stand-ins that
keep which version each of two instances serves; the service of examples/command is a real one.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from at_most_one.errors import OperatorError
from at_most_one.service.version import Application, ServedVersion, VersionChange, VersionCommands

from tests.support.ports import wait_until

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/command.md").read_text()
SECTIONS = dict(re.findall(r"^## (.+)\n((?:(?!^## ).*\n)*)", PAGE, re.MULTILINE))
TOOLS = ("docker", "kubectl", "kamal", "curl", "systemctl")
STAND_IN = """#!{python}
import json, os, pathlib, re, sys
shop = pathlib.Path(os.environ["SHOP"])
name, words = pathlib.Path(sys.argv[0]).name, sys.argv[1:]
instances = [shop / "instance-1", shop / "instance-2"]
if (shop / "silent").exists():
    sys.exit("no answer")
def put(version):
    for one in instances:
        one.write_text(version)
if words[:2] == ["service", "ps"]:
    print("\\n".join(f"registry:5000/shop:{{one.read_text()}}@sha256:00" for one in instances))
elif name == "docker" and words[:2] == ["service", "update"]:
    put(words[words.index("--image") + 1].partition(":")[2])
elif words[:2] == ["get", "pods"]:
    print("\\n".join(f"registry:5000/shop:{{one.read_text()}}" for one in instances))
elif words[:2] == ["set", "image"]:
    put(words[-1].partition(":")[2])
elif words[:2] == ["rollout", "status"]:
    pass
elif name == "kamal" and words[0] in ("deploy", "rollback"):
    put(words[-1])
elif name == "curl":
    number = re.search(r"//10\\.0\\.0\\.1([12]):|:300([12])/", words[-1])
    version = (shop / f"instance-{{number[1] or number[2]}}").read_text()
    print(json.dumps({{"status": "ok", "version": version}}))
elif name == "systemctl" and words[0] == "restart":
    version = pathlib.Path(os.readlink(shop / "current")).name
    (shop / f"instance-{{words[1].partition('@')[2]}}").write_text(version)
else:
    sys.exit(f"{{name}} does not know {{words}}")
"""


@dataclass(frozen=True)
class Way:
    """One way to deploy: what mixes two versions, and what silences it."""

    application: Application
    mix: Callable[[], object] | None
    silence: Callable[[], object]

    def ensure(self, version: str, state: str = "applied") -> VersionChange:
        return self.application.ensure(version, state, lambda: None)


def commands(given: dict[str, Any], directory: Path, environment: dict[str, str]) -> Application:
    lists = {name: tuple(given[name]) for name in ("status", "apply", "back")}
    return Application(VersionCommands(**lists, path=str(directory), environment=environment, timeout_s=60))


def of_page(section: str, directory: Path) -> Way:
    """What a section of the page shows, with its scripts in ``directory`` and stand-ins for the tools."""
    (settings,) = re.findall(r"```yaml\n(.*?)```", SECTIONS[section], re.DOTALL)
    scripts = re.findall(r"```text\n(#!/bin/sh\n# (bin/\w+) .*?)```", SECTIONS[section], re.DOTALL)
    if section == "systemd":  # the page names the script that it shares
        (shared,) = re.findall(r"```text\n(#!/bin/sh\n# (bin/\w+) .*?)```", SECTIONS["Kamal"], re.DOTALL)
        addresses = "127.0.0.1:3001 127.0.0.1:3002"
        assert addresses in SECTIONS[section]
        scripts.append((shared[0].replace("10.0.0.11:3000 10.0.0.12:3000", addresses), shared[1]))
    tools = directory / "tools"
    for path in (tools, directory / "bin"):
        path.mkdir()
    programs = [(STAND_IN.format(python=sys.executable), f"tools/{name}") for name in TOOLS]
    for text, name in (*programs, *scripts):
        program = directory / name
        program.write_text(text.replace("/srv/shop", str(directory)))
        program.chmod(0o755)
    for number in (1, 2):
        (directory / f"instance-{number}").write_text("1.4.1")
    environment = {"PATH": f"{tools}:{os.environ['PATH']}", "SHOP": str(directory)}
    return Way(
        commands(yaml.safe_load(settings)["app_commands"], directory, environment),
        lambda: (directory / "instance-1").write_text("1.4.1"),
        (directory / "silent").touch,
    )


@pytest.fixture(params=["Docker", "Kubernetes", "Kamal", "systemd", "the example"])
def way(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Way]:
    """Version 1.4.1 serves."""
    if request.param != "the example":
        yield of_page(request.param, tmp_path)
        return
    program = str(ROOT / "examples/command/shop.py")
    environment = {"SHOP_STATE": str(tmp_path)}
    service = subprocess.Popen([sys.executable, program, "serve", "0", "1.4.1"], env={**os.environ, **environment})

    def silence() -> None:
        service.terminate()
        service.wait()

    try:
        wait_until((tmp_path / "pid").exists, 20)
        lists = {name: [sys.executable, program, name, "{version}"] for name in ("status", "apply")}
        yield Way(commands({**lists, "back": lists["apply"]}, tmp_path, environment), None, silence)
    finally:
        silence()


def test_the_contract(way: Way) -> None:
    served = way.application.served
    assert served() == ServedVersion("1.4.1", settled=True)

    assert way.ensure("1.4.2").before == "1.4.1"
    assert served() == ServedVersion("1.4.2", settled=True)
    assert way.ensure("1.4.2").told == "", "nothing is run where it serves"

    if way.mix:
        way.mix()
        assert not served().settled
        assert not way.application.serves("1.4.1")
        assert way.ensure("1.4.2").before == "1.4.1", "gone on with where it was cut short"

    assert way.ensure("1.4.1", "back").before == "1.4.2"
    assert served() == ServedVersion("1.4.1", settled=True)

    way.silence()
    with pytest.raises(OperatorError, match="Nobody knows which version serves"):
        served()
