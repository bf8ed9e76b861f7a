"""Tables of reader studies: what was fixed, which readings are planned; ratings of marks.

Revision ID: 0004
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "studies",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("created", sa.Float(precision=53), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("design", sa.JSON(), nullable=False),
        sa.Column("ended", sa.Float(precision=53), nullable=True),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_studies")),
    )
    op.create_table(
        "slots",
        sa.Column(
            "number",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            autoincrement=True,
            nullable=False,
        ),
        sa.Column("study", sa.String(length=64), nullable=False),
        sa.Column("reader", sa.String(length=64), nullable=False),
        sa.Column("session", sa.Integer(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("image", sa.String(length=32), nullable=False),
        sa.Column("arm", sa.String(length=8), nullable=False),
        sa.Column("opened", sa.Float(precision=53), nullable=True),
        sa.Column("submitted", sa.Float(precision=53), nullable=True),
        sa.Column("reading", sa.String(length=32), nullable=True),
        sa.ForeignKeyConstraint(
            ["study"], ["studies.name"], name=op.f("fk_slots_study"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["image"], ["images.id"], name=op.f("fk_slots_image"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_slots")),
        sa.UniqueConstraint(
            "study",
            "reader",
            "session",
            "position",
            name=op.f("uq_slots_study_reader_session_position"),
        ),
        sa.UniqueConstraint(
            "study", "reader", "session", "image", name=op.f("uq_slots_study_reader_session_image")
        ),
    )
    op.create_index(op.f("ix_slots_image"), "slots", ["image"], unique=False)
    op.add_column("readings", sa.Column("slot", sa.BigInteger(), nullable=True))
    op.create_index(op.f("ix_readings_slot"), "readings", ["slot"], unique=False)
    op.add_column("marks", sa.Column("rating", sa.Float(precision=53), nullable=True))


def downgrade() -> None:
    """Refuse: a store goes back by restoring a backup."""
    raise NotImplementedError("restore a backup")
