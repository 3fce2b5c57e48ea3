"""What SOP Classes mean to the box (PS3.4 B.5)."""

from __future__ import annotations

#: Services besides storage and verification (PS3.4 Annexes F, J, K).
STORAGE_COMMITMENT_PUSH = "1.2.840.10008.1.20.1"
#: The one instance that storage commitment is asked of.
STORAGE_COMMITMENT_INSTANCE = "1.2.840.10008.1.20.1.1"
MODALITY_PERFORMED_PROCEDURE_STEP = "1.2.840.10008.3.1.2.3.3"
KEY_OBJECT_SELECTION = "1.2.840.10008.5.1.4.1.1.88.59"
MODALITY_WORKLIST_FIND = "1.2.840.10008.5.1.4.31"

#: SOP Classes of which a series normally has many instances (PS3.4 B.5). Every other class is whole with each object.
SLICE_CLASSES = frozenset(
    {
        "1.2.840.10008.5.1.4.1.1.2",  # CT Image Storage
        "1.2.840.10008.5.1.4.1.1.4",  # MR Image Storage
        "1.2.840.10008.5.1.4.1.1.128",  # Positron Emission Tomography Image Storage
        "1.2.840.10008.5.1.4.1.1.481.1",  # RT Image Storage
    }
)
