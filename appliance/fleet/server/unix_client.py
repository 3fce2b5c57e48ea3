"""paho over the Unix socket of a broker on this machine."""

from __future__ import annotations

import socket
from typing import Any

from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion


class UnixClient(Client):
    """A client whose host is a path. Where nobody listens there it leaves no open socket, as paho 2.2 does."""

    def __init__(self, client_id: str, **more: Any) -> None:
        """As ``Client`` for MQTT 5, which does not reconnect by itself."""
        super().__init__(
            CallbackAPIVersion.VERSION2,
            client_id=client_id,
            protocol=MQTTProtocolVersion.MQTTv5,
            transport="unix",
            reconnect_on_failure=False,
            **more,
        )

    def _create_unix_socket_connection(self) -> socket.socket:
        line = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            line.connect(self._host)
        except OSError:
            line.close()
            raise
        return line
