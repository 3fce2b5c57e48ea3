"""Opening a study from elsewhere: IHE Invoke Image Display (IHE RAD TF-2, RAD-106), the parameters of a RIS or HIS."""

from __future__ import annotations

from urllib.parse import urlencode

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from appliance.errors import NotFoundError
from appliance.records import UserRole
from appliance.screen.context import Context
from appliance.web.access import CLINICAL, Guarded, caller_of

#: So many studies may be named at once; each is looked for.
_MOST = 20


class InContextPages:
    """``/IHEInvokeImageDisplay``."""

    def __init__(self, context: Context) -> None:
        """Find studies in the store."""
        self._context = context

    def routes(self) -> list[Guarded]:
        """The address, spelt as the profile has it."""
        return [Guarded("/IHEInvokeImageDisplay", self.invoke, roles=CLINICAL)]

    async def invoke(self, request: Request) -> Response:
        """To the study page, with ``page=review`` to its review; to the worklist where several are meant."""
        asked = request.query_params
        if asked.get("requestType") == "PATIENT":
            if not asked.get("patientID"):
                raise HTTPException(400, "requestType=PATIENT needs patientID")
            return RedirectResponse(f"/studies?{urlencode({'q': asked['patientID'].partition('^')[0]})}", 303)
        if asked.get("requestType") != "STUDY":
            raise HTTPException(400, "requestType must be STUDY or PATIENT (IHE RAD-106)")
        texts = [text for text in (asked.get("studyUID", ""), asked.get("accessionNumber", "")) if text]
        if not texts:
            raise HTTPException(400, "requestType=STUDY needs studyUID or accessionNumber")
        # The profile allows several UIDs, with commas; we show one study at a time.
        parts = list(dict.fromkeys(part for text in texts for part in text.split(",") if part))
        if len(parts) > _MOST:
            raise HTTPException(400, f"studyUID and accessionNumber name at most {_MOST} studies, with commas")
        found = await self._context.pool.run(self._found, parts, caller_of(request).sources)
        if not found:
            raise NotFoundError("this box has not received that study; look for it in the PACS")
        if len(found) > 1:
            return RedirectResponse(f"/studies?{urlencode({'q': texts[-1].split(',')[0]})}", 303)
        is_review = asked.get("page") == "review" and caller_of(request).role is UserRole.RADIOLOGIST
        return RedirectResponse(f"/studies/{found[0]}{'/review' if is_review else ''}", 303)

    def _found(self, texts: list[str], sources: tuple[str, ...]) -> list[int]:
        found = {
            view.id
            for text in texts
            for view in self._context.store.views.some(self._context.store.views.find(text)).values()
            if text in {view.study_instance_uid, view.identity.accession_number}
            and (not sources or view.source in sources)
        }
        return sorted(found)
