"""Were the lungs received whole? Lungs that end with the first or last slice go on beyond it."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict

from engines.errors import ContentError
from engines.message import Message

_REFUSED = {
    (True, False): Message(
        "the lungs are cut off at the top: the uppermost slices show {top} cm2 of lung, at most {most} where the apex"
        " is covered; in the rest there is nothing to flag"
    ),
    (False, True): Message(
        "the lungs are cut off at the base: the lowest slices show {base} cm2 of lung, at most {most} where the base is"
        " covered; in the rest there is nothing to flag"
    ),
    (True, True): Message(
        "the lungs are cut off at the top and at the base: the outermost slices show {top} and {base} cm2 of lung, at"
        " most {most} where they are covered whole; in the rest there is nothing to flag"
    ),
}
_WARNED = {
    (True, False): Message(
        "The lungs are cut off at the top ({top} cm2 of lung in the uppermost slices): there may be more than is shown"
        " here."
    ),
    (False, True): Message(
        "The lungs are cut off at the base ({base} cm2 of lung in the lowest slices): there may be more than is shown"
        " here."
    ),
    (True, True): Message(
        "The lungs are cut off at the top and at the base ({top} and {base} cm2 of lung in the outermost slices): there"
        " may be more than is shown here."
    ),
}


class LungCover(BaseModel):
    """Where the slices may end.

    Attributes:
        end_cm2: Lungs that are larger than this in the first or last plane go on beyond it.
        flagged: From this score on a nodule is flagged at every operating point; it is then shown with a warning.
            Below, lungs that are cut off are not scored: nobody would look for what was not seen.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    end_cm2: float = 25.0
    flagged: float = 0.55

    def check(self, numbers: Mapping[str, float], score: float) -> tuple[Message, ...]:
        """Warn, or refuse.

        Args:
            numbers: With ``top_cm2`` and ``base_cm2`` (``engines.preprocess.lungs``).
            score: Of the best mark.

        Raises:
            ContentError: ``incomplete``, naming the end.
        """
        cut = (numbers["top_cm2"] > self.end_cm2, numbers["base_cm2"] > self.end_cm2)
        if not any(cut):
            return ()
        values = {"top": round(numbers["top_cm2"]), "base": round(numbers["base_cm2"])}
        if score < self.flagged:
            raise ContentError("incomplete", _REFUSED[cut].text, **values, most=round(self.end_cm2))
        return (Message(_WARNED[cut].text, values),)
