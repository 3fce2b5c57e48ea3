"""Who is told of an alert that nobody acknowledges: the timer, and the sinks outside the screens."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from appliance.config.tls import ByUrl
from appliance.config.values import HexBytes, Name, Section
from appliance.records import AlertStep


class Escalation(Section):
    """What follows where nobody acknowledges an alert, counted from when it was raised. Never in evaluation mode."""

    repeat_after_s: float = Field(default=60.0, gt=0, description="Category 1: the chime begins to repeat")
    repeat_every_s: float = Field(default=25.0, ge=5, le=60)
    tell_after_s: float = Field(default=180.0, gt=0, description="Category 1: further screens and alert_sinks are told")
    overdue_after_s: float = Field(default=600.0, gt=0, description="Category 1: OVERDUE on every screen")
    remind_after_s: float = Field(default=3600.0, gt=0, description="Category 2: a silent reminder")
    screens: tuple[str, ...] = Field(
        default=(), description="Names of paired screens that from tell_after_s on show alerts of every source"
    )

    @model_validator(mode="after")
    def _in_order(self) -> Escalation:
        if not self.repeat_after_s <= self.tell_after_s <= self.overdue_after_s:
            msg = "repeat_after_s, tell_after_s and overdue_after_s follow one another; correct their order"
            raise ValueError(msg)
        return self


class WebhookSink(ByUrl):
    """A server that is told of escalated alerts by signed JSON (Standard Webhooks): no name, no number of a patient."""

    kind: Literal["webhook"]
    name: Name
    secret_path: Path = Field(description="File with whsec_ and 24 to 64 bytes in base64; the receiver has the same")
    timeout_s: float = Field(default=10.0, gt=0, le=60)

    @property
    def steps(self) -> tuple[AlertStep, ...]:
        """What it is told of."""
        return (AlertStep.TELL, AlertStep.OVERDUE)


class LightSink(Section):
    """A light or buzzer at a relay: bytes are written to a device. It is on while a category 1 alert calls."""

    kind: Literal["light"]
    name: Name
    device_path: Path = Field(description="As /dev/ttyUSB0, or the value file of a GPIO line")
    on: HexBytes = Field(default="a00101a2", description="Bytes in hexadecimal; the default is that of an LCUS-1 relay")
    off: HexBytes = "a00100a1"
    timeout_s: float = Field(default=2.0, gt=0, le=30)

    @property
    def steps(self) -> tuple[AlertStep, ...]:
        """What it is told of."""
        return (AlertStep.RAISED, AlertStep.TELL)


AlertSinkChoice = Annotated[WebhookSink | LightSink, Field(discriminator="kind")]
#: Tags of the union.
SINK_KINDS = ("webhook", "light")
