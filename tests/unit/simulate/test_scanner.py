"""The scanner's hand on pynetdicom: an answer that the library's own loop takes is given back to who waits for it."""

from __future__ import annotations

import inspect
import queue
from types import SimpleNamespace

from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_ECHO, C_STORE

from appliance.simulate.scanner import OpenAssociation


def test_answer_taken_by_the_librarys_loop_goes_back_and_requests_are_served():
    served = []
    assoc = SimpleNamespace(
        dimse=SimpleNamespace(msg_queue=queue.Queue()), _serve_request=lambda message, _: served.append(message)
    )
    OpenAssociation(assoc)
    answer, request = C_STORE(), C_ECHO()
    answer.MessageIDBeingRespondedTo, answer.Status = 7, 0x0000
    request.MessageID, request.AffectedSOPClassUID = 1, "1.2.840.10008.1.1"
    assoc._serve_request(answer, 3)
    assoc._serve_request(request, 5)
    assert assoc.dimse.msg_queue.get_nowait() == (3, answer)
    assert served == [request]


def test_the_library_still_has_what_the_scanner_takes_in_hand():
    """Its loop and ``send_c_store`` share one queue; should that change, ``give_answers_back`` must be looked at."""
    assert list(inspect.signature(Association._serve_request).parameters) == ["self", "msg", "context_id"]
    loop = inspect.getsource(Association._run_reactor)
    assert "self.dimse.get_msg(block=False)" in loop
    assert "self._serve_request(msg, cast(int, context_id))" in loop
    assert "self.dimse.get_msg(block=True)" in inspect.getsource(Association.send_c_store)
