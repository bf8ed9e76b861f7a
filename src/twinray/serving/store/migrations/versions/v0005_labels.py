"""Scores of classifiers, and of which kind a model is."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Add the columns; all models before were detectors."""
    kind = sa.Column("kind", sa.String(length=16), nullable=False, server_default="detector")
    op.add_column("models", kind)
    op.add_column("analyses", sa.Column("labels", sa.JSON(), nullable=True))


def downgrade() -> None:
    """Refuse: a store goes back by restoring a backup."""
    raise NotImplementedError("restore a backup")
