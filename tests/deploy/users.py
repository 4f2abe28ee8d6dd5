"""Users who never stop, as load and as witnesses."""

from __future__ import annotations

import threading
import time
from urllib.error import URLError
from urllib.request import urlopen

from tests.deploy.conftest import Lab


class Users:
    """Users who never stop: four at once ask for the page and the health, and count what fails.

    With a pause between two requests of one user they are witnesses only, and leave a busy machine its processors.
    """

    def __init__(self, lab: Lab, *, pause_s: float = 0) -> None:
        self.pause_s = pause_s
        self.urls = [lab.values["app_url"] + "/", lab.values["app_url"] + "/api/health"]
        self.requests, self.failures = 0, []  # type: int, list[str]
        self._stop, self._lock = threading.Event(), threading.Lock()
        self._threads = [threading.Thread(target=self._ask, args=(n,)) for n in range(4)]

    def __enter__(self) -> Users:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _ask(self, number: int) -> None:
        while not self._stop.is_set():
            failure = ""
            try:
                with urlopen(self.urls[number % 2], timeout=10) as answer:
                    answer.read()
            except (URLError, OSError) as error:
                failure = f"{time.strftime('%T')} {error}"
            with self._lock:
                self.requests += 1
                if failure:
                    self.failures.append(failure)
            self._stop.wait(self.pause_s)
