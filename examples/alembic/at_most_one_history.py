"""What Alembic has recorded of one revision: `status` ends with 0, 3 or 4, `not-applied` stamps the revision before it.

at_most_one_history.py status|not-applied REVISION
"""

import sys

from alembic import command
from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.script import ScriptDirectory
from alembic.util import to_tuple


def main(question: str, name: str) -> int:
    config = Config("alembic.ini")
    script = ScriptDirectory.from_config(config)
    revision = script.get_revision(name)
    before = to_tuple(revision.down_revision, default=())
    if question == "not-applied":
        (parent,) = before or ("base",)
        command.stamp(config, parent)
        return 0
    heads = set()
    with EnvironmentContext(config, script, fn=lambda found, _: heads.update(found) or [], dont_mutate=True):
        script.run_env()
    applied = {one.revision for one in script.iterate_revisions(tuple(heads), "base")} if heads else set()
    if revision.revision in applied:
        return 0 if revision.revision in heads else 4
    if set(before) <= applied:
        return 3
    print(f"{', '.join(before)} comes first: alembic upgrade {before[0]}")
    return 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
