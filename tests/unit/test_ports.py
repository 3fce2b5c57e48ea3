"""Ports that are held for programs of others."""

from __future__ import annotations

import socket
from contextlib import ExitStack

import pytest

from appliance.ports import held_port


def test_a_held_port_is_refused_to_whoever_did_not_name_it_as_theirs_and_serves_who_did():
    with ExitStack() as held:
        port = held_port(held)
        with socket.socket() as stranger, pytest.raises(OSError, match="in use"):
            stranger.bind(("127.0.0.1", port))
        with socket.create_server(("127.0.0.1", port)) as server:  # sets SO_REUSEADDR
            socket.create_connection(("127.0.0.1", port)).close()
            server.accept()[0].close()
    with socket.socket() as stranger:
        stranger.bind(("127.0.0.1", port))
