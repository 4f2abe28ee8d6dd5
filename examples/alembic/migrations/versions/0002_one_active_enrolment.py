"""At most one active enrolment per user and course. A deployment has built it where duplicates were."""

import sqlalchemy as sa
from alembic import op

revision = "0002_one_active_enrolment"
down_revision = "0001_enrolments"


def upgrade() -> None:
    op.create_index(
        "one_active_enrolment",
        "enrolments",
        ["user_id", "course_id"],
        unique=True,
        postgresql_where=sa.text("status = 'active'"),
    )


def downgrade() -> None:
    op.drop_index("one_active_enrolment", "enrolments")
