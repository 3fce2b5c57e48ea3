"""An ingest of the fleet in a process of its own, so that it can be killed: DATABASE-URL PORT CLIENT-ID FOLDER.

FOLDER has ca.pem, server.crt, server.key and online.pem. It says "ready" once it listens, and ends with its input.
"""

from __future__ import annotations

import ssl
import sys
from pathlib import Path

from prometheus_client import CollectorRegistry

from appliance.clock import SystemClock
from appliance.fleet.server import db
from appliance.fleet.server.broker_line import BrokerAt
from appliance.fleet.server.metrics import IngestMetrics
from appliance.fleet.server.mqtt import IngestWorker
from engines.signing import load_private


def main(url, port, client_id, folder):
    folder = Path(folder)
    tls = None
    if (folder / "ca.pem").exists():
        tls = ssl.create_default_context(cafile=str(folder / "ca.pem"))
        tls.load_cert_chain(folder / "server.crt", folder / "server.key")
    engine = db.open_engine(url)
    db.migrate(engine)
    worker = IngestWorker(
        engine,
        BrokerAt("127.0.0.1", int(port), client_id, tls),
        [load_private(folder / "online.pem")],
        SystemClock(),
        metrics=IngestMetrics(CollectorRegistry()),
    )
    worker.start()
    worker.line.stands.wait()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.read()
    worker.stop()


if __name__ == "__main__":
    main(*sys.argv[1:])
