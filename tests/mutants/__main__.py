"""Change the core in small ways, one at a time, and see whether a test notices: killed of tried.

    python -m tests.mutants [--minutes N | --all] [--seed TEXT] [--only TEXT] [--workers N] [--list]

Each mutant is run against the tests that enter its function, the likeliest first, in a fork of a pytest that has a
server of its own; no file is changed. A test that fails, or that does not end in time, has noticed. Without --all it is
a sample: the order is shuffled by the seed, today's date, and ends after --minutes. What nobody can notice stands in
equivalent.yml, each with its reason, and is not tried. It fails below 95 %, and of all of them at any survivor.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import datetime
import os
import queue
import random
import sys
import threading
import time

from tests.mutants.covering import Covering, MutantsError, recorded
from tests.mutants.finding import Mutant, find
from tests.mutants.scope import CORE, FILES, ROOT, equivalent
from tests.mutants.trying import Session

FLOOR = 95  # percent


class Trials:
    """What has come of the mutants so far."""

    def __init__(self, covering: Covering) -> None:
        self.covering, self.lock = covering, threading.Lock()
        self.killed: dict[Mutant, str] = {}
        self.survived: list[Mutant] = []
        self.kills: dict[str, int] = {}  # by test, and by test and scope: who has noticed one notices the next

    def likeliest(self, mutant: Mutant) -> list[str]:
        with self.lock:
            kills = dict(self.kills)
        tests = self.covering.of(mutant)
        return sorted(tests, key=lambda test: (-kills.get(f"{mutant.scope} {test}", 0), -kills.get(test, 0)))

    def add(self, mutant: Mutant, killer: str | None, seconds: float) -> None:
        with self.lock:
            if killer is None:
                self.survived.append(mutant)
            else:
                self.killed[mutant] = killer
                for key in (killer, f"{mutant.scope} {killer}"):
                    self.kills[key] = self.kills.get(key, 0) + 1
            if killer is None or sys.stdout.isatty():
                outcome = f"killed by {killer}" if killer else "SURVIVED"
                print(f"{outcome} ({seconds:.0f} s): {CORE}/{mutant.file}:{mutant.line}\n    {mutant.name}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=8, help="how long to go on with a sample")
    parser.add_argument("--all", action="store_true", help="every mutant, however long it takes")
    parser.add_argument("--seed", default=datetime.date.today().isoformat(), help="which sample")
    parser.add_argument("--only", default="", help="mutants whose name contains this text, in their order")
    parser.add_argument("--workers", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--list", action="store_true", help="print the mutants, run nothing")
    options = parser.parse_args()
    excused = equivalent()
    found = [mutant for name in FILES for mutant in find(ROOT / CORE, f"{name}.py")]
    if unknown := excused.keys() - {mutant.name for mutant in found}:
        print(f"equivalent.yml names what is no mutant (any more): {'; '.join(sorted(unknown))}.", file=sys.stderr)
        return 1
    wanted = [mutant for mutant in found if mutant.name not in excused and options.only in mutant.name]
    if options.list:
        for mutant in wanted:
            print(f"{CORE}/{mutant.file}:{mutant.line} {mutant.name}")
        return 0
    if not options.only and not options.all:
        random.Random(options.seed).shuffle(wanted)
    trials = Trials(recorded())
    deadline = None if options.all else time.monotonic() + 60 * options.minutes
    run(trials, wanted, options.workers, deadline)
    return verdict(trials, len(wanted), len(excused), options.seed)


def run(trials: Trials, wanted: list[Mutant], workers: int, deadline: float | None) -> None:
    """Try the mutants in their order, each in a free session."""
    sessions: queue.Queue[Session] = queue.Queue()
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        made = [Session(trials.covering) for _ in range(workers)]
        try:
            made[0].control()
            for session in made:
                sessions.put(session)

            def one(mutant: Mutant) -> None:
                if deadline and time.monotonic() > deadline:
                    return
                session = sessions.get()
                try:
                    started = time.monotonic()
                    killer = session.killer(mutant, trials.likeliest(mutant))
                    trials.add(mutant, killer, time.monotonic() - started)
                finally:
                    sessions.put(session)

            for _ in pool.map(one, wanted):
                pass
        finally:
            for session in made:
                session.remove()


def verdict(trials: Trials, wanted: int, excused: int, seed: str) -> int:
    """Print the figures. Returns the exit code."""
    tried = len(trials.killed) + len(trials.survived)
    if not tried:
        print("No mutant was tried.", file=sys.stderr)
        return 1
    percent = 100 * len(trials.killed) / tried
    for mutant in sorted(trials.survived, key=lambda one: (one.file, one.start)):
        print(f"survived: {CORE}/{mutant.file}:{mutant.line}\n    {mutant.name}")
    sample = "every one" if tried == wanted else f"a sample of {wanted}, seed {seed}"
    print(f"Mutants: killed {len(trials.killed)} of {tried} ({percent:.1f} %), {sample}; {excused} more have a reason.")
    if trials.survived:
        print(
            f"Expected: {FLOOR} % of a sample killed; of all, each survivor with a reason. Next: write the test that"
            " notices it, or give the reason why none can in tests/mutants/equivalent.yml."
        )
    return 1 if percent < FLOOR or (trials.survived and tried == wanted) else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except MutantsError as stop:
        sys.exit(f"make mutants: {stop}")
