"""The tables of the conformance statement on network services: contexts, statuses, what is asked and what is read."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from io import BytesIO
from types import SimpleNamespace
from typing import Any, cast

import conformance_probe as probe
from conformance_words import by_number, in_hex, listed, status_names, table, uid_name, value_of
from pydicom._uid_dict import UID_dictionary
from pydicom.datadict import dictionary_description as name
from pydicom.filereader import read_dataset

from appliance import config as configuration
from appliance.clock import SystemClock
from appliance.deliver import build, dicom_scu, http, orders, retry, stage, stow
from appliance.deliver import worklist as worklists
from appliance.dicom import codes, commands, elements, headers, pdus
from appliance.dicom import commitment as committing
from appliance.dicom import source as sources
from appliance.intake import association, contract, negotiation, peers, performed, receive
from appliance.intake import commitment as committed
from appliance.records import Identity, RejectionTitle
from appliance.store import commitment_requests, commitments, rejections
from appliance.store import orders as store_orders

#: What a text leaves open.
_OPEN = re.compile(r"\{[^}]*\}")

# -- services and contexts -------------------------------------------------------------------------------------------


def given() -> dict[str, frozenset[int]]:
    """The N-services of a box on which all is configured: SOP Class, and the commands that it takes."""
    config = configuration.Config.model_validate(
        {
            "sources": [
                {"name": "a", "ae_title": "A", "mode": "inline", "commitment_host": "h", "commitment_port": 104}
            ],
            "destinations": [
                {"name": "b", "kind": "dicom", "host": "h", "port": 104, "ae_title": "B", "commitment": True}
            ],
        }
    )
    store = cast("Any", SimpleNamespace())
    both = (
        committed.CommitmentService(store, config, SystemClock(), wake_reports=lambda: None).services(),
        performed.PerformedSteps(store, wake=lambda: None).services(),
    )
    return {uid: frozenset(acts) for given in both for uid, acts in given.items()}


def storage_classes() -> list[str]:
    """The classes of pydicom's dictionary of which a C-STORE is taken."""
    return [uid for uid in UID_dictionary if negotiation.is_storage(uid)]


_COMMANDS = {
    commands.N_ACTION_RQ: ("N-ACTION", "SCP"),
    commands.N_EVENT_REPORT_RQ: ("N-EVENT-REPORT", "SCU"),
    commands.N_CREATE_RQ: ("N-CREATE", "SCP"),
    commands.N_SET_RQ: ("N-SET", "SCP"),
}


def services() -> str:
    """What the box takes, and what it calls others for."""
    rows = [
        ["Verification", pdus.VERIFICATION, "C-ECHO, by `scanside dest test`", "C-ECHO"],
        [f"{len(storage_classes())} storage classes (A.1), private and later ones", "", "", "C-STORE"],
        ["the same, as received from `inline` sources", "", "C-STORE", ""],
        *([uid_name(uid), uid, f"C-STORE ({kinds})", ""] for uid, kinds in _created().items()),
    ]
    ours = {uid: "N-ACTION, N-EVENT-REPORT to scanners (as SCP)" for uid, _ in committing.CONTEXTS}
    for uid, taken in given().items():
        told = ", ".join(f"{name} (as {role})" for name, role in (_COMMANDS[one] for one in sorted(taken)))
        rows.append([uid_name(uid), uid, ours.get(uid, ""), told])
    found, _ = worklists._CONTEXT  # noqa: SLF001 - the one table of it
    rows.append([uid_name(found), found, "C-FIND", ""])
    return table(("SOP Class", "UID", "the box requests", "the box accepts"), rows)


def _created() -> dict[str, str]:
    """SOP Class: kinds of objects of it that the box makes."""
    kinds: dict[str, list[str]] = {}
    for kind, uid in build.SOP_CLASSES.items():
        kinds.setdefault(uid, []).append(str(kind).upper().replace("_", " "))
    return {uid: ", ".join(names) for uid, names in kinds.items()}


def syntaxes(uids: Iterable[str]) -> str:
    """Transfer Syntaxes by name."""
    return table(("Transfer Syntax", "UID"), ([uid_name(uid), uid] for uid in sorted(uids, key=by_number)))


