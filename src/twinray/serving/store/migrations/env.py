"""Alembic's entry: brings the tables of one connection to the newest form."""

from __future__ import annotations

from alembic import context

from twinray.serving.store.models import Base

connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=Base.metadata,
    render_as_batch=True,
    transaction_per_migration=False,
)
context.run_migrations()
