"""A simulated study that a box sends to itself, from a limited child: a phantom needs memory that a daemon spares.

It is a test to everybody who meets it: patient TEST^SCANSIDE, id SCANSIDE-TEST, accession number TEST.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

AE_TITLE = "SCANSIDE_TEST"
PATIENT_NAME, PATIENT_ID, ACCESSION = "TEST^SCANSIDE", "SCANSIDE-TEST", "TEST"


def handle(request: dict[str, Any], progress: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Make a study and send it in one association.

    Args:
        request: ``scenario`` (its name), ``run``, ``host``, ``port``, ``called`` (AE title).
        progress: Told ``study`` (its Study Instance UID) and ``images`` when it is made, ``sent`` while it goes.

    Returns:
        ``sent``: images that were taken; ``refused``: those that were not.
    """
    # The daemon knows this module by its names alone, and starts sooner without phantoms and pynetdicom.
    from appliance.simulate.scanner import Scanner
    from appliance.simulate.scenarios import SCENARIOS

    scenario = next(one for one in SCENARIOS if one.name == request["scenario"])
    images = scenario.build(f"self-test/{request['run']}")
    for image in images:
        image.PatientName, image.PatientID, image.AccessionNumber = PATIENT_NAME, PATIENT_ID, ACCESSION
        image.StudyDescription = f"TEST {image.StudyDescription}"
    progress({"study": str(images[0].StudyInstanceUID), "images": len(images)})
    scanner = Scanner(AE_TITLE, request["called"], request["host"], request["port"])
    sent = refused = 0
    with scanner.open(images) as association:
        for image in images:
            if association.send(image).status == 0:
                sent += 1
            else:
                refused += 1
            progress({"sent": sent})
    return {"sent": sent, "refused": refused}
