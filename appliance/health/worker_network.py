"""The drop-in of systemd that opens one address to the worker's unit, which has no network otherwise. Pure."""

from __future__ import annotations

import ipaddress

#: Where it belongs.
DROP_IN_PATH = "/etc/systemd/system/scanside-worker.service.d/kserve.conf"


def worker_drop_in(address: str) -> str:
    """The text of the drop-in.

    Args:
        address: IP address and port as in the configuration; systemd filters by address, not by port.
    """
    ip = ipaddress.ip_address(address.rpartition(":")[0].strip("[]"))
    return f"""# Opens one address to Scanside's worker: the KServe server {address} of the configuration.
# Written by 'scanside config worker-network'; write it again when the address changes, delete it with the server.
[Service]
PrivateNetwork=no
RestrictAddressFamilies=AF_INET{"6" if ip.version == 6 else ""}
# All others stay denied by the unit's own IPAddressDeny=any.
IPAddressAllow={ip}
# The worker calls and is never called.
SocketBindDeny=any
"""
