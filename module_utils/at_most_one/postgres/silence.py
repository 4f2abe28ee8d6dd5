"""A server that has stopped answering, although its kernel still acknowledges what is sent to it.

A frozen machine, a stopped process or a disk that hangs closes no connection, and the timeouts of a session are kept
by the very server that is frozen. So whoever waits long is watched from here: a second connection is tried, and when
that gets no answer either, twice, the wait is ended. A server that refuses it (too many connections, a restart) has
answered.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator

AFTER_S = 15.0  # of waiting; then a second connection is tried, and again after each such time
TRIES = 2  # in a row without an answer: a server under load may be slow to accept one
TRY_S = 10  # for each: all of it is noticed within 45 s


class Silence:
    """Whether the server was given up."""

    def __init__(self) -> None:
        self.noticed = False
        self._ended = threading.Event()
        self._lock = threading.Lock()  # what is watched is touched under it, and never after the end

    def end(self) -> None:
        """Watch no longer. What was watched may be closed afterwards."""
        with self._lock:
            self._ended.set()

    def watch(self, waiting: Callable[[], bool], answers: Callable[[], bool], give_up: Callable[[], None]) -> None:
        """Until the end, or until the server was given up."""
        silent, pause_s = 0, AFTER_S
        while not self._ended.wait(pause_s):
            with self._lock:
                if self._ended.is_set() or not waiting():
                    silent, pause_s = 0, AFTER_S
                    continue
            began = time.monotonic()
            silent = 0 if answers() else silent + 1
            # A network without a way to the server says so at once, and may have one again in a moment.
            pause_s = max(0.0, began + TRY_S - time.monotonic()) if silent else AFTER_S
            if silent == TRIES:
                with self._lock:
                    if not self._ended.is_set() and waiting():
                        self.noticed = True
                        give_up()
                return


@contextlib.contextmanager
def watched(waiting: Callable[[], bool], answers: Callable[[], bool], give_up: Callable[[], None]) -> Iterator[Silence]:
    """Watch while the block runs. ``answers`` tries a second connection for at most TRY_S seconds."""
    silence = Silence()
    threading.Thread(target=silence.watch, args=(waiting, answers, give_up), daemon=True).start()
    try:
        yield silence
    finally:
        silence.end()
