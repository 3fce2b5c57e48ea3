"""What every message between daemon and worker is made of."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, StringConstraints

MAX_TEXT = 4000
MAX_PEM = 256 * 1024

#: A package's key is its name, or ``name@version`` for a second version beside it.
Key = Annotated[str, StringConstraints(min_length=1, max_length=160)]
PathText = Annotated[str, StringConstraints(min_length=1, max_length=4096)]
Text = Annotated[str, StringConstraints(max_length=MAX_TEXT)]
#: Certificates; a bundle of a site's authorities may be long.
PemText = Annotated[str, StringConstraints(max_length=MAX_PEM)]


class Message(BaseModel):
    """One message; frozen, nothing unknown, no NaN."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
