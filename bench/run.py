"""What a bench is given: a server when it needs one, its sizes, and a way to state its figures."""

from __future__ import annotations

import contextlib
import functools
import sys
import time
from collections.abc import Iterator

from .results import Result
from .server import Server, running


class Bench:
    """One run of all benches. ``scale`` shrinks every size: 0.01 tries the code, it does not measure anything."""

    def __init__(self, scale: float = 1.0) -> None:
        self.scale = scale
        self.subject = ""
        self._open = contextlib.ExitStack()

    def __enter__(self) -> Bench:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    @functools.cached_property
    def server(self) -> Server:
        """The private PostgreSQL, started when the first bench asks for it, shared by all."""
        return self._open.enter_context(running())

    def size(self, full: int, least: int = 24) -> int:
        """The scaled size, a multiple of ``least`` so that groups stay whole."""
        return max(round(full * self.scale / least), 1) * least

    def result(self, name: str, value: float, unit: str, *, goal: float | None = None, repetitions: int) -> Result:
        """A figure of the bench that runs now."""
        self.say(f"{name}: {value:.6g} {unit}")
        return Result(self.subject, name, round(value, 6), unit, goal, repetitions)

    def say(self, text: str) -> None:
        """A line for the person who waits."""
        print(f"{time.strftime('%H:%M:%S')} {self.subject}: {text}", file=sys.stderr, flush=True)


@contextlib.contextmanager
def stopwatch() -> Iterator[list[float]]:
    """Appends the block's seconds to the list it gives."""
    seconds: list[float] = []
    begin = time.perf_counter()
    yield seconds
    seconds.append(time.perf_counter() - begin)