def results_contexts() -> str:
    """What is proposed for all that is no original."""
    syntax = build.EXPLICIT_VR_LITTLE_ENDIAN
    rows = [[uid_name(uid), uid, uid_name(syntax), syntax] for uid in _created()]
    verification = (pdus.VERIFICATION, pdus.IMPLICIT_VR_LITTLE_ENDIAN)
    others = (*committing.CONTEXTS, worklists._CONTEXT, verification)  # noqa: SLF001 - the one table of it
    rows += [[uid_name(uid), uid, uid_name(other), other] for uid, other in others]
    return table(("SOP Class", "UID", "Transfer Syntax", "UID"), rows)


def roles() -> str:
    """What the acceptor answers to SCP/SCU Role Selection, asked class by class."""
    asked = [pdus.VERIFICATION, *given(), "1.2.840.10008.5.1.4.1.1.2"]
    rows = []
    for uid in asked:
        answer = negotiation.accept_roles([pdus.RoleSelection(uid, is_scu=True, is_scp=True)])
        said = (
            f"SCU {answer[0].is_scu:d}, SCP {answer[0].is_scp:d}, as proposed" if answer else "not answered (default)"
        )
        rows.append([uid_name(uid) + (" and every other storage class" if uid == asked[-1] else ""), said])
    return table(("SOP Class", "answer to a requestor that proposes both roles"), rows)


# -- associations and statuses ---------------------------------------------------------------------------------------


def rejected_associations() -> str:
    """With which codes of PS3.8 Table 9-21 an association is rejected, and why."""
    by = {1: "service user", 2: "service provider (ACSE)", 3: "service provider (presentation)"}
    kinds = {1: "permanent", 2: "transient"}
    # What the gate says is written where it is decided.
    full = {association.LOCAL_LIMIT_REJECTED: "the limit of associations, in all or from one address, is reached"}
    rows = [
        [f"{result} {kinds[result]}", f"{source} {by[source]}", reason, words or full[result, source, reason]]
        for module in (peers, association)
        for (result, source, reason), words in probe.rejections(module)
    ]
    return table(("result", "source", "reason", "in the words of the journal"), rows)


def limits() -> str:
    """What the listener bounds, whatever the configuration says or not."""
    rows = []
    for key, setting in contract.ScpSettings.__dataclass_fields__.items():
        if key.startswith(("max_", "acse", "network", "pdu")):
            rows.append([f"`{key}`", value_of(setting.default)])
    return table(("bound of the listener", "default"), rows)


def told_statuses(pairs: Iterable[tuple[int, str]]) -> str:
    """Statuses with their names and our words."""
    names = status_names(commands, headers)
    return table(
        ("status", "meaning", "when, in the words of the journal or the Error Comment"),
        ([in_hex(status), names.get(status, ""), words] for status, words in pairs),
    )


def store_statuses() -> str:
    """What the SCP answers to a C-STORE; the many reasons of "cannot understand" stand in a list of their own."""
    header = [one for one in probe.answers(headers) if one[0] != commands.CANNOT_UNDERSTAND]
    success = (commands.SUCCESS, "the object is on disk for good, and recorded")
    return told_statuses(sorted([success, *probe.answers(receive), *header]))


def cannot_understand() -> str:
    """Every reason why a data set is refused as not understood."""
    found = [one for module in (headers, elements, sources) for one in probe.answers(module)]
    return listed(sorted({words for status, words in found if status == commands.CANNOT_UNDERSTAND}))


def sent_statuses() -> str:
    """What the SCU does on each C-STORE status, asked of the rule itself."""
    told = [(in_hex(status), retry.judge(status)) for status in retry._STATUS]  # noqa: SLF001 - the table itself
    told.append((in_hex(retry._DUPLICATE), retry.judge(retry._DUPLICATE)))  # noqa: SLF001
    told.append((f"{in_hex(retry._DUPLICATE)}, corrected object", retry.judge(retry._DUPLICATE, version_n=2)))  # noqa: SLF001
    told.sort(key=lambda one: one[0])
    told += [(f"{in_hex(a)} to {in_hex(b)}", judgement) for a, b, judgement in retry._CLASSES]  # noqa: SLF001
    told.append(("any other", retry.judge(0x9999)))
    return table(
        ("status", "what the box does", "in the words of the journal"),
        (
            [status, _follows(judgement), judgement.words.partition(": ")[2] or judgement.words]
            for status, judgement in told
        ),
    )


