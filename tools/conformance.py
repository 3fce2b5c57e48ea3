#!/usr/bin/env python3
"""Write docs/conformance.md, the DICOM conformance statement, from the tables that the code uses.

    .venv/bin/python tools/conformance.py            write it
    .venv/bin/python tools/conformance.py --check    change nothing; status 1 where it is not up to date

The prose stands in ``conformance.template.md``. There ``{{ name }}`` is a table of this file, ``{{ appliance.x.Y }}``
the value of a constant. What stands in no table is read from the source or tried out (``conformance_probe``), and
what an object holds is what the shipping code writes (``conformance_objects``).
"""

from __future__ import annotations

import argparse
import functools
import importlib
import re
import ssl
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import conformance_objects as objects
import conformance_probe as probe
import conformance_services as services
import highdicom
import pydicom
from conformance_words import by_number, in_hex, table, uid_name, value_of
from pydantic import BaseModel

import appliance
from appliance import config as configuration
from appliance.dicom import bcp195, charsets, codes, commands
from appliance.intake import commitment as committed
from appliance.intake import negotiation, performed, service
from appliance.records import DeliveryKind
from appliance.report import maker

ROOT = Path(__file__).resolve().parents[1]
TEMPLATE = Path(__file__).with_name("conformance.template.md")
STATEMENT = ROOT / "docs" / "conformance.md"
_HOLE = re.compile(r"\{\{ ([A-Za-z0-9_.]+) \}\}")
_UNITS = {"s": "s", "h": "h", "days": "days", "bytes": "bytes", "fraction": "part of 1", "path": "file"}
_LIMITS = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<", "max_length": "length <=", "min_length": "length >="}

# -- character sets, codes, configuration ----------------------------------------------------------------------------


def _character_sets() -> str:
    single = sorted(charsets._CODECS, key=int)  # noqa: SLF001 - the tables themselves
    whole = [term for term in charsets._WHOLE if not term.isdigit()]  # noqa: SLF001
    rows = [
        ["`ISO_IR n`, `ISO 2022 IR n`", ", ".join(single)],
        ["without code extensions", ", ".join(whole)],
        ["escape sequences to G1", ", ".join(f"ESC {one.decode()}" for one in charsets._G1)],  # noqa: SLF001
        ["escape sequences to G0", ", ".join(f"ESC {one.decode()}" for one in charsets._G0)],  # noqa: SLF001
    ]
    return table(("Specific Character Set", "understood"), rows)


def _codes(*, is_private: bool) -> str:
    rows = [
        [code.code, code.scheme, code.meaning, code.source, "yes" if code.reviewed else "no"]
        for code in codes.table().values()
        if (code.scheme == maker.PRIVATE_SCHEME) is is_private
    ]
    head = ("Code Value", "Coding Scheme", "Code Meaning", "seen in", "looked up by a person")
    return table(head, rows)


def _settings(section: type[BaseModel]) -> str:
    rows = []
    for name, field in section.model_fields.items():
        unit = next((_UNITS[end] for end in _UNITS if name.endswith(f"_{end}")), "")
        limits = [
            f"{sign} {getattr(one, attribute)}"
            for one in field.metadata
            for attribute, sign in _LIMITS.items()
            if getattr(one, attribute, None) is not None
        ]
        default = "must be given" if field.is_required() else value_of(field.default)
        if isinstance(field.default, BaseModel):
            continue
        rows.append([f"`{name}`", default, unit, ", ".join(limits), field.description or ""])
    return table(("key", "default", "unit", "range", "meaning"), rows)


# -- created objects -------------------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=1)
def _samples() -> list[objects.Sample]:
    return objects.samples()


Block = tuple[objects.Attribute, ...]


@functools.cache
def _blocks(kind: DeliveryKind) -> list[Block]:
    """An attribute of the top level with what stands below it."""
    blocks: list[list[objects.Attribute]] = []
    for attribute in objects.attributes(kind, _samples()):
        if attribute.depth == 0:
            blocks.append([])
        blocks[-1].append(attribute)
    return [tuple(block) for block in blocks]


def _common() -> list[Block]:
    others = [set(_blocks(kind)) for kind in objects.OBJECTS[1:]]
    return [block for block in _blocks(objects.OBJECTS[0]) if all(block in one for one in others)]


def _attributes(blocks: Iterable[Block]) -> str:
    return table(
        ("attribute", "tag", "VR", "presence", "value"),
        ([">" * a.depth + a.name, a.tag, a.vr, a.presence, a.value] for block in blocks for a in block),
    )


def _own(kind: DeliveryKind) -> str:
    common = set(_common())
    return _attributes(block for block in _blocks(kind) if block not in common)


def _trees() -> str:
    told = []
    for sample in _samples():
        if sample.name in {"located finding", "triage finding", "nothing flagged", "not analysed"}:
            lines = "\n".join(objects.tree(sample.objects[DeliveryKind.SR]))
            told.append(f"Of a sample, {sample.name}:\n\n```\n{lines}\n```")
    return "\n\n".join(told)


