"""What Django has recorded of one migration: `status` ends with 0, 3 or 4, `not-applied` takes it out again.

manage.py at_most_one_history status|not-applied APP MIGRATION
"""

import sys

from django.core.management import BaseCommand, CommandError, call_command
from django.db import connection
from django.db.migrations.loader import MigrationLoader


class Command(BaseCommand):
    def add_arguments(self, parser):
        parser.add_argument("question", choices=["status", "not-applied"])
        parser.add_argument("app")
        parser.add_argument("migration")

    def handle(self, question, app, migration, **options):
        loader = MigrationLoader(connection)
        node = loader.graph.node_map.get((app, migration))
        if node is None:
            raise CommandError(f"{app} has no migration {migration}.")
        before, later = ([other.key for other in others] for others in (node.parents, node.children))
        if question == "not-applied":
            names = [name for of, name in before if of == app]
            call_command("migrate", app, names[0] if names else "zero", fake=True, interactive=False)
        elif node.key in loader.applied_migrations:
            sys.exit(4 if any(key in loader.applied_migrations for key in later) else 0)
        else:
            missing = [".".join(key) for key in before if key not in loader.applied_migrations]
            if missing:
                raise CommandError(f"{', '.join(missing)} comes first: manage.py migrate")
            sys.exit(3)
