"""Text of DICOM data sets as it must stand on every surface (PS3.5 §6.1, PS3.3 §C.12.1.1.2).

What the field sends is not what the standard says: GBK without any declaration, GBK under ISO_IR 100, escape
sequences of ISO 2022 IR 58 that a common library leaves in the text. The rules:

- a declared character set is used, unless the source's ``assume_charset`` says that this device declares falsely;
- bytes above 7F without a usable declaration become U+FFFD: a visible hole is safer than a wrong name;
- escape sequences, control characters and bidirectional overrides never reach a surface.
"""

from __future__ import annotations

import re
import unicodedata

MAX_CHARACTERS = 1024

_ESC = 0x1B
#: Single-byte repertoires and the multi-byte ones without code extensions, by ISO-IR registration number.
_CODECS = {
    "6": "ascii",
    "13": "shift_jis",
    "100": "latin_1",
    "101": "iso8859_2",
    "109": "iso8859_3",
    "110": "iso8859_4",
    "126": "iso8859_7",
    "127": "iso8859_6",
    "138": "iso8859_8",
    "144": "iso8859_5",
    "148": "iso8859_9",
    "149": "euc_kr",
    "166": "iso8859_11",
    "192": "utf_8",
    "203": "iso8859_15",
    "58": "gb18030",
}
_WHOLE = {"GB18030": "gb18030", "GBK": "gb18030", "GB2312": "gb18030", "UTF8": "utf_8", "192": "utf_8"}
#: Escape sequences that designate the right half (G1), PS3.3 Tables C.12-3 and C.12-4.
_G1 = {
    b"-A": "latin_1",
    b"-B": "iso8859_2",
    b"-C": "iso8859_3",
    b"-D": "iso8859_4",
    b"-F": "iso8859_7",
    b"-G": "iso8859_6",
    b"-H": "iso8859_8",
    b"-L": "iso8859_5",
    b"-M": "iso8859_9",
    b"-T": "iso8859_11",
    b"-b": "iso8859_15",
    b")I": "shift_jis",
    b"$)C": "euc_kr",
    b"$)A": "gb18030",
}
#: Escape sequences that designate the left half (G0) to two bytes a character.
_G0 = {b"$B": b"\x1b$B", b"$@": b"\x1b$@", b"$(D": b"\x1b$(D"}
_ESCAPE = re.compile(rb"\x1b([\x20-\x2f]{1,3}[\x30-\x7e])")
#: Line ends, tab, backslash, and in names caret and equals sign bring back the first character set, PS3.5 §6.1.2.5.3.
_RESET = re.compile(r"([\t\n\f\r\\^=])")
_TERM = re.compile(r"ISO[ _-]?(?:2022)?[ _-]?IR[ _-]?(\d+)$")
_BIDI = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\ufeff")
_MULTI_LINE = frozenset({"LT", "ST", "UT"})
_HAN = re.compile("[\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff\uac00-\ud7a3\u3040-\u30ff]")


def decode_text(raw: bytes, specific_character_set: str | list[str], vr: str, assume_charset: str = "") -> str:
    """The characters of one element's value, fit for a screen.

    Args:
        raw: The value as it stands in the data set.
        specific_character_set: (0008,0005), as a list or with backslashes; empty when absent.
        vr: Value Representation; names keep their groups, multi-line texts their line ends.
        assume_charset: What the source really sends (``GBK``, ``GB18030``, ``ISO_IR 192``, ...) where it declares
            nothing, the default repertoire or Latin-1. Empty: believe the declaration.

    Returns:
        At most 1,024 characters without padding, control characters and escape sequences; several values are joined
        by a backslash. What cannot be decoded is U+FFFD.
    """
    raw = raw[: 4 * MAX_CHARACTERS]
    text = (
        raw.decode("ascii")
        if raw.isascii() and _ESC not in raw
        else _decode(raw, specific_character_set, assume_charset)
    )
    if not text.isprintable():
        text = _printable(text, multi_line=vr in _MULTI_LINE)
    text = text[:MAX_CHARACTERS].strip(" ")
    return _trimmed_name(text) if vr == "PN" else text


