"""What routing would plan for a package, as tests of the store need it."""

from __future__ import annotations

from appliance.records import Role
from appliance.store.analyses import Plan


def plan_for(revision_id, **changes):
    """A live detection package "head" on one CT revision."""
    fields = {
        "package": "head",
        "package_version": "1.0.0",
        "role": Role.LIVE,
        "category": 1,
        "notify": "active",
        "intended_use": "detection",
        "deadline_s": 180,
        "inputs": {"ct": revision_id},
    }
    return Plan(**{**fields, **changes})
