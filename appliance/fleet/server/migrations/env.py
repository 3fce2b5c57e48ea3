"""What Alembic runs: inside the transaction that ``db.migrate`` has begun."""

from __future__ import annotations

from alembic import context

from appliance.fleet.server.tables import METADATA

context.configure(connection=context.config.attributes["connection"], target_metadata=METADATA, render_as_batch=True)
context.run_migrations()
