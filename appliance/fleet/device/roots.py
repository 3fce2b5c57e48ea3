"""``root.update``: whose keys this box obeys from now on, as TUF's targets say. Nobody has to visit the box."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from appliance.fleet.device.acts import ActRefused, Fetcher
from appliance.fleet.device.identity import Identity, Trust, save_trust
from appliance.fleet.device.tasks import Handler, Handlers, Step, Task
from appliance.fleet.wire import Op
from appliance.fleet.wire_jobs import JobState
from appliance.store.facts.fleet import FleetTrust
from engines.errors import SignatureError
from engines.signing import parse_strict

#: The target.
TRUST = "trust.json"


@dataclass(frozen=True, slots=True)
class Roots:
    """Handlers of one box.

    Attributes:
        folder: Of its identity.
        identity: Who it is, as its files say now.
        fetcher: Where the target comes from; None: from nowhere.
    """

    folder: Path
    identity: Callable[[], Identity]
    fetcher: Fetcher | None

    def handlers(self) -> Handlers:
        """By op and state."""
        return {(Op.ROOT_UPDATE, JobState.ACCEPTED): Handler(self.update, slow=True)}

    def update(self, task: Task) -> Step:
        """Take the target into the identity. What was there before is noted first: a kill loses no fact."""
        if self.fetcher is None:
            raise ActRefused("NOT_PERMITTED")
        trust = read_trust(self.fetcher.small(TRUST))
        known = self.identity().trust
        if "was" not in task.notes:
            task.note(was=known.model_dump_json())
        if trust != known:
            save_trust(self.folder, trust)
        if trust.model_dump_json() == task.notes["was"]:
            return Step(JobState.SUCCEEDED, "ALREADY")
        if "told" not in task.notes:
            fact = FleetTrust(
                online=tuple(key.keyid for key in trust.online_keys()),
                release=tuple(key.keyid for key in trust.release_keys()),
                release_threshold=trust.release_threshold,
            )
            task.note_fact("told", fact)
        self.fetcher.done(TRUST)
        figures = {"online": float(len(trust.online)), "release": float(len(trust.release))}
        return Step(JobState.SUCCEEDED, figures=figures)


def read_trust(data: bytes) -> Trust:
    """A document that leaves the box somebody to obey, by keys that there are.

    Raises:
        ActRefused: It is none, or would lock everybody out.
    """
    try:
        trust = Trust.model_validate(parse_strict(data))
        online = {key.raw for key in trust.online_keys()}
        release = {key.raw for key in trust.release_keys()} - online
    except (ValidationError, ValueError, SignatureError) as error:
        raise ActRefused("TRUST_UNFIT", f"the new keys cannot be read: {type(error).__name__}") from error
    # A key that signs online too is nobody else's word (``inbox``): with too few others nothing could be signed again.
    if not release or len(release) < trust.release_threshold:
        raise ActRefused("TRUST_UNFIT", f"{len(release)} release keys for a threshold of {trust.release_threshold}")
    return trust
