from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.dicom.charsets import decode_text, display_name, mask_name

HAN = "Wang^XiaoDong=王^小东"
IR58 = b"Zhang^XiaoDong=\x1b$)A\xd5\xc5^\x1b$)A\xd0\xa1\xb6\xab="

pytestmark = pytest.mark.req("R-INTAKE-09")


@pytest.mark.parametrize(
    ("raw", "declared", "assumed", "expected"),
    [
        (HAN.encode("gb18030"), "GB18030", "", HAN),
        (HAN.encode("gbk"), "GBK", "", HAN),
        (HAN.encode("utf-8"), "ISO_IR 192", "", HAN),
        # GBK bytes that nobody declared, or that stand under the default repertoire or Latin-1.
        (HAN.encode("gbk"), "", "GBK", HAN),
        (HAN.encode("gbk"), "ISO_IR 100", "GBK", HAN),
        (HAN.encode("gbk"), "ISO_IR 6", "GB18030", HAN),
        (HAN.encode("utf-8"), "", "ISO_IR 192", HAN),
        # A second byte of GBK may be a backslash or a caret: no delimiter.
        ("焅^袪".encode("gbk"), "GBK", "", "焅^袪"),
        # The assumption is for false declarations only.
        (HAN.encode("utf-8"), "ISO_IR 192", "GBK", HAN),
        ("Jérôme".encode("latin-1"), "ISO_IR 100", "", "Jérôme"),
        (IR58, "\\ISO 2022 IR 58", "", "Zhang^XiaoDong=张^小东"),
        (IR58, "ISO_IR 100", "", "Zhang^XiaoDong=张^小东"),
        (IR58, "", "", "Zhang^XiaoDong=张^小东"),
        (IR58.replace(b"\x1b$)A", b""), "\\ISO 2022 IR 58", "", "Zhang^XiaoDong=张^小东"),
        (
            b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B=\x1b$B$d$^$@\x1b(B^\x1b$B$?$m$&\x1b(B",
            ["", "ISO 2022 IR 87"],
            "",
            "Yamada^Tarou=山田^太郎=やまだ^たろう",
        ),
        (
            b"Hong^Gildong=\x1b$)C\xfb\xf3^\x1b$)C\xd1\xce\xd4\xd7=\x1b$)C\xc8\xab^\x1b$)C\xb1\xe6\xb5\xbf",
            "\\ISO 2022 IR 149",
            "",
            "Hong^Gildong=洪^吉洞=홍^길동",
        ),
        ("ﾔﾏﾀﾞ".encode("shift_jis"), "ISO_IR 13", "", "ﾔﾏﾀﾞ"),
        ("Люкceмбypг".encode("iso8859_5"), "ISO 2022 IR 144", "", "Люкceмбypг"),
        # Terms as misspelled in the field.
        ("Jérôme".encode("latin-1"), "ISO-IR 100", "", "Jérôme"),
        (HAN.encode("utf-8"), "UTF-8", "", HAN),
    ],
)
def test_a_name_is_right_in_every_character_set_of_the_field(raw, declared, assumed, expected):
    assert decode_text(raw, declared, "PN", assumed) == expected


@pytest.mark.parametrize("declared", ["", "ISO_IR 6", "UNHEARD_OF"])
def test_undeclared_bytes_are_a_visible_hole_and_never_a_wrong_name(declared):
    text = decode_text(b"P" + "王小明".encode("gbk"), declared, "PN")
    assert text[0] == "P"
    assert set(text[1:]) == {"�"}


def test_a_value_that_is_not_in_the_assumed_set_falls_back_to_its_declaration():
    assert decode_text(b"M\xfcller", "ISO_IR 100", "PN", "ISO_IR 192") == "Müller"


@pytest.mark.fault("T23")
@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"a\x00b\x1bc\r\nd\x7f", "abcd"),
        (b"\x1b[31mred", "[31mred"),
        ("safe\u202egnp.exe".encode(), "safegnp.exe"),
        (b"../../etc/passwd", "../../etc/passwd"),
        ("\u009b31m".encode(), "31m"),
        (b"  padded  ", "padded"),
    ],
)
def test_control_characters_and_bidirectional_overrides_are_gone(raw, expected):
    assert decode_text(raw, "ISO_IR 192", "LO") == expected


def test_long_texts_keep_their_lines_and_short_ones_do_not():
    assert decode_text(b"one\r\ntwo\x07", "", "LT") == "one\ntwo"
    assert decode_text(b"one\r\ntwo", "", "LO") == "onetwo"


def test_a_text_of_64_kilobytes_is_cut():
    assert len(decode_text("王".encode() * 22_000, "ISO_IR 192", "LO")) == 1024


def test_empty_components_and_groups_at_the_end_do_not_make_another_person():
    assert decode_text(b"Wang^XiaoDong^^^= ", "", "PN") == decode_text(b"Wang^XiaoDong", "", "PN")
    assert decode_text("=王^小东=".encode(), "ISO_IR 192", "PN") == "=王^小东"


@pytest.mark.fault("T23")
@given(
    raw=st.binary(max_size=300)
    | st.lists(st.sampled_from([b"\x1b$)A", b"\x1b$B", b"\x1b", b"\xd5\xc5", b"^", b"a"])).map(b"".join),
    declared=st.sampled_from(
        ["", "ISO_IR 100", "GB18030", "ISO_IR 192", "\\ISO 2022 IR 58", "\\ISO 2022 IR 87", "ISO_IR 13", "x"]
    ),
    assumed=st.sampled_from(["", "GBK", "ISO_IR 192", "nonsense"]),
    vr=st.sampled_from(["PN", "LO", "UT"]),
)
def test_whatever_the_bytes_text_is_clean_and_no_exception_comes_out(raw, declared, assumed, vr):
    text = decode_text(raw, declared, vr, assumed)
    assert not [c for c in text if unicodedata.category(c) in {"Cc", "Cs"} and not (vr == "UT" and c == "\n")]
    text.encode("utf-8")
    display_name(text, "zh")
    mask_name(text, "en")


@pytest.mark.parametrize(
    ("name", "language", "shown", "masked"),
    [
        (HAN, "zh", "王小东", "王*东"),
        (HAN, "zh_Hans_CN", "王小东", "王*东"),
        (HAN, "en", "Wang, XiaoDong", "W. X."),
        ("Doe^John^Q", "zh", "Doe, John Q", "D. J. Q."),
        ("王小明", "en", "王小明", "王*明"),
        ("=李^四", "en", "李四", "李*"),
        ("欧阳^修远=欧阳^修远", "zh", "欧阳修远", "欧**远"),
        ("Doe", "en", "Doe", "D."),
        ("^^=", "en", "", ""),
        ("", "zh", "", ""),
    ],
)
def test_a_name_is_shown_and_masked_in_the_language_of_the_reader(name, language, shown, masked):
    assert display_name(name, language) == shown
    assert mask_name(name, language) == masked
