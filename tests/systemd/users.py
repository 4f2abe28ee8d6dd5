"""Users of one address, each with one request after the other, until the input ends: what came of every one of them.

    python users.py URL USERS PAUSE_S

A request is answered by status 200 and a whole body that names a build. Whatever else comes of it is a lost one: it was
refused, reset, cut off, late, or got another status. Each line of input, and its end, is answered with the counts until
then, as JSON.
"""

from __future__ import annotations

import http.client
import json
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from urllib.parse import urlsplit

LATE_S = 60.0


@dataclass
class Counts:
    """The requests that have ended: answered, by build; lost, by reason; and the longest wait for an answer."""

    answered: Counter[str] = field(default_factory=Counter)
    lost: Counter[str] = field(default_factory=Counter)
    longest_s: float = 0.0


def ask(connection: http.client.HTTPConnection) -> str:
    """The build that answers."""
    connection.request("GET", "/")
    reply = connection.getresponse()
    body = reply.read()
    if reply.status != 200:
        raise http.client.HTTPException(f"status {reply.status}")
    return str(json.loads(body)["commit"])


def user(address: str, pause_s: float, counts: Counts, counting: threading.Lock, over: threading.Event) -> None:
    connection = http.client.HTTPConnection(address, timeout=LATE_S)
    while not over.is_set():
        began = time.monotonic()
        try:
            build, problem = ask(connection), ""
        except (OSError, http.client.HTTPException, ValueError, KeyError) as failure:
            connection.close()
            build, problem = "", f"{type(failure).__name__}: {failure}"
        with counting:
            (counts.lost if problem else counts.answered)[problem or build] += 1
            counts.longest_s = max(counts.longest_s, time.monotonic() - began)
        over.wait(pause_s)


def main(url: str, users: int, pause_s: float) -> None:
    counts, counting, over = Counts(), threading.Lock(), threading.Event()
    given = (urlsplit(url).netloc, pause_s, counts, counting, over)
    threads = [threading.Thread(target=user, args=given) for _ in range(users)]
    for thread in threads:
        thread.start()
    for _line in sys.stdin:
        with counting:
            print(json.dumps(vars(counts)), flush=True)
    over.set()
    for thread in threads:
        thread.join()
    print(json.dumps(vars(counts)), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]))
