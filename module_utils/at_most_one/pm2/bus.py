"""What instances say on their standard error while they are reloaded, overheard on PM2's event bus.

An instance in cluster mode that throws while it boots leaves **nothing** in its error log: the write to the file is
asynchronous, and PM2's own handler ends the process before it happens (lib/ProcessContainer.js). The same text does
reach the daemon, which publishes it on pub.sock, where `pm2 logs` reads it. The bus speaks AMP: a byte with version and
number of arguments, then each argument with its length before it; "s:" begins a text, "j:" begins JSON.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import struct
import threading
from collections import defaultdict, deque
from collections.abc import Iterator
from typing import Any

from ..system.app_logs import without_colour
from ..system.redaction import redact
from .client import Pm2

_LINES_KEPT = 500
_LINE_SHOWN = 300


def take_messages(received: bytearray) -> Iterator[list[bytes]]:
    """Remove the complete messages from the front of ``received`` and yield their arguments.

    Raises ValueError when it is not AMP version 1.
    """
    while received:
        version, count = received[0] >> 4, received[0] & 0xF
        if version != 1:
            raise ValueError(f"AMP version {version}")
        position, arguments = 1, []
        for _ in range(count):
            if len(received) < position + 4:
                return
            (length,) = struct.unpack_from(">I", received, position)
            position += 4 + length
            if len(received) < position:
                return
            arguments.append(bytes(received[position - length : position]))
        del received[:position]
        yield arguments


def error_text(arguments: list[bytes]) -> tuple[str, str] | None:
    """The pm_id and the text of a message that an instance wrote to its standard error; None for any other message."""
    if len(arguments) != 2 or arguments[0] != b"s:log:err" or not arguments[1].startswith(b"j:"):
        return None
    try:
        event: Any = json.loads(arguments[1][2:])
        return str(event["process"]["pm_id"]), str(event["data"])
    except (ValueError, KeyError, TypeError):
        return None


class Overheard:
    """Listens while its ``with`` block runs. Without a bus it hears nothing, and stops nobody."""

    def __init__(self, pm2: Pm2) -> None:
        self._path = os.path.join(pm2.home, "pub.sock")
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._lines: defaultdict[str, deque[str]] = defaultdict(lambda: deque(maxlen=_LINES_KEPT))
        self._thread = threading.Thread(target=self._listen, daemon=True)

    def __enter__(self) -> Overheard:
        with contextlib.suppress(OSError):
            self._socket.connect(self._path)
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # wakes the reader
        if self._thread.is_alive():
            self._thread.join()
        self._socket.close()

    def _listen(self) -> None:
        received = bytearray()
        with contextlib.suppress(OSError, ValueError):
            while chunk := self._socket.recv(65536):
                received += chunk
                for arguments in take_messages(received):
                    if said := error_text(arguments):
                        pm_id, text = said
                        self._lines[pm_id].extend(line for line in text.splitlines() if line.strip())

    def lines(self, pm_id: int, most: int) -> list[str]:
        """The last lines that the instance wrote to standard error, without secrets."""
        kept = list(self._lines[str(pm_id)])[-most:]
        return [line[:_LINE_SHOWN] for line in redact(without_colour("\n".join(kept))).splitlines()]