def _follows(judgement: retry.Judgement) -> str:
    """What is done, and when it ends where what is tried again may be the object's own fault."""
    if judgement.verdict is not retry.Verdict.RETRY or judgement.fault is retry.Fault.DESTINATION:
        return str(judgement.verdict)
    others = ", while others are stored" if judgement.fault is retry.Fault.EITHER else ""
    return f"retry, park after {stage.POISON_AFTER} tries{others}"


def called_rejections() -> str:
    """What a person is told where a peer rejects our association."""
    told = dicom_scu._REJECTIONS  # noqa: SLF001 - the table itself
    rows = [[source, reason, _OPEN.sub("...", words)] for (source, reason), words in told.items()]
    return table(("source", "reason", "told as: the peer ..."), rows)


def stow_statuses() -> str:
    """What follows from the status of a STOW-RS answer, asked of the rule itself."""

    def verdict(status: int, body: str = "") -> str:
        return _follows(stow.judge_stow(http.Reply(status=status, body=body.encode()), "1.2.3"))

    stored = '{"00081199": {"vr": "SQ", "Value": [{"00081155": {"vr": "UI", "Value": ["1.2.3"]}}]}}'
    failed = stored.replace("00081199", "00081198")
    told = [(status, verdict(status)) for status in (201, 204)]
    for status in (200, 202, 409):
        cases = (
            ("it names the object as stored", verdict(status, stored)),
            ("it names it as failed without a reason", verdict(status, failed)),
            ("it says nothing of it", verdict(status, "{}")),
            ("it has no body", verdict(status)),
        )
        told.append((status, "; ".join(f"{case}: {follows}" for case, follows in cases)))
    for known in (stow._FOR_GOOD, stow._FOR_NOW):  # noqa: SLF001 - the tables themselves
        told += [(status, f"{verdict(status)}: {words}") for status, words in known.items()]
    told += [(status, f"retry, the whole destination: it {words}") for status, words in http._REFUSES_US.items()]  # noqa: SLF001
    rows = [*sorted(told), ("300 to 399", "retry, the whole destination: no redirect is followed")]
    return table(("HTTP status", "what the box does"), rows)


def stow_reasons() -> str:
    """Failure Reasons of STOW-RS that mean another thing than as a C-STORE status."""
    rows = [[in_hex(reason), "park", words] for reason, words in stow._REASONS.items()]  # noqa: SLF001
    return table(("Failure Reason", "what the box does", "in the words of the journal"), rows)


# -- the other services ----------------------------------------------------------------------------------------------

_ITEM = {"ReferencedSOPClassUID": "1.2", "ReferencedSOPInstanceUID": "1.3", "FailureReason": 272}


def commitment_attributes() -> str:
    """What the messages of storage commitment hold, and what of those of others is read."""
    pair = [("1.2", "1.3")]
    explicit = build.EXPLICIT_VR_LITTLE_ENDIAN
    sent_request = committing.encode_request("1.2.3", pair, explicit)
    sent_report = committing.encode_report("1.2.3", pair, [("1.2", "1.4", 272)], explicit)

    def written(data: bytes) -> str:
        ds = read_dataset(BytesIO(data), is_implicit_VR=False, is_little_endian=True)
        return "; ".join(dict.fromkeys(name for name, _ in probe.names(ds)))

    def looked_at(read: Callable[[Any], object], **sample: Any) -> str:
        found = probe.attributes_read(read, TransactionUID="1.2", **sample)
        return "; ".join(sorted(one for one in found if not one.endswith("Sequence")))

    both = {"ReferencedSOPSequence": [_ITEM], "FailedSOPSequence": [_ITEM]}
    rows = [
        ["N-ACTION that the box sends", committing.REQUEST_COMMITMENT, written(sent_request)],
        [
            "N-ACTION that it reads",
            committing.REQUEST_COMMITMENT,
            looked_at(committing.read_request, ReferencedSOPSequence=[_ITEM]),
        ],
        [
            "N-EVENT-REPORT that it sends",
            f"{committing.ALL_COMMITTED} all, {committing.FAILURES_EXIST} failures",
            written(sent_report),
        ],
        ["N-EVENT-REPORT that it reads", "any", looked_at(committing.read_report, **both)],
    ]
    return table(("message", "type id", "attributes"), rows)


