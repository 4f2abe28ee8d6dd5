"""PostgreSQL on the booted machine, with a table that has duplicates, until the input ends.

    python -m tests.systemd.database

It prints how its owner logs in, and then answers each line of input, a statement, with its rows. All of it is JSON.
"""

from __future__ import annotations

import contextlib
import json
import sys
from dataclasses import asdict, replace

from at_most_one.postgres.connection import Login

from tests.support.postgres import running, superuser

PASSWORD = "a secret of the shop"
# Four of 40 users have three enrolments too many in one of five courses: what the plan of examples/plans expects.
TABLE = (
    """
    CREATE TABLE public.enrolments (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, user_id integer NOT NULL, course_id integer NOT NULL,
        status text NOT NULL, created_at timestamptz NOT NULL)""",
    """
    INSERT INTO public.enrolments (user_id, course_id, status, created_at)
        SELECT u, c, 'active', '2025-11-01'::timestamptz + u * interval '1 hour'
        FROM generate_series(1, 40) AS u, generate_series(1, 5) AS c""",
    """
    INSERT INTO public.enrolments (user_id, course_id, status, created_at)
        SELECT u, 2, 'active', '2025-11-20'::timestamptz + n * interval '1 hour'
        FROM generate_series(1, 4) AS u, generate_series(1, 3) AS n""",
)


def main() -> None:
    with running({"fsync": "off"}, Login("127.0.0.1", 0, "postgres", "postgres", "only for tests")) as server:
        server.run(f"CREATE ROLE shop LOGIN PASSWORD '{PASSWORD}'", "CREATE DATABASE shop OWNER shop")
        inside = replace(server, login=replace(server.login, dbname="shop"))
        inside.run("GRANT ALL ON SCHEMA public TO shop")
        owner = replace(inside, login=replace(inside.login, user="shop", password=PASSWORD))
        owner.run(*TABLE)
        print(json.dumps({**asdict(owner.login), "binaries": str(server.binaries)}), flush=True)
        for line in sys.stdin:
            with contextlib.closing(superuser(owner.login)) as connection, connection.cursor() as cursor:
                cursor.execute(json.loads(line))
                print(json.dumps(cursor.fetchall(), default=str), flush=True)


if __name__ == "__main__":
    main()
