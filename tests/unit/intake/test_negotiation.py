"""Which contexts are accepted: every storage class, also private ones; nothing else; the peer's first syntax."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom._uid_dict import UID_dictionary
from pynetdicom import (
    AllStoragePresentationContexts,
    BasicWorklistManagementPresentationContexts,
    ModalityPerformedPresentationContexts,
    NonPatientObjectPresentationContexts,
    PrintManagementPresentationContexts,
    QueryRetrievePresentationContexts,
    StorageCommitmentPresentationContexts,
    UnifiedProcedurePresentationContexts,
)

from appliance.dicom.headers import DEFLATED
from appliance.dicom.pdus import IMPLICIT_VR_LITTLE_ENDIAN, VERIFICATION, ProposedContext, Result
from appliance.intake.negotiation import (
    ACCEPTED_SYNTAXES,
    EXPLICIT_VR_LITTLE_ENDIAN,
    is_storage,
    negotiate,
)

CT = "1.2.840.10008.5.1.4.1.1.2"
JPIP = "1.2.840.10008.1.2.4.94"
JPEG_LOSSLESS = "1.2.840.10008.1.2.4.70"
PRIVATE_SYNTAX = "1.2.840.113619.5.2"


def answer(abstract, *syntaxes):
    (result,) = negotiate([ProposedContext(1, abstract, syntaxes)])
    return result


@pytest.mark.req("R-INTAKE-01")
@pytest.mark.parametrize("context", AllStoragePresentationContexts, ids=lambda cx: cx.abstract_syntax.name)
def test_every_storage_class_that_pynetdicom_knows_is_accepted(context):
    assert answer(str(context.abstract_syntax), IMPLICIT_VR_LITTLE_ENDIAN).accepted


@pytest.mark.req("R-INTAKE-01")
@pytest.mark.parametrize(
    "abstract",
    [
        "1.2.840.113619.4.26",  # GE private
        "1.3.46.670589.11.0.0.12.1",  # Philips private MR
        "1.3.12.2.1107.5.9.1",  # Siemens CSA non-image
        "1.2.840.10008.5.1.4.1.1.999.1",  # an edition of the standard that we do not know
    ],
)
def test_private_and_future_storage_classes_are_accepted(abstract):
    assert answer(abstract, EXPLICIT_VR_LITTLE_ENDIAN).accepted


@pytest.mark.parametrize(
    "context",
    [
        *BasicWorklistManagementPresentationContexts,
        *ModalityPerformedPresentationContexts,
        *PrintManagementPresentationContexts,
        *QueryRetrievePresentationContexts,
        *StorageCommitmentPresentationContexts,
        *UnifiedProcedurePresentationContexts,
    ],
    ids=lambda cx: cx.abstract_syntax.name,
)
def test_other_services_are_not_accepted(context):
    result = answer(str(context.abstract_syntax), IMPLICIT_VR_LITTLE_ENDIAN)
    assert result.result is Result.ABSTRACT_SYNTAX_NOT_SUPPORTED


def test_nothing_that_is_no_sop_class_is_accepted():
    others = [uid for uid, entry in UID_dictionary.items() if entry[1] != "SOP Class"]
    assert not [uid for uid in (*others, "") if is_storage(uid)]


@pytest.mark.parametrize("context", NonPatientObjectPresentationContexts, ids=lambda cx: cx.abstract_syntax.name)
def test_objects_of_no_study_are_refused_before_they_are_sent(context):
    assert not answer(str(context.abstract_syntax), IMPLICIT_VR_LITTLE_ENDIAN).accepted


def test_directories_on_media_are_no_storage_service():
    assert not is_storage("1.2.840.10008.1.3.10")


def test_verification_is_accepted():
    assert answer(VERIFICATION, IMPLICIT_VR_LITTLE_ENDIAN).accepted


@pytest.mark.req("R-INTAKE-02")
def test_first_proposed_syntax_of_our_list_is_taken():
    assert answer(CT, JPIP, JPEG_LOSSLESS, IMPLICIT_VR_LITTLE_ENDIAN).transfer_syntax == JPEG_LOSSLESS
    assert answer(CT, IMPLICIT_VR_LITTLE_ENDIAN, JPEG_LOSSLESS).transfer_syntax == IMPLICIT_VR_LITTLE_ENDIAN


@pytest.mark.fault("T21")
@pytest.mark.parametrize("syntax", [DEFLATED, "1.2.840.10008.1.2.8.1", JPIP, PRIVATE_SYNTAX, "", "nonsense"])
def test_syntaxes_that_we_could_neither_bound_nor_read_are_not_accepted(syntax):
    assert answer(CT, syntax).result is Result.TRANSFER_SYNTAXES_NOT_SUPPORTED


def test_context_without_any_syntax_is_not_accepted():
    assert answer(CT).result is Result.TRANSFER_SYNTAXES_NOT_SUPPORTED


SYNTAXES = st.sampled_from([*sorted(ACCEPTED_SYNTAXES), DEFLATED, JPIP, PRIVATE_SYNTAX, ""])
CLASSES = st.one_of(st.sampled_from(sorted(UID_dictionary)), st.text(max_size=80))
CONTEXTS = st.builds(ProposedContext, st.integers(0, 255), CLASSES, st.lists(SYNTAXES, max_size=6).map(tuple))


@given(st.lists(CONTEXTS, max_size=20))
def test_every_context_is_answered_in_order_and_never_with_a_syntax_that_was_not_proposed(proposed):
    results = negotiate(proposed)

    assert [result.context_id for result in results] == [context.context_id for context in proposed]
    for context, result in zip(proposed, results, strict=True):
        if result.accepted:
            assert result.transfer_syntax in context.transfer_syntaxes
            assert result.transfer_syntax in ACCEPTED_SYNTAXES
