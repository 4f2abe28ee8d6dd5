"""Keep a process that PM2 ends from going before the daemon has stopped handing it connections.

``next start`` ends as soon as its listening socket is closed and no request is under way. A connection that PM2's
daemon handed over in that moment lies in the mailbox of a process that is gone, and its client waits in vain; a process
that still runs gives it back, and another one takes it (Node's lib/internal/cluster/child.js). A request under way
keeps the process there: so one is begun before the reload, and finished when the new process answers. PM2 allows for it
what ``kill_timeout`` says. Should this process die, its connection goes, and all is as without it.
"""

from __future__ import annotations

import contextlib
import http.client
import threading
import time
from collections.abc import Collection, Iterator

from ..http.client import place
from ..http.served_build import Probe, ask

_LINGER_S = 0.5  # from the first answer of the new process, which comes after the old one was told to end
_POLL_S = 0.1


@contextlib.contextmanager
def held(probe: Probe | None, pid: int, known: Collection[int]) -> Iterator[bool]:
    """Hold ``pid`` while the block runs, at most until a process that is not ``known`` has answered.

    Yields whether it is held: not where answers do not name their process, and not where it does not answer.
    """
    connection = _begin(probe, pid) if probe else None
    if probe is None or connection is None:
        yield False
        return
    over = threading.Event()
    release = threading.Thread(target=_release, args=(connection, probe, {str(one) for one in known}, over))
    release.start()
    try:
        yield True
    finally:
        over.set()
        release.join()


def _begin(probe: Probe, pid: int) -> http.client.HTTPConnection | None:
    """A connection on which ``pid`` has answered once and waits for the rest of a second request."""
    origin = place(probe.url)
    headers = {"Connection": "keep-alive", **origin.headers}
    until = time.monotonic() + probe.timeout_s
    while probe.pid_header and origin.scheme == "http" and time.monotonic() < until:
        # Without a port http.client would read one out of an IPv6 address.
        connection = http.client.HTTPConnection(origin.host, origin.port or 80, timeout=probe.timeout_s)
        try:
            connection.request("GET", origin.target, headers=headers)
            response = connection.getresponse()
            response.read()
            if response.getheader(probe.pid_header) == str(pid) and connection.sock:
                connection.sock.sendall(f"GET {origin.target} HTTP/1.1\r\nHost: {origin.authority}\r\n".encode())
                return connection
        except (OSError, http.client.HTTPException, UnicodeError):  # the last: a path that is not ASCII
            time.sleep(_POLL_S)
        connection.close()
    return None


def _release(
    connection: http.client.HTTPConnection, probe: Probe, known: Collection[str], over: threading.Event
) -> None:
    """Finish the request once a new process answers, or the reload is over."""
    while not over.wait(_POLL_S):
        pid = ask(probe).pid
        if pid is not None and pid not in known:
            over.wait(_LINGER_S)
            break
    with contextlib.suppress(OSError), contextlib.closing(connection):
        if connection.sock:
            connection.sock.sendall(b"Connection: close\r\n\r\n")
            while connection.sock.recv(65536):
                pass
