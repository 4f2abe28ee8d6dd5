"""What the ecosystem file declares, and where PM2 holds something else: a reload applies none of it by itself."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..errors import OperatorError
from ..findings import observed, say
from ..system.redaction import redact
from .client import Pm2, parse_jlist, run

_READ_ECOSYSTEM = """
const path = require('node:path');
const [name, ...files] = process.argv.slice(1);
const environment = { ...process.env };
const found = files.map((file) => {
  for (const key of Object.keys(process.env)) if (!(key in environment)) delete process.env[key];
  Object.assign(process.env, environment); // a file before may have read its .env into it
  process.chdir(path.dirname(file));
  try {
    const loaded = require(file);
    const apps = Array.isArray(loaded) ? loaded : loaded.apps || [loaded];
    const app = apps.find((candidate) => candidate.name === name);
    const { script, cwd, instances, exec_mode, args, env } = app || {};
    const node_args = app && (app.node_args || app.interpreter_args);
    const more = Object.entries(app || {}).filter(([key]) => key.startsWith('env_')).map(([, block]) => block);
    return app ? { script, cwd, instances, exec_mode, args, node_args, env, more } : null;
  } catch (failure) {
    if (files.length === 1) throw failure;
    return null;
  }
});
process.stdout.write('\\n' + JSON.stringify(found) + '\\n');
"""


@dataclass(frozen=True)
class Drift:
    """Where one instance differs from the ecosystem file: names only, since values may be secrets."""

    arguments: tuple[str, ...]  # of args and node_args, those that differ
    variables: tuple[str, ...]
    leftover: tuple[str, ...] = ()  # variables that only another release's file declares
    kept: Mapping[str, Any] = field(default_factory=dict, repr=False)  # what PM2 holds, without those


def declared(pm2: Pm2, ecosystem: str, name: str) -> dict[str, Any] | None:
    """What the ecosystem file declares for ``name`` (``more``: its env_* blocks); None when it has no such app.

    Raises OperatorError when Node cannot load the file: the next cold start would fail the same way.
    """
    try:
        return _read(pm2, [ecosystem], name)[0]
    except (OSError, subprocess.SubprocessError, ValueError, IndexError) as failure:
        said = [line for line in (getattr(failure, "stderr", None) or str(failure)).splitlines() if "Error" in line]
        raise OperatorError(
            observed(
                "AMO-4207",
                "Node cannot load {ecosystem}: {reason}.",
                ecosystem=ecosystem,
                reason=redact(said[0]) if said else type(failure).__name__,
            ),
            expected=say("an ecosystem file in JavaScript or JSON."),
            next_step=say("correct the file, or app_ecosystem and app_environment_path in the inventory."),
        ) from failure


def declared_by_others(pm2: Pm2, ecosystem: str, path: str, release: str, name: str) -> list[dict[str, Any]]:
    """What the ecosystem files of the other kept releases declare for ``name``, without those that Node cannot load.

    ``path`` leads to ``release``, beside which the others are.
    """
    inside = os.path.relpath(ecosystem, path)
    if inside.startswith(os.pardir) or not os.path.islink(path):
        return []  # the file belongs to no release, or there are none
    places = (os.path.join(one.path, inside) for one in os.scandir(os.path.dirname(release)) if one.path != release)
    files = sorted(file for file in places if os.path.isfile(file))
    try:
        return [one for one in _read(pm2, files, name) if one] if files else []
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return []  # one of them ended Node itself


def _read(pm2: Pm2, files: Sequence[str], name: str) -> list[dict[str, Any] | None]:
    environment = pm2.environment()
    node = shutil.which("node", path=environment["PATH"]) or "node"
    done = subprocess.run(  # noqa: S603 (as above)
        [node, "-e", _READ_ECOSYSTEM, name, *files],
        env=environment,
        cwd=os.path.dirname(files[0]),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    found: list[dict[str, Any] | None] = json.loads(done.stdout.splitlines()[-1])
    return found


def drift(pm2: Pm2, name: str, want: Mapping[str, Any], others: Sequence[Mapping[str, Any]] = ()) -> dict[int, Drift]:
    """The instances of ``name`` that PM2 holds with other arguments or variables than ``want`` declares.

    ``others``: what the files of other releases declare.
    """
    entries = parse_jlist(run(pm2, "jlist").stdout) or []
    found = {}
    for entry in entries:
        if entry.get("name") == name and isinstance(entry.get("pm_id"), int):
            one = differs(entry.get("pm2_env") or {}, want, others)
            if one.arguments or one.variables or one.leftover:
                found[int(entry["pm_id"])] = one
    return found


def differs(held: Mapping[str, Any], want: Mapping[str, Any], others: Sequence[Mapping[str, Any]] = ()) -> Drift:
    """Where ``held`` (a ``pm2_env``) differs. A value of any env_* block is as good as that of ``env``.

    Which block was chosen (``--env production``) PM2 does not say. A variable that no block declares counts as left
    over only with the value that another release's file gives it: another value came from the first start or a person.
    """
    environment: Mapping[str, Any] = held.get("env") or {}
    blocks = _blocks(want)
    leftover = {
        key
        for other in others
        for block in _blocks(other)
        for key, value in block.items()
        # PM2 spreads the variables among its own fields, which have lower-case names: none of those may be removed.
        if key == key.upper() and key in environment and as_text(environment[key]) == as_text(value)
    } - {key for block in blocks for key in block}
    return Drift(
        tuple(key for key in ("args", "node_args") if _flat(held.get(key)) != _flat(want.get(key))),
        tuple(
            sorted(
                key
                for key in (want.get("env") or {})
                if key not in environment
                or as_text(environment[key]) not in {as_text(block[key]) for block in blocks if key in block}
            )
        ),
        tuple(sorted(leftover)),
        {key: value for key, value in environment.items() if key not in leftover},
    )


def as_text(value: Any) -> str:
    """A variable's value as a process gets it: PM2 makes JSON of what is no text."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _blocks(declaration: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [one for one in (declaration.get("env"), *(declaration.get("more") or ())) if isinstance(one, dict)]


def _flat(arguments: Any) -> str:
    """Arguments without what PM2 takes apart in its own way: it keeps a list of what may be declared as one text."""
    text = " ".join(map(str, arguments)) if isinstance(arguments, list) else str(arguments or "")
    return "".join(text.split()).replace('"', "").replace("'", "")
