"""What orders images by how much labelling would teach, for every model: its doubt, and features of the image.

Revision ID: 0003
"""

from __future__ import annotations

import math

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

_FLOOR = 0.05
_AT_ONCE = 5000


def upgrade() -> None:
    """Add the columns, and work doubt out of boxes that are there; features come with the next analysis of an image."""
    op.add_column("analyses", sa.Column("doubt", sa.Float(precision=53), nullable=True))
    op.add_column("analyses", sa.Column("features", sa.Text(), nullable=True))
    op.create_index("ix_analyses_model_doubt", "analyses", ["model", "doubt"], unique=False)
    connection = op.get_bind()
    connection.execute(sa.text("UPDATE analyses SET doubt = 0 WHERE state = 'done'"))
    boxes = connection.execute(
        sa.text(
            "SELECT image, model, score FROM predictions WHERE score >= :floor AND score < 1 "
            "ORDER BY image, model"
        ),
        {"floor": _FLOOR},
    )
    doubt: dict[tuple[str, str], float] = {}
    for image, model, score in boxes.all():
        bits = -(score * math.log2(score) + (1 - score) * math.log2(1 - score))
        doubt[image, model] = doubt.get((image, model), 0.0) + bits
    rows = [{"d": bits, "i": image, "m": model} for (image, model), bits in doubt.items()]
    for start in range(0, len(rows), _AT_ONCE):
        connection.execute(
            sa.text("UPDATE analyses SET doubt = :d WHERE image = :i AND model = :m"),
            rows[start : start + _AT_ONCE],
        )


def downgrade() -> None:
    """Refuse: a store goes back by restoring a backup."""
    raise NotImplementedError("restore a backup")
