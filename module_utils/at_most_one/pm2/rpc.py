"""Call a method of PM2's daemon, for what no command of PM2 does: remove a variable.

``pm2 reload --update-env`` adds and overwrites. The daemon itself can do more (PM2's lib/Utility.js, extendMix): the
``current_conf`` that a reload of an ecosystem file sends along replaces ``env`` as a whole, and removes a field whose
value is "null". The socket speaks AMP, as the event bus does (:mod:`.bus`): one JSON argument with method and
arguments, and one that names the request; the answer repeats the name (PM2's modules/pm2-axon-rpc).
"""

from __future__ import annotations

import json
import os
import socket
import struct
import time
from collections.abc import Collection, Mapping
from typing import Any

from ..findings import say
from .bus import take_messages
from .client import Pm2

_REQUEST = b"s:at-most-one:0"


class Refused(Exception):
    """The daemon did not do what it was asked; its own words, without values."""


def reload(pm2: Pm2, pm_id: int, environment: Mapping[str, Any], removed: Collection[str], timeout_s: float) -> None:
    """Reload one instance, as `pm2 reload` does, with exactly these variables. Raises Refused.

    ``removed``: the variables that ``environment`` has no more; PM2 keeps each in a second place.
    """
    configuration = {"env": dict(environment), **dict.fromkeys(removed, "null")}
    _call(pm2, "reloadProcessId", {"id": pm_id, "env": {"current_conf": configuration}}, timeout_s)


def _call(pm2: Pm2, method: str, argument: Any, timeout_s: float) -> None:
    call = json.dumps({"type": "call", "method": method, "args": [argument]})
    sent = (b"j:" + call.encode(), _REQUEST)
    message = bytes([0x10 | len(sent)]) + b"".join(struct.pack(">I", len(part)) + part for part in sent)
    until = time.monotonic() + timeout_s
    received = bytearray()
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(timeout_s)
            connection.connect(os.path.join(pm2.home, "rpc.sock"))
            connection.sendall(message)
            while time.monotonic() < until and (chunk := connection.recv(65536)):
                received += chunk
                for parts in take_messages(received):
                    if parts[-1] == _REQUEST:
                        _require_done(parts[0])
                        return
    except (OSError, ValueError) as failure:
        raise Refused(
            say("PM2's daemon gave no answer: {failure}", failure=failure or type(failure).__name__)
        ) from failure
    raise Refused(say("PM2's daemon gave no answer within {timeout_s} s", timeout_s=f"{timeout_s:g}"))


def _require_done(answer: bytes) -> None:
    said = json.loads(answer[2:]) if answer.startswith(b"j:") else {}
    if isinstance(said, dict) and "error" in said:
        raise Refused(str(said["error"])[:200])
