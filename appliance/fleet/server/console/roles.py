"""Who may what on the console. What somebody sees is a matter of their tenant, never of their role."""

from __future__ import annotations

from appliance.fleet.server.registry import TenantKind
from appliance.records import Word
from appliance.web.i18n import N_


class FleetRole(Word):
    """What a person is in a tenant and in all below it."""

    OPERATOR = "operator"
    SERVICE = "service"
    ADMINISTRATOR = "administrator"
    VIEWER = "viewer"


ROLES: dict[FleetRole, str] = {
    FleetRole.OPERATOR: N_("Operator"),
    FleetRole.SERVICE: N_("Service"),
    FleetRole.ADMINISTRATOR: N_("Hospital administrator"),
    FleetRole.VIEWER: N_("Viewer"),
}
DUTIES: dict[FleetRole, str] = {
    FleetRole.OPERATOR: N_("Keeps the server: sees every box, gives jobs, and keeps the users."),
    FleetRole.SERVICE: N_("Gives jobs to the boxes of a tenant and of all below it, and answers issues."),
    FleetRole.ADMINISTRATOR: N_("Sees the boxes of one hospital, and who did what to them."),
    FleetRole.VIEWER: N_("Sees the boxes of a tenant and of all below it, and changes nothing."),
}
#: In which kinds of tenant there is somebody of a role.
PLACES: dict[FleetRole, frozenset[TenantKind]] = {
    FleetRole.OPERATOR: frozenset({TenantKind.PLATFORM}),
    FleetRole.SERVICE: frozenset(TenantKind),
    FleetRole.ADMINISTRATOR: frozenset({TenantKind.HOSPITAL}),
    FleetRole.VIEWER: frozenset(TenantKind),
}

EVERYBODY = frozenset(FleetRole)
OPERATORS = frozenset({FleetRole.OPERATOR})
#: Who acts on boxes.
HANDS = frozenset({FleetRole.OPERATOR, FleetRole.SERVICE})
#: Who may read who did what.
AUDITORS = HANDS | {FleetRole.ADMINISTRATOR}