def _decode(raw: bytes, declared: str | list[str], assume_charset: str) -> str:
    terms = [_term(term) for term in (declared.split("\\") if isinstance(declared, str) else declared)] or [""]
    assumed = _term(assume_charset)
    if assumed and _ESC not in raw and set(terms) <= {"", "6", "100"}:
        try:
            return raw.decode(_WHOLE.get(assumed) or _CODECS.get(assumed, "ascii"))
        except UnicodeDecodeError:
            pass  # this value is not what the device usually sends: the declaration decides
    if terms[0] in _WHOLE:
        return _ESCAPE.sub(b"", raw).decode(_WHOLE[terms[0]], "replace")
    # Senders that declare ['', 'ISO 2022 IR 58'] often leave out the escape sequences: the declaration is clear enough.
    multi_byte = next((term for term in terms if term in {"58", "149"}), "6")
    first = _CODECS.get(multi_byte if terms[0] in {"", "6"} else terms[0], "ascii")
    if _ESC in raw:
        return _decode_2022(raw, first)
    return raw.decode(first, "replace")


def _term(term: str) -> str:
    """The ISO-IR number, or the name in capitals, of a defined term and of its usual misspellings."""
    term = term.strip(" \0").upper()
    match = _TERM.match(term)
    return match.group(1) if match else term.replace("-", "").replace("_", "").replace(" ", "")


def _decode_2022(raw: bytes, first: str) -> str:
    """ISO 2022 code extensions (PS3.5 §6.1.2.5): each escape sequence changes one half of the code table."""
    g0, g1 = b"", first
    pieces = _ESCAPE.split(raw)
    text = [_decode_run(pieces[0], g0, g1)]
    for escape, run in zip(pieces[1::2], pieces[2::2], strict=True):
        if escape in _G0:
            g0 = _G0[escape]
        elif escape in _G1:
            g1 = _G1[escape]
        elif escape in {b"(B", b"(J"}:
            g0 = b""
        text.append(_decode_run(run, g0, g1))
        # G1 goes back to the first character set at a delimiter, unless that could not hold the bytes that follow.
        if first != "ascii" and _RESET.search(text[-1]) and not g0:
            g1 = first
    return "".join(text)


def _decode_run(run: bytes, g0: bytes, g1: str) -> str:
    if not g0:
        return run.decode(g1, "replace")
    return (g0 + run + b"\x1b(B").decode("iso2022_jp_2", "replace").replace("\x1b", "")


def _printable(text: str, *, multi_line: bool) -> str:
    if multi_line:
        text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\f", "\n")
    keep = "\n" if multi_line else ""
    return "".join(
        character
        for character in text
        if character in keep or not (unicodedata.category(character) in {"Cc", "Cs"} or character in _BIDI)
    )


def _trimmed_name(text: str) -> str:
    """Trailing empty components and groups have no meaning (PS3.5 §6.2.1.1), and must not make two persons of one."""
    groups = [group.strip(" ").rstrip("^ ") for group in text.split("=")]
    while len(groups) > 1 and not groups[-1]:
        groups.pop()
    return "=".join(groups)


def display_name(patient_name: str, language: str) -> str:
    """A name in the DICOM form as a person reads it.

    Args:
        patient_name: Groups alphabetic=ideographic=phonetic of components family^given^middle^prefix^suffix.
        language: Of the reader; one that starts with ``zh`` sees the ideographic group where there is one.
    """
    groups = [*patient_name.split("="), "", ""][:3]
    alphabetic, ideographic, phonetic = groups
    order = (
        (ideographic, alphabetic, phonetic)
        if language.lower().startswith("zh")
        else (alphabetic, ideographic, phonetic)
    )
    chosen = next((group for group in order if group.strip("^ ")), "")
    components = [component.strip() for component in chosen.split("^")]
    if _HAN.search(chosen):
        return "".join(components)
    family, given = components[0], " ".join(component for component in components[1:3] if component)
    return f"{family}, {given}" if family and given else family or given


def mask_name(patient_name: str, language: str) -> str:
    """A name that tells two patients apart for those who know them, and nobody else: 王*明, or initials."""
    shown = display_name(patient_name, language)
    if _HAN.search(shown):
        return shown[0] + "*" if len(shown) <= 2 else shown[0] + "*" * (len(shown) - 2) + shown[-1]
    parts = [part for part in re.split(r"[\s,]+", shown) if part]
    return " ".join(f"{part[0]}." for part in parts)
