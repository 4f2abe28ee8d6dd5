"""A later migration, which the deployment does not know."""

import sqlalchemy as sa
from alembic import op

revision = "0003_notes"
down_revision = "0002_one_active_enrolment"


def upgrade() -> None:
    op.add_column("enrolments", sa.Column("notes", sa.Text))


def downgrade() -> None:
    op.drop_column("enrolments", "notes")
