"""Forward migrations: ``MIGRATIONS[n]`` is the SQL that takes schema n to n + 1."""

from __future__ import annotations

#: Schema 1 is the first; ``schema.sql`` always writes the newest.
MIGRATIONS: dict[int, str] = {}
