"""The migrations of the service, and a program that stands in for Prisma's CLI.

It takes the same lock, writes the same rows and runs the same file, or fails in a way that the real CLI cannot be
brought into.
"""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2]
RULE = "idx_inspection_sessions_active_session_per_equipment"
EARLIER = "20251001_init"
OURS = "20251110_add_partial_unique_indexes"

# As Prisma 6 creates it.
HISTORY = """
CREATE TABLE aedpics._prisma_migrations (
    id varchar(36) PRIMARY KEY, checksum varchar(64) NOT NULL, finished_at timestamptz,
    migration_name varchar(255) NOT NULL, logs text, rolled_back_at timestamptz,
    started_at timestamptz NOT NULL DEFAULT now(), applied_steps_count integer NOT NULL DEFAULT 0)
"""

# In the service's own shape. The names are unqualified: the script's search_path leads to the schema.
SHAPED = (ROOT / f"lab/app-after/prisma/migrations/{OURS}/migration.sql").read_text()

# As Prisma writes one: the connection's search_path must lead to the schema.
MIGRATION = f"""
CREATE UNIQUE INDEX "{RULE}" ON "inspection_sessions" ("equipment_serial") WHERE "status" IN ('active', 'paused');
CREATE INDEX "idx_inspection_schedules_equipment_date" ON "inspection_schedules" ("aed_data_id", "scheduled_for");
CREATE INDEX "idx_inspection_schedules_active" ON "inspection_schedules" ("aed_data_id", "scheduled_for")
    WHERE "status" NOT IN ('cancelled');
"""

STAND_IN = """#!{python}
import hashlib, os, pathlib, re, subprocess, sys, time, urllib.parse, uuid
import psycopg2
assert sys.argv[1] == "migrate" and sys.argv[2] in ("deploy", "status") and os.environ["CHECKPOINT_DISABLE"] == "1"
pathlib.Path("calls").open("a").write("x" if sys.argv[2] == "deploy" else "s")
mode, name = pathlib.Path("mode").read_text(), "{ours}"
url = urllib.parse.urlsplit(os.environ["DATABASE_URL"])
if mode == "leaks":
    print("Error: P1000: Authentication failed", os.environ["DATABASE_URL"], urllib.parse.unquote(url.password))
    sys.exit(1)
if mode == "says yes":
    print("All migrations have been successfully applied.")
    sys.exit(0)
if mode == "hangs":
    child = subprocess.Popen(["sleep", "60"])
    pathlib.Path("child").write_text(str(child.pid))
    child.wait()
query = urllib.parse.urlencode([(k, v) for k, v in urllib.parse.parse_qsl(url.query) if k != "schema"],
                               quote_via=urllib.parse.quote)
connection = psycopg2.connect(url._replace(query=query).geturl())
connection.autocommit = True
cursor = connection.cursor()
if sys.argv[2] == "status":
    cursor.execute("SELECT count(*) FROM _prisma_migrations WHERE migration_name = %s AND finished_at IS NOT NULL"
                   " AND rolled_back_at IS NULL", (name,))
    sys.exit(0 if cursor.fetchone()[0] else 1)
cursor.execute("SELECT pg_advisory_lock(72707369)")
migration = pathlib.Path("prisma/migrations", name, "migration.sql")
row = str(uuid.uuid4())
cursor.execute("SELECT count(*) FILTER (WHERE finished_at IS NULL AND rolled_back_at IS NULL),"
               " count(*) FILTER (WHERE finished_at IS NOT NULL AND rolled_back_at IS NULL AND migration_name = %s)"
               " FROM _prisma_migrations", (name,))
failed, applied = cursor.fetchone()
if failed:
    print("Error: P3009\\nmigrate found failed migrations in the target database")
    sys.exit(1)
if applied:
    print("No pending migrations to apply.")
    sys.exit(0)
cursor.execute("INSERT INTO _prisma_migrations (id, checksum, migration_name) VALUES (%s, %s, %s)",
               (row, hashlib.sha256(migration.read_bytes()).hexdigest(), name))
if mode == "hangs in the server":
    cursor.execute("SELECT pg_sleep(60)")
if mode == "dies":
    os.kill(os.getpid(), 9)
if mode == "late duplicate":
    cursor.execute("INSERT INTO inspection_sessions (equipment_serial, inspector_id)"
                   " SELECT 'AED-late', id FROM user_profiles, generate_series(1, 2)")
try:
    if mode == "statement by statement":  # as Prisma's JavaScript adapters send it
        for part in migration.read_text().split(";"):
            if re.sub("--.*", "", part).strip():
                cursor.execute(part)
    elif mode != "lies":
        cursor.execute(migration.read_text())
except psycopg2.Error as failure:
    logs = f"Database error code: {{failure.pgcode}}\\n\\nDatabase error:\\n{{failure}}"
    cursor.execute("UPDATE _prisma_migrations SET logs = %s WHERE id = %s", (logs, row))
    print(f"Error: P3018\\n\\nA migration failed to apply.\\n\\nMigration name: {{name}}\\n\\n{{logs}}")
    sys.exit(1)
cursor.execute("UPDATE _prisma_migrations SET finished_at = now(), applied_steps_count = 1 WHERE id = %s", (row,))
"""
