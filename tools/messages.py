#!/usr/bin/env python3
"""Bring the message catalogues in line with the texts in code and templates.

    .venv/bin/python tools/messages.py            update scanside.pot and every scanside.po
    .venv/bin/python tools/messages.py --check    change nothing; status 1 where a catalogue is not up to date

Texts are what ``gettext`` is called with, and the sentences of analyses, which are translated where they are shown
(``records.Detail``, ``engines.message.Message`` and the errors that make them).

The English catalogue is completed by itself, since message ids are English; the others are left for a translator.
"""

from __future__ import annotations

import argparse
import copy
import io
import sys
from pathlib import Path

from babel.messages.catalog import Catalog
from babel.messages.extract import extract_from_dir
from babel.messages.pofile import read_po, write_po

ROOT = Path(__file__).resolve().parents[1]
LOCALES = ROOT / "appliance" / "web" / "locales"
SOURCES = (ROOT / "appliance", ROOT / "engines")
METHODS = [("**.py", "python"), ("**/templates/**.html", "jinja2"), ("templates/**.html", "jinja2")]
OPTIONS = {"jinja2": {"trimmed": "true", "silent": "false"}}
KEYWORDS = {
    "_": None,
    "N_": None,
    "gettext": None,
    "ngettext": (1, 2),
    "Detail": (1,),
    "Message": (1,),
    "NotAnalysable": (2,),
    "ContentError": (2,),
}


def template() -> Catalog:
    """Every text in code and templates."""
    catalogue = Catalog(project="Scanside", charset="utf-8")
    for folder in SOURCES:
        found = extract_from_dir(folder, METHODS, {p: OPTIONS.get(m, {}) for p, m in METHODS}, keywords=KEYWORDS)
        for name, _line, message, comments, context in found:
            # Without line numbers: they would change the file with every edit of the code.
            place = (folder / name).relative_to(ROOT).as_posix()
            catalogue.add(message, None, [(place, None)], auto_comments=comments, context=context)
    return catalogue


def updated(path: Path, pot: Catalog) -> Catalog:
    """The catalogue at ``path`` with exactly the template's messages."""
    locale = path.parent.parent.name
    if path.exists():
        with path.open("rb") as file:
            catalogue = read_po(file, locale=locale)
    else:
        catalogue = Catalog(locale=locale, project="Scanside", charset="utf-8")
    catalogue.update(pot, no_fuzzy_matching=True)
    catalogue.obsolete.clear()
    catalogue.fuzzy = False
    if locale != "en":
        catalogue.header_comment = "# Awaiting review by a radiology department."
    if locale == "en":
        for message in catalogue:
            if message.id and not (any(message.string) if message.pluralizable else message.string):
                message.string = message.id
    return catalogue


def text(catalogue: Catalog) -> bytes:
    """The file, without its dates: they would change with every run."""
    out = io.BytesIO()
    write_po(out, catalogue, width=110, sort_by_file=True, omit_header=False)
    lines = out.getvalue().splitlines(keepends=True)
    dated = (b'"POT-Creation-Date', b'"PO-Revision-Date', b'"Generated-By', b'"Last-Translator', b'"Language-Team')
    vague = (b"# FIRST AUTHOR", b"# Copyright", b"# This file is distributed")
    return b"".join(line for line in lines if not line.startswith((*dated, *vague)))


def main() -> int:
    """Update or check."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--check", action="store_true")
    check = arguments.parse_args().check
    pot = template()
    made = {LOCALES / "scanside.pot": text(pot)}
    for locale in ("en", "zh_Hans_CN"):
        path = LOCALES / locale / "LC_MESSAGES" / "scanside.po"
        # A copy: completing the English texts would complete those of the template, and so of every other language.
        made[path] = text(updated(path, copy.deepcopy(pot)))
    old = [path for path, data in made.items() if not path.exists() or path.read_bytes() != data]
    for path in old:
        if check:
            print(f"{path.relative_to(ROOT)} is not up to date: run tools/messages.py")
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(made[path])
            print(f"{path.relative_to(ROOT)} written")
    return 1 if check and old else 0


if __name__ == "__main__":
    sys.exit(main())
