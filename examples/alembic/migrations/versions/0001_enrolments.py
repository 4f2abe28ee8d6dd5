"""The table."""

import sqlalchemy as sa
from alembic import op

revision = "0001_enrolments"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "enrolments",
        sa.Column("id", sa.BigInteger, sa.Identity(), primary_key=True),
        sa.Column("user_id", sa.Integer, nullable=False),
        sa.Column("course_id", sa.Integer, nullable=False),
        sa.Column("status", sa.String(20), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
    )


def downgrade() -> None:
    op.drop_table("enrolments")
