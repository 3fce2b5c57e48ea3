"""What an issue is called, on screen, CLI and fleet alike."""

from __future__ import annotations

from appliance.store.readmodels import AI_UNAVAILABLE
from appliance.web.i18n import N_

#: Every issue there is, as a technologist can read it, gravest first; what to do stands in ``screen.health.MENDING``.
ISSUES = {
    AI_UNAVAILABLE: N_("AI NOT WORKING"),
    "DISK_RESERVE": N_("Disk full. New images are refused."),
    "DISK_FAULT": N_("The disk fails. New images are refused."),
    "CERTIFICATE_INVALID": N_("A certificate of this box does not hold now. Those who check it refuse the connection."),
    "CERTIFICATE_ENDS": N_("A certificate of this box ends soon."),
    "VERSION_CONFLICT": N_("Different images came under one number. A person must choose."),
    "WORKLIST_MISMATCH": N_("The order is another patient's than the images. A person must look."),
    "WORKLIST_UNREACHABLE": N_("The worklist of the RIS does not answer. Orders are not known."),
    "STUDY_UID_SHARED": N_("Two patients came under one study number. They are kept apart."),
    "DELIVERY_PARKED": N_("A destination refuses an object. A person must look."),
    "DESTINATION_UNREACHABLE": N_("A destination does not answer. It is tried again."),
    "DESTINATION_GONE": N_("A destination is no longer configured. What it has not got stays on this box."),
    "COMMITMENT_REFUSED": N_("The PACS takes no request for storage commitment. What it was sent stays on this box."),
    "COMMITMENT_UNANSWERED": N_("The PACS never says whether it keeps what it was sent. It stays on this box."),
    "COMMITMENT_FAILED": N_("The PACS does not promise to keep an object. It stays on this box."),
    "COMMITMENT_UNREPORTED": N_("A scanner cannot be told that its images are safe."),
    "RESULT_NOT_BUILT": N_("A result could not be written for the PACS."),
    "SPOOL_CORRUPT": N_("A stored image is damaged."),
    "SPOOL_MISSING": N_("A stored image is missing."),
    "PACKAGE_REFUSED": N_("An AI package was refused."),
    "PACKAGE_TEMPLATE": N_("An AI package is a template and does not run. It must be trained first."),
    "PACKAGE_WITHDRAWN": N_("An AI package was taken out of service. What it looked for is not analysed."),
    "ENGINE_FALLBACK": N_("The AI runs without the engine built for this box. It may be slower."),
    "KSERVE_DEGRADED": N_("The site's AI server does not work as it must. This box computes. It may be slower."),
    "ENGINE_NOT_BUILT": N_("An engine for the AI could not be built. The AI goes on without it."),
    "ALERT_SINK_FAILING": N_("A light, buzzer or service that alerts are passed on to does not work."),
    "SCREEN_SOURCE_GONE": N_("A screen watches a source that is no longer configured. It shows none of its alerts."),
    "ESCALATION_NOWHERE": N_("An alert that nobody acknowledges reaches no further place."),
    "DESTINATION_PAUSED": N_("A destination is paused by a person. What it is owed stays on this box."),
    "SETTINGS_BROKEN": N_("The changed settings do not fit and are left out. The box runs with older ones."),
    "JOURNAL_BROKEN": N_("The journal is not what was written. A person must look."),
    "DATABASE_REBUILT": N_("The database was damaged and has been rebuilt."),
    "VERSION_COMPARING": N_("An image came again, encoded in another way. It is being compared."),
    "STAGE_FAILING": N_("A part of the box fails again and again."),
    "FLEET_UNREACHABLE": N_("The fleet's server does not answer. This box goes on without it."),
    "FLEET_REFUSED": N_("The fleet's server refuses what this box tells it."),
    "FLEET_IDENTITY_TWICE": N_("Another machine signs in to the fleet as this box."),
    "FLEET_IDENTITY_BROKEN": N_("This box cannot prove to the fleet who it is."),
    "FLEET_FOREIGN": N_("Messages came that are none of the fleet's server. They were left out."),
    "SOURCE_SILENT": N_("A scanner sends nothing, though it usually does at this time."),
    "FLEET_NOT_ENROLLED": N_("This box is meant for a fleet and is not enrolled in it."),
    "FLEET_FORGED": N_("The fleet's server sent a wish or job without a valid signature. It was not done."),
    "SCORE_DRIFT": N_("The scores of an AI package, or the images, are no longer spread as at the start."),
    "FLEET_ROW_UNFIT": N_("The fleet cannot be told of something. It stands in the audit."),
}
