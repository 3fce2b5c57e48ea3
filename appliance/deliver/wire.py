"""What a requestor of ours asks for and takes from the answer: one presentation context per pair (PS3.8 §9.3)."""

from __future__ import annotations

from collections.abc import Sequence

from appliance.dicom.pdus import (
    MAX_CONTEXTS,
    ProposedContext,
    RoleSelection,
    decode_associate_accept,
    encode_associate_request,
)

#: Pairs of SOP Class and Transfer Syntax UID.
Context = tuple[str, str]


def associate_request(
    called_ae: str,
    calling_ae: str,
    contexts: Sequence[Context],
    max_pdu_bytes: int,
    roles: Sequence[RoleSelection] = (),
) -> bytes:
    """The A-ASSOCIATE-RQ (PS3.8 §9.3.2): context id 2n+1 is the n-th pair, each with that one syntax.

    Raises:
        ValueError: No context, or more than ``MAX_CONTEXTS``.
    """
    if not 0 < len(contexts) <= MAX_CONTEXTS:
        raise ValueError(f"{len(contexts)} presentation contexts; 1 to {MAX_CONTEXTS} fit one association")
    proposed = [
        ProposedContext(2 * index + 1, sop_class_uid, (transfer_syntax_uid,))
        for index, (sop_class_uid, transfer_syntax_uid) in enumerate(contexts)
    ]
    return encode_associate_request(called_ae, calling_ae, proposed, max_pdu_bytes, roles=roles)


def read_accept(body: bytes, contexts: Sequence[Context]) -> tuple[dict[Context, int], dict[Context, int], int]:
    """The A-ASSOCIATE-AC (PS3.8 §9.3.3); what is cut off, or answers no pair of ours, is left out.

    Returns:
        Context id of each accepted pair, result of each refused one (PS3.8 Table 9-18), the peer's maximum length.
    """
    answer = decode_associate_accept(body)
    accepted, refused = {}, {}
    for context in answer.contexts:
        index, is_odd = divmod(context.context_id, 2)
        if not is_odd or index >= len(contexts):
            continue
        if context.accepted:
            accepted[contexts[index]] = context.context_id
        else:
            refused[contexts[index]] = context.result
    return accepted, refused, answer.max_pdu_bytes
