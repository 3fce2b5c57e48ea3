"""What a page needs that includes the image viewer."""

from __future__ import annotations

from typing import Any

from appliance.screen.context import Context
from appliance.screen.image_wishes import Lister, policy_of, wish_for
from appliance.store.readmodels import StudyView
from appliance.web.access import Caller
from appliance.web.i18n import N_

#: In the query of list and lines: who reads has not said yet what they see, and is told no place of the AI.
READS_FIRST = "first"
#: Windows by key, centre and width in HU, as radiologists know them.
CT_WINDOWS: tuple[tuple[str, float, float], ...] = (
    (N_("Brain"), 40, 80),
    (N_("Subdural"), 75, 215),
    (N_("Bone"), 500, 2500),
    (N_("Lung"), -600, 1500),
    (N_("Soft tissue"), 40, 400),
)


def viewer_context(
    context: Context,
    caller: Caller,
    study: StudyView,
    *,
    locale: str,
    editable: bool = False,
    reads_first: bool = False,
) -> dict[str, Any]:
    """What ``viewer.html`` needs; a page includes it with ``{% include "viewer.html" %}``. Blocks: call it in the pool.

    The first image is wanted at once: a child is at it before the browser asks.

    Args:
        context: Of the page.
        caller: Who will look.
        study: Which study.
        locale: Of the page.
        editable: Whether the reader may draw a box (events ``image-view:region``).
        reads_first: Tell no place of the AI until the page takes ``data-first`` from the viewer and has it ``renew``.
    """
    lister = Lister(context.store, policy_of(context, caller, reads_first=reads_first))
    listed, _, shown = lister.look(study.id)
    begin = next((one for one in listed if one.keys), listed[0] if listed else None)
    preview = ""
    if begin is not None and any(not picture.file.is_gone for picture in begin.pictures):
        first = begin.pictures[begin.first]
        preview = f"/studies/{study.id}/images/{begin.series.id}/{first.id}/preview.png"
        context.display.want(wish_for(study.id, begin, masks=shown))
    return {
        "viewer": {
            "study": study.id,
            "preview": preview,
            "editable": editable,
            "reads_first": reads_first,
            "windows": [[context.templates.translated(locale, label), c, w] for label, c, w in CT_WINDOWS],
        }
    }
