"""The hash chain of the journal: each row's hash covers the hash of the row before it.

A change, removal or reordering of any row breaks every later hash. It makes tampering evident; it does not stop an
administrator of the machine from writing a new chain.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

#: Hash "before" the first row.
GENESIS = "0" * 64


def row_hash(previous: str, fields: Mapping[str, Any]) -> str:
    """SHA-256 over the previous hash and the row.

    Args:
        previous: Hash of the row before, or ``GENESIS``.
        fields: at, mono_ms, boot, kind, study_id, subject, actor, body; ``seq`` is covered by the order of the chain.
    """
    text = json.dumps(fields, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(f"{previous}\n{text}".encode()).hexdigest()


def secret_digest(secret: str) -> str:
    """What is kept of a random secret (cookie, code, token): it has the entropy that a password lacks, so no salt."""
    return hashlib.sha256(secret.encode()).hexdigest()
