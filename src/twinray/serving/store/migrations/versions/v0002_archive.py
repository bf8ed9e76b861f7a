"""Tables of the link to an archive: who a pseudonym is, what was fetched, what goes back.

Revision ID: 0002
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "patients",
        sa.Column("patient", sa.String(length=64), nullable=False),
        sa.Column("identifier", sa.Text(), nullable=False),
        sa.Column("issuer", sa.Text(), nullable=False),
        sa.Column("noted", sa.Float(precision=53), nullable=False),
        sa.PrimaryKeyConstraint("patient", name=op.f("pk_patients")),
    )
    op.create_table(
        "arrivals",
        sa.Column("object", sa.String(length=64), nullable=False),
        sa.Column("image", sa.String(length=32), nullable=True),
        sa.Column("at", sa.Float(precision=53), nullable=False),
        sa.ForeignKeyConstraint(
            ["image"], ["images.id"], name=op.f("fk_arrivals_image"), ondelete="SET NULL"
        ),
        sa.PrimaryKeyConstraint("object", name=op.f("pk_arrivals")),
    )
    op.create_index(op.f("ix_arrivals_image"), "arrivals", ["image"], unique=False)
    op.create_table(
        "sends",
        sa.Column(
            "number",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            autoincrement=True,
            nullable=False,
        ),
        sa.Column("image", sa.String(length=32), nullable=False),
        sa.Column("reading", sa.String(length=32), nullable=False),
        sa.Column("model", sa.String(length=64), nullable=False),
        sa.Column("who", sa.String(length=64), nullable=False),
        sa.Column("created", sa.Float(precision=53), nullable=False),
        sa.Column("state", sa.String(length=8), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("due", sa.Float(precision=53), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("finished", sa.Float(precision=53), nullable=True),
        sa.ForeignKeyConstraint(
            ["image"], ["images.id"], name=op.f("fk_sends_image"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_sends")),
        sa.UniqueConstraint("image", "reading", "model", name=op.f("uq_sends_image_reading_model")),
    )
    op.create_index("ix_sends_state_due", "sends", ["state", "due"], unique=False)


def downgrade() -> None:
    """Refuse: a store goes back by restoring a backup."""
    raise NotImplementedError("restore a backup")
