"""What the ecosystem file declares, and where PM2 holds something else: a reload applies none of it by itself."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .errors import OperatorError
from .pm2 import Pm2, parse_jlist, run
from .redaction import redact

_READ_ECOSYSTEM = """
const [file, name] = process.argv.slice(1);
const loaded = require(file);
const apps = Array.isArray(loaded) ? loaded : loaded.apps || [loaded];
const app = apps.find((candidate) => candidate.name === name);
const { script, cwd, instances, exec_mode, args, env } = app || {};
const node_args = app && (app.node_args || app.interpreter_args);
const more = Object.entries(app || {}).filter(([key]) => key.startsWith('env_')).map(([, block]) => block);
const wanted = { script, cwd, instances, exec_mode, args, node_args, env, more };
process.stdout.write('\\n' + JSON.stringify(app ? wanted : null) + '\\n');
"""


@dataclass(frozen=True)
class Drift:
    """Where one instance differs from the ecosystem file: names only, since values may be secrets."""

    arguments: tuple[str, ...]  # of args and node_args, those that differ
    variables: tuple[str, ...]


def declared(pm2: Pm2, ecosystem: str, name: str) -> dict[str, Any] | None:
    """What the ecosystem file declares for ``name`` (``more``: its env_* blocks); None when it has no such app.

    Raises OperatorError when Node cannot load the file: the next cold start would fail the same way.
    """
    environment = pm2.environment()
    node = shutil.which("node", path=environment["PATH"]) or "node"
    try:
        done = subprocess.run(  # noqa: S603 (as above)
            [node, "-e", _READ_ECOSYSTEM, ecosystem, name],
            env=environment,
            cwd=os.path.dirname(ecosystem),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        )
        found = json.loads(done.stdout.splitlines()[-1])
    except (OSError, subprocess.SubprocessError, ValueError, IndexError) as failure:
        said = [line for line in (getattr(failure, "stderr", None) or str(failure)).splitlines() if "Error" in line]
        raise OperatorError(
            f"Node cannot load {ecosystem}: {redact(said[0]) if said else type(failure).__name__}.",
            expected="an ecosystem file in JavaScript or JSON.",
            next_step="correct the file, or app_ecosystem and app_environment_path in the inventory.",
        ) from failure
    return found if isinstance(found, dict) else None


def drift(pm2: Pm2, name: str, want: Mapping[str, Any]) -> dict[int, Drift]:
    """The instances of ``name`` that PM2 holds with other arguments or variables than ``want`` declares."""
    entries = parse_jlist(run(pm2, "jlist").stdout) or []
    found = {}
    for entry in entries:
        if entry.get("name") == name and isinstance(entry.get("pm_id"), int):
            one = differs(entry.get("pm2_env") or {}, want)
            if one.arguments or one.variables:
                found[int(entry["pm_id"])] = one
    return found


def differs(held: Mapping[str, Any], want: Mapping[str, Any]) -> Drift:
    """Where ``held`` (a ``pm2_env``) differs. A value of any env_* block is as good as that of ``env``.

    Which block was chosen (``--env production``) PM2 does not say.
    """
    environment: Mapping[str, Any] = held.get("env") or {}
    blocks = [block for block in (want.get("env"), *(want.get("more") or ())) if isinstance(block, dict)]
    return Drift(
        tuple(key for key in ("args", "node_args") if _flat(held.get(key)) != _flat(want.get(key))),
        tuple(
            sorted(
                key
                for key in (want.get("env") or {})
                if str(environment.get(key)) not in {str(block[key]) for block in blocks if key in block}
            )
        ),
    )


def _flat(arguments: Any) -> str:
    """Arguments without what PM2 takes apart in its own way: it keeps a list of what may be declared as one text."""
    text = " ".join(map(str, arguments)) if isinstance(arguments, list) else str(arguments or "")
    return "".join(text.split()).replace('"', "").replace("'", "")
