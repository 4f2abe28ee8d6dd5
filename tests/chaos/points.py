"""The points at which a run is struck, and which of them make a sample."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Point:
    """One strike: ``way`` is deploy, concurrent (a deploy that builds so) or rollback; ``blow`` is one of three.

    kill: the controller, before task ``task``. end: the backend, inside the statement of that shape that the task sends
    first. restart: the whole server, there. ``covers``: the tasks before which everything is as it is here.
    """

    way: str
    blow: str
    task: int
    name: str
    shape: str = ""
    covers: tuple[str, ...] = field(default=(), compare=False)

    @property
    def id(self) -> str:
        """What names it in chaos.json and in the directory of its logs."""
        return " | ".join(part for part in (self.way, self.blow, str(self.task), self.name, self.shape) if part)


@dataclass(frozen=True)
class Course:
    """One undisturbed run: its tasks in order, the statements that each of them sent, and what was done on a host."""

    tasks: Sequence[Mapping[str, Any]]
    statements: Sequence[tuple[int, str]]
    calls: Sequence[Mapping[str, Any]]


# These only change what the controller has in mind, which ends with it.
_IN_MIND = {
    f"ansible.builtin.{name}"
    for name in ("add_host", "assert", "debug", "fail", "group_by", "import_role", "import_tasks", "include_role")
} | {f"ansible.builtin.{name}" for name in ("include_tasks", "include_vars", "meta", "set_fact", "set_stats")}


# Points of no return, by the task before which the state is the one that they are named after.
_NO_RETURN = {
    "deploy": {
        "rows removed": "Ensure that the planned indexes are built and in Prisma's history",
        "history recorded": "Stop unless exactly the planned indexes hold, then lower the fence",
        "link switched": "Ensure that every instance serves the wanted release",
        "instances reloaded": "Remember when it ended",
        "run not yet closed": "Close the run in the journal",
    },
    "rollback": {
        "link switched back": "Ensure that every instance serves the release before",
        "run not yet closed": "Close the run in the journal",
    },
}
# The same by the statement in which the backend ends: way, and what its shape begins with.
_NO_RETURN_STATEMENTS = (
    ("deploy", "PREPARE at_most_one_batch"),  # fence raised, no row removed
    ("deploy", "EXECUTE at_most_one_batch"),  # rows half removed
    ("concurrent", "CREATE UNIQUE INDEX CONCURRENTLY"),  # indexes half built
    ("concurrent", 'INSERT INTO "aedpics"."_prisma_migrations"'),
    ("deploy", 'CREATE UNIQUE INDEX "at_most_one_fence'),  # fence half raised
    ("rollback", "DROP INDEX CONCURRENTLY"),
    ("rollback", "WITH setting AS MATERIALIZED"),  # rows half restored
)


def every(courses: Mapping[str, Course]) -> list[Point]:
    """All of them, in the order of each run; what ``statements`` strikes apart."""
    found: list[Point] = []
    for way, course in courses.items():
        names = {task["number"]: f"{task['play']}: {task['name']}" for task in course.tasks}
        if way != "concurrent":  # the same tasks as deploy
            found += _kills(way, course, names)
        for task, shape in dict.fromkeys(course.statements):
            if any(way == its_way and shape.startswith(begins) for its_way, begins in _NO_RETURN_STATEMENTS):
                found.append(Point(way, "end", task, names[task], shape))
        found += _restarts(way, course, names) if way != "concurrent" else []
    return found


def _kills(way: str, course: Course, names: Mapping[int, str]) -> list[Point]:
    """One for each state of the world in which a run can be killed between two tasks.

    Between the boundaries around a task that was skipped, or that only changes what the controller has in mind, nothing
    differs that outlives the controller.
    """
    acted = {call["number"] for call in course.calls if call["module"] not in _IN_MIND}
    states: list[list[int]] = []
    for number in names:
        if number - 1 in acted or not states:
            states.append([])
        states[-1].append(number)
    return [
        Point(way, "kill", state[-1], names[state[-1]], covers=tuple(names[number] for number in state))
        for state in states
    ]


def _restarts(way: str, course: Course, names: Mapping[int, str]) -> list[Point]:
    """One in each phase, in the middle of what it says to the database."""
    found = []
    for play in dict.fromkeys(task["play"] for task in course.tasks):
        own = {task["number"] for task in course.tasks if task["play"] == play}
        said = list(dict.fromkeys(entry for entry in course.statements if entry[0] in own))
        if said:
            task, shape = said[len(said) // 2]
            found.append(Point(way, "restart", task, names[task], shape))
    return found


def of_no_return(points: Sequence[Point]) -> list[Point]:
    """Those that a sample may not leave out. Raises ValueError when one is not there: a name has changed."""
    found = []
    for way, tasks in _NO_RETURN.items():
        for what, task in tasks.items():
            there = [p for p in points if p.way == way and any(f": {task}" in name for name in p.covers)]
            if not there:
                raise ValueError(f"no task of {way} begins with {task!r}: {what}")
            found.append(there[-1])
    for way, shape in _NO_RETURN_STATEMENTS:
        there = [p for p in points if (p.way, p.blow) == (way, "end") and p.shape.startswith(shape)]
        if not there:
            raise ValueError(f"no statement of {way} begins with {shape!r}")
        found.append(there[len(there) // 2])
    return list(dict.fromkeys(found))


# Where a wrong answer costs rows or requests; of the points above those that `make test` injects.
_ESSENTIAL = {"rows removed", "link switched", "link switched back"}
_ESSENTIAL_STATEMENTS = (
    "EXECUTE at_most_one_batch",
    "CREATE UNIQUE INDEX CONCURRENTLY",
    "WITH setting AS MATERIALIZED",
)


def essential(points: Sequence[Point]) -> list[Point]:
    """The points of no return that cost rows or requests if the next run goes wrong, in the order of each run."""
    tasks = [task for named in _NO_RETURN.values() for what, task in named.items() if what in _ESSENTIAL]
    return [
        point
        for point in of_no_return(points)
        if (point.blow == "kill" and any(f": {task}" in name for task in tasks for name in point.covers))
        or point.shape.startswith(_ESSENTIAL_STATEMENTS)
    ]


def sample(points: Sequence[Point], size: int) -> list[Point]:
    """``size`` of them: those of no return, a restart of the server each way, and the others at even distances.

    The same points give the same sample.
    """
    chosen = of_no_return(points)
    for way in _NO_RETURN:
        restarts = [point for point in points if (point.way, point.blow) == (way, "restart")]
        chosen.append(restarts[len(restarts) // 2])
    others = [point for point in points if point not in chosen]
    more = min(len(others), max(0, size - len(chosen)))
    chosen += [others[(2 * number + 1) * len(others) // (2 * more)] for number in range(more)]
    return sorted(chosen, key=points.index)


def alternating(points: Sequence[Point]) -> list[Point]:
    """Deployments and rollbacks in turns, as far as they go: each leaves what the other starts from."""
    back = [point for point in points if point.way == "rollback"]
    forth = [point for point in points if point.way != "rollback"]
    mixed = [point for pair in zip(forth, back, strict=False) for point in pair]
    return mixed + forth[len(back) :] + back[len(forth) :]