def reasons_read() -> str:
    """What follows from a destination's Failure Reason."""
    rows = [
        [
            in_hex(reason),
            words,
            "sent again" if reason == commitments.NO_SUCH_OBJECT else "asked again later",
        ]
        for reason, words in commitments._REASONS.items()  # noqa: SLF001 - the table itself
    ]
    return table(("Failure Reason", "told as", "what the box does"), [*rows, ["any other", "", "asked again later"]])


def reasons_sent() -> str:
    """The Failure Reasons that scanners are told; one that the code gives and that has no words here is an error."""
    words = {
        "NO_SUCH_OBJECT": "the box never received the object",
        "CLASS_INSTANCE_CONFLICT": "the object has another SOP Class",
        "PROCESSING_FAILURE": "it goes to no destination that could commit to it, one has refused it for good,"
        " or it left this box while none was to commit",
    }
    given = probe.returned(commitment_requests, "reason")
    rows = [[in_hex(getattr(commitment_requests, name)), words[name]] for name in given]
    return table(("Failure Reason", "when"), sorted(rows))


def steps() -> str:
    """What each request does to a performed procedure step in each state, tried out."""
    head, *rows = probe.performed_steps()
    return table(head, rows)


def step_attributes() -> str:
    """The attributes of a performed procedure step that are read."""
    series = {
        "SeriesInstanceUID": "1.2",
        "ReferencedImageSequence": [_ITEM],
        "ReferencedNonImageCompositeSOPInstanceSequence": [_ITEM],
    }
    read = probe.attributes_read(performed.listed_images, PerformedSeriesSequence=[series])
    status = probe.attributes_read(performed._status, PerformedProcedureStepStatus="COMPLETED")  # noqa: SLF001
    return listed([*status, *(one for one in read if not one.endswith("Sequence"))])


def worklist_keys() -> str:
    """Keys of both queries, as they leave the box."""
    queries = []
    for accession in ("<accession>", ""):
        asked = store_orders.ToAsk(
            study_id=1,
            identity=Identity(study_instance_uid="1.2", patient_id="<patient>", accession_number=accession),
            identity_revision=1,
            study_date="20260102",
            modalities=("CT",),
            asked=0,
        )
        ds = read_dataset(BytesIO(orders.identifier(asked)), is_implicit_VR=True, is_little_endian=True)
        queries.append(dict(probe.names(ds)))
    used = _used_of_entries()
    rows = [
        [name, *("matched" if query.get(name) else "returned" for query in queries), "yes" if name in used else ""]
        for name in queries[0]
    ]
    return table(("key", "asked by accession", "asked by patient and day", "used of the answer"), rows)


def _used_of_entries() -> set[str]:
    step = name(orders._SCHEDULED_STEPS)  # noqa: SLF001 - the tables themselves
    plain = {name(tag) for tag, _ in orders._TEXTS.values()}  # noqa: SLF001
    return plain | {f"{step} > {name(tag)}" for tag, _ in orders._STEP_TEXTS.values()}  # noqa: SLF001


def rejection_notes() -> str:
    """The titles of rejection notes that are honoured."""
    coded = {code.code: code for code in codes.table().values() if code.scheme == "DCM"}
    told = rejections._DETAILS  # noqa: SLF001 - the table itself
    rows = [[f"({title}, DCM)", coded[str(title)].meaning, told[title].text] for title in RejectionTitle]
    return table(("document title", "meaning", "what the result then says"), rows)
