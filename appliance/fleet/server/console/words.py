"""What the console calls things. All are message ids."""

from __future__ import annotations

from appliance.fleet.server.console.figures import Period
from appliance.fleet.server.console.lists import Order, State
from appliance.fleet.wire import Op
from appliance.fleet.wire_jobs import JobState
from appliance.records import Reason
from appliance.web.i18n import N_

STATES: dict[State, str] = {
    State.ONLINE: N_("Online"),
    State.STALE: N_("Stale"),
    State.OFFLINE: N_("Offline"),
    State.NEVER: N_("Never heard"),
    State.DEGRADED: N_("With open issues"),
    State.NOT_ANALYSING: N_("Not analysing"),
    State.SILENT: N_("A source is silent"),
    State.EVALUATION: N_("In evaluation mode"),
    State.HELD: N_("On hold"),
    State.ASKED_SITE: N_("Waits for the hospital's administrator"),
    State.OTHER_SETTINGS: N_("Not with the wanted settings"),
    State.CERTIFICATE: N_("Certificate ends soon"),
    State.CLOCK: N_("Clock is off"),
    State.DISABLED: N_("Disabled"),
    State.REPLACED: N_("Replaced"),
}
#: What the overview counts, in this order, and what each means.
COUNTED: dict[State, str] = {
    State.ONLINE: N_("The link stands, and heartbeats come."),
    State.STALE: N_("The link should stand, and three heartbeats are missing."),
    State.OFFLINE: N_("The box or its line is away."),
    State.NEVER: N_("Enrolled, and never connected."),
    State.DEGRADED: N_("At least one issue stands."),
    State.NOT_ANALYSING: N_("The AI does not look at studies."),
    State.SILENT: N_("A source sends nothing at its usual hours."),
}
#: What the overview says beside, where there is any.
NOTED: dict[State, str] = {
    State.EVALUATION: N_("Evaluation, not for patient care"),
    State.HELD: N_("A clinical freeze: nothing new is installed there."),
    State.ASKED_SITE: N_("A change of models waits for a yes or no, which is given at the box."),
    State.OTHER_SETTINGS: N_("The settings that hold there are not those wanted from here."),
    State.CERTIFICATE: N_("Within 30 days; boxes renew it before that by themselves."),
    State.CLOCK: N_("By more than 5 seconds."),
}
ORDERS: dict[Order, str] = {
    Order.NUMBER: N_("No."),
    Order.SITE: N_("Site"),
    Order.SEEN: N_("Last heard"),
    Order.ISSUES: N_("Issues"),
    Order.WAITS: N_("Oldest waiting"),
}
AI: dict[str, str] = {
    "ready": N_("AI ready"),
    "unavailable": N_("AI NOT WORKING"),
    "no_package": N_("No AI package"),
}
MODES: dict[str, str] = {"evaluation": N_("Evaluation, not for patient care"), "clinical": N_("Clinical")}
SEVERITIES: dict[str, str] = {"fault": N_("Fault"), "warning": N_("Warning")}
#: What people did about an issue at the box.
BOX_STATES: dict[str, str] = {
    "raised": N_("Standing"),
    "acknowledged": N_("Seen at the box"),
    "shelved": N_("Put off at the box"),
    "cleared": N_("Over"),
}
OPS: dict[str, str] = {
    str(Op.PING): N_("Ping"),
    str(Op.RESTART): N_("Restart"),
    str(Op.SELF_TEST): N_("Self-test"),
    str(Op.COLLECT_LOGS): N_("Collect logs"),
    str(Op.RESEND): N_("Send again"),
    str(Op.DRAIN): N_("Drain"),
    str(Op.MODEL_INSTALL): N_("Install a model"),
    str(Op.MODEL_ROLLBACK): N_("Go back to the model before"),
    str(Op.MODEL_WITHDRAW): N_("Take a model out of service"),
    str(Op.CERT_RENEW): N_("Renew the certificate"),
    str(Op.ROOT_UPDATE): N_("Change the trusted keys"),
    str(Op.AGENT_UPDATE): N_("Update the software"),
    str(Op.OS_UPDATE): N_("Update the operating system"),
    "": N_("A job from before the restore"),
}
#: What may be asked here, and what it does.
ACTS: dict[Op, str] = {
    Op.PING: N_("The box answers. Nothing changes."),
    Op.SELF_TEST: N_("The box runs its models on known images and says how long it took."),
    Op.COLLECT_LOGS: N_("The box sends levels, places and fixed texts of its logs, and nothing of a patient."),
    Op.RESEND: N_("The box sends its records again from a number on."),
    Op.RESTART: N_("The box's software starts anew. It takes no images for some seconds; scanners send again."),
    Op.DRAIN: N_("The box finishes what it has begun."),
}
JOB_STATES: dict[str, str] = {
    str(JobState.QUEUED): N_("Waiting to go out"),
    str(JobState.ACCEPTED): N_("Taken by the box"),
    str(JobState.WAIT_APPROVAL): N_("Waits for the hospital's administrator"),
    str(JobState.DOWNLOADING): N_("Downloading"),
    str(JobState.VERIFIED): N_("Verified"),
    str(JobState.STAGED): N_("Staged"),
    str(JobState.SELFTEST): N_("In its self-test"),
    str(JobState.WAIT_IDLE): N_("Waits until the box is idle"),
    str(JobState.ACTIVATING): N_("Being activated"),
    str(JobState.SOAKING): N_("Being watched"),
    str(JobState.SUCCEEDED): N_("Succeeded"),
    str(JobState.FAILED): N_("Failed"),
    str(JobState.ROLLED_BACK): N_("Rolled back"),
    str(JobState.REJECTED): N_("Refused by the box"),
    str(JobState.CANCELED): N_("Taken back"),
    str(JobState.TIMED_OUT): N_("Not done in time"),
    str(JobState.REMOVED): N_("Removed"),
    str(JobState.ALREADY_INSTALLED): N_("Installed already"),
}
PACKAGE_STATES: dict[str, str] = {
    "installed": N_("installed"),
    "activated": N_("activated"),
    "live": N_("live"),
    "withdrawn": N_("taken out of service"),
    "rolled_back": N_("rolled back"),
}
PACKAGE_ROLES: dict[str, str] = {"live": N_("Live"), "silent": N_("Silent"), "shadow": N_("Shadow")}
PERIODS: dict[Period, str] = {
    Period.WEEK: N_("7 days"),
    Period.MONTH: N_("28 days"),
    Period.QUARTER: N_("90 days"),
}
#: Why analyses were not done, in few words.
REASONS: dict[str, str] = {
    str(Reason.OUT_OF_ENVELOPE): N_("outside what it can check"),
    str(Reason.QUALITY): N_("image quality"),
    str(Reason.CANNOT_DECODE): N_("format cannot be opened"),
    str(Reason.INCOMPLETE): N_("images missing"),
    str(Reason.UNRELIABLE_OUTPUT): N_("no reliable answer"),
    str(Reason.FAILED): N_("stopped while working"),
    str(Reason.TIMED_OUT): N_("took too long"),
    str(Reason.AI_UNAVAILABLE): N_("AI was not working"),
    str(Reason.WITHDRAWN): N_("out of service"),
}
#: What a package says of itself.
STATUSES: dict[str, str] = {
    "demonstrator": N_("Demonstration"),
    "research": N_("Research"),
    "cleared": N_("Cleared"),
}
CERTIFICATES: dict[str, str] = {
    "trial": N_("Issued, not seen yet"),
    "current": N_("Current"),
    "superseded": N_("Superseded"),
    "revoked": N_("Revoked"),
}
TENANTS: dict[str, str] = {
    "platform": N_("Platform"),
    "vendor": N_("Vendor"),
    "dealer": N_("Dealer"),
    "hospital": N_("Hospital"),
}
#: The answers that say no, of this server.
TROUBLES: dict[int, tuple[str, str]] = {
    400: (N_("This request cannot be understood"), N_("Go back, reload the page and try again.")),
    403: (N_("Your role does not have this page"), N_("Ask an operator of the server.")),
    404: (N_("There is nothing here"), N_("It is not there, or not yours to see.")),
    405: (N_("This request cannot be understood"), N_("Go back, reload the page and try again.")),
    409: (N_("Somebody was faster, or things have changed"), N_("Reload the page and look again.")),
    413: (N_("This is too large"), N_("Send less.")),
    414: (N_("This request cannot be understood"), N_("Go back, reload the page and try again.")),
    429: (N_("Too many attempts"), N_("Wait a minute, then try again.")),
    500: (N_("The server has made a mistake"), N_("The boxes go on by themselves. Its log says more.")),
    503: (N_("The server cannot do this now"), N_("The boxes go on by themselves. Try again.")),
}
