"""A child of ``model evaluate`` that dies of some studies and hangs on others, by their numbers."""

from __future__ import annotations

import os
import signal
import threading

from appliance.triage.worker import limited


def handle(request, progress):
    progress({"engine_digest": "d", "backend": "deeds", "precision": "fp32"})
    for job in request["jobs"]:
        progress({"begun": job["index"]})
        with limited(job["limit_s"]):
            if job["index"] == 1:
                os.kill(os.getpid(), signal.SIGSEGV)
            if job["index"] == 2:
                threading.Event().wait()
            if job["index"] == 4:
                raise ValueError("a bug")
        progress({"index": job["index"], "scores": {"bright-blob": 0.25 * job["index"]}})
    return {}
