"""Which tasks of a playbook take the time: ``python -m bench.profile`` lists the slowest of a deployment of the lab.

It wants ``make lab-up`` before it. Where the lab is deployed already there is nothing to do, and what is listed is what
a deployment with nothing to do takes.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from .playbooks import Played, play


def slowest(played: Played, count: int) -> Table:
    """The tasks of a run by their seconds: until the next task began, templates and answers of all hosts included."""
    tasks = sorted(played.tasks, key=lambda task: task.seconds, reverse=True)
    table = Table("play", "task", "module", "answers")
    table.add_column("seconds", justify="right")
    for task in tasks[:count]:
        play = played.plays[task.play].partition(" ")[0]
        table.add_row(play, task.name, task.action, str(task.answers or "skipped"), f"{task.seconds:.2f}")
    rest = sum(task.seconds for task in tasks[count:])
    between = played.seconds - sum(task.seconds for task in tasks)
    table.add_row("", f"{len(tasks[count:])} other tasks", "", "", f"{rest:.2f}")
    table.add_row("", "starting, reading the playbook, ending", "", "", f"{between:.2f}")
    table.add_row("", "the whole", "", "", f"{played.seconds:.2f}")
    return table


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--count", type=int, default=25, help="tasks to list")
    options.add_argument("--inventory", default="inventories/local")
    options.add_argument("--limit", default="local")
    options.add_argument("playbook", nargs="?", default="deploy.yml")
    given = options.parse_args(arguments)
    console = Console()
    console.width = max(console.width, 0 if console.is_terminal else 150)
    console.print(slowest(play(given.playbook, given.inventory, "-l", given.limit), given.count))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