def _tree(kind: DeliveryKind) -> str:
    lines = "\n".join(objects.tree(_samples()[0].objects[kind]))
    return f"```\n{lines}\n```"


def _tls_minimum() -> str:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    bcp195.harden(context)
    return context.minimum_version.name.replace("TLSv", "TLS ").replace("_", ".")


TABLES: dict[str, Callable[[], str]] = {
    "version": lambda: appliance.__version__,
    "libraries": lambda: f"pydicom {pydicom.__version__}, highdicom {highdicom.__version__}",
    "retention_h": lambda: value_of(configuration.Retention().images_h),
    "services": services.services,
    "accepted_syntaxes": lambda: services.syntaxes(negotiation.ACCEPTED_SYNTAXES),
    "service_syntaxes": lambda: services.syntaxes(negotiation._SERVICE_SYNTAXES),  # noqa: SLF001 - the table itself
    "results_contexts": services.results_contexts,
    "roles": services.roles,
    "rejections": services.rejected_associations,
    "limits": services.limits,
    "store_statuses": services.store_statuses,
    "cannot_understand": services.cannot_understand,
    "service_statuses": lambda: services.told_statuses(probe.answers(service)),
    "sent_statuses": services.sent_statuses,
    "called_rejections": services.called_rejections,
    "stow_statuses": services.stow_statuses,
    "stow_reasons": services.stow_reasons,
    "commitment_attributes": services.commitment_attributes,
    "commitment_requested": lambda: services.told_statuses(probe.answers(committed, "requested")),
    "reasons_read": services.reasons_read,
    "reasons_sent": services.reasons_sent,
    "step_statuses": lambda: services.told_statuses(probe.answers(performed)),
    "steps": services.steps,
    "step_attributes": services.step_attributes,
    "worklist_keys": services.worklist_keys,
    "rejection_notes": services.rejection_notes,
    "tls_minimum": _tls_minimum,
    "character_sets": _character_sets,
    "codes": lambda: _codes(is_private=False),
    "private_codes": lambda: _codes(is_private=True),
    "config_dicom": lambda: _settings(configuration.Dicom),
    "config_tls": lambda: _settings(configuration.Tls),
    "config_source": lambda: _settings(configuration.Source),
    "config_dicom_destination": lambda: _settings(configuration.DicomDestination),
    "config_stow_destination": lambda: _settings(configuration.StowDestination),
    "config_client_tls": lambda: _settings(configuration.ClientTls),
    "config_worklist": lambda: _settings(configuration.Worklist),
    "config_completeness": lambda: _settings(configuration.Completeness),
    "config_retention": lambda: _settings(configuration.Retention),
    "storage_classes": lambda: table(
        ("SOP Class", "UID"), ([uid_name(uid), uid] for uid in sorted(services.storage_classes(), key=by_number))
    ),
    "objects_when": lambda: table(("result", *(str(kind).upper() for kind in objects.OBJECTS)), objects.when()),
    "attributes_common": lambda: _attributes(_common()),
    "attributes_sr": lambda: _own(DeliveryKind.SR),
    "attributes_seg": lambda: _own(DeliveryKind.SEG),
    "attributes_gsps": lambda: _own(DeliveryKind.GSPS),
    "attributes_ko": lambda: _own(DeliveryKind.KO),
    "attributes_sc": lambda: _own(DeliveryKind.SC),
    "attributes_rejection_note": lambda: _own(DeliveryKind.REJECTION_NOTE),
    "trees": _trees,
    "key_object_tree": lambda: _tree(DeliveryKind.KO),
    "rejection_note_tree": lambda: _tree(DeliveryKind.REJECTION_NOTE),
}


def fill(name: str) -> str:
    """What stands in the place of ``{{ name }}``.

    Raises:
        KeyError: There is no such table, and it names no constant.
    """
    if "." not in name:
        return TABLES[name]()
    module, _, constant = name.rpartition(".")
    value = getattr(importlib.import_module(module), constant)
    return in_hex(value) if module == commands.__name__ else value_of(value)


def statement() -> str:
    """The whole document.

    Raises:
        RuntimeError: A table stands nowhere in the template.
    """
    template = TEMPLATE.read_text("utf-8")
    unused = set(TABLES) - set(_HOLE.findall(template))
    if unused:
        msg = f"{TEMPLATE.name} has no place for {', '.join(sorted(unused))}"
        raise RuntimeError(msg)
    return _HOLE.sub(lambda hole: fill(hole[1]), template)


def main(arguments: Sequence[str] | None = None) -> int:
    """Write or check."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args(arguments).check
    made = statement()
    if STATEMENT.exists() and STATEMENT.read_text("utf-8") == made:
        return 0
    if check:
        print("docs/conformance.md is not up to date: run 'make conformance'")
        return 1
    STATEMENT.write_text(made, "utf-8")
    print("docs/conformance.md written")
    return 0


if __name__ == "__main__":
    sys.exit(main())
