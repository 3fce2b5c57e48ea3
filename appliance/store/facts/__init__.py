"""Every kind of fact that the journal can hold, with its body.

Bodies carry local row ids, codes and numbers: never patient text, never a DICOM UID (DESIGN §5).

One module for each part of the box; ``Kind`` and ``Body`` are what all share.
"""

from appliance.store.facts.kinds import Body, Kind

__all__ = ["Body", "Kind"]
