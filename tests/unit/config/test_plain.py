"""What a configuration's text may say: every fault has its line and how to mend it, and none is a Python error."""

from __future__ import annotations

import pytest

from appliance.config import load_config
from appliance.config.plain import read_plain
from appliance.errors import ConfigError

pytestmark = pytest.mark.req("R-ADMIN-05")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            "site:\n  name: 2026-13-45\n",
            "line 2: '2026-13-45' is read as a date, which no setting is; put it in quotes",
        ),
        ("at: 2026-01-02 25:61:61\n", "line 1: '2026-01-02 25:61:61' is read as a date"),
        ("at: !!timestamp soon\n", "line 1: 'soon' is read as a date"),
        ("site:\n\tname: x\n", "line 2: a tab; indent with blanks"),
        ("a: 1\nb: !!binary 'no base 64!'\n", "line 2: 'no base 64!' is read as binary data"),
        ("a: !!python/object/apply:os.system [x]\n", "line 1: a list is read as python/object/apply:os.system"),
        ("a: !!set {x, y}\n", "line 1: a mapping is read as set"),
        ("a: !!int twelve\n", "line 1: 'twelve' is not what it is read as; put it in quotes"),
        ("a: !!bool maybe\n", "line 1: 'maybe' is not what it is read as"),
        (f"a: {'9' * 5000}\n", "line 1: '9999"),
        ("a: .inf\n", "line 1: '.inf' is no number that can be reached"),
        ("? [a, b]\n: c\n", "line 1: a list is no name of a setting; write 'name: value'"),
        ("a: 1\na: 2\n", "line 2: key 'a' stands twice; keep one"),
        ("on: 1\n'on': 2\n", "line 2: key 'on' stands twice"),
        ("a: 1\nb: 'x\x00y'\n", "line 2: a character that no text has; is this the right file?"),
        ('a: 1\nb: "x\\0y"\n', "line 2: 'x\\x00y' has a character that cannot be shown; leave it out"),
        ('a: "\\uD800"\n', "line 1: '\\ud800' has a character that cannot be shown"),
        ("a: {b: 1\n", "line 2: is not YAML: "),
        ("---\na: 1\n---\na: 2\n", "line 3: a second document begins ('---'); keep one"),
        ("a: &a [x, x]\nb: &b [*a, *a]\n", "line 1: the text names a part to repeat it (a); write it out"),
        ("a: " + "[" * 5000, "line 1: the text nests more than 32 deep"),
        ("a: *never\n", "line 1: the text names a part to repeat it (never)"),
    ],
)
def test_what_no_setting_is_is_told_with_its_line_and_how_to_mend_it(text, told):
    with pytest.raises(ConfigError) as caught:
        read_plain(text, repeats=False)
    assert str(caught.value).startswith(told)


def test_keys_are_names_and_lines_are_known(tmp_path):
    value, lines = read_plain("on: a00101a2\n1: x\nlist:\n- {no: 1}\n- 2026: b\n")
    assert value == {"on": "a00101a2", "1": "x", "list": [{"no": 1}, {"2026": "b"}]}
    assert (lines["on",], lines["list", 1, "2026"]) == (1, 5)
    assert read_plain("") == (None, {})
    # As the shipped configuration shows it.
    box = tmp_path / "box.yaml"
    box.write_text("alert_sinks:\n- {kind: light, name: L, device_path: /dev/ttyUSB0, on: a0, off: a1}\n")
    assert load_config(box).alert_sinks[0].on == "a0"


def test_a_file_of_the_installer_may_name_a_part_and_one_that_repeats_itself_is_told(tmp_path):
    box = tmp_path / "box.yaml"
    box.write_text("sources:\n- {name: CT-1, ae_title: &ae CT1}\n- {name: CT-2, ae_title: *ae}\n")
    assert [one.ae_title for one in load_config(box).sources] == ["CT1", "CT1"]
    for text, told in (("site: &a {name: *a}\n", "repeats itself"), ("site: {name: 2026-13-45}\n", "line 1: '2026-13")):
        box.write_text(text)
        with pytest.raises(ConfigError, match=told):
            load_config(box)
    box.write_bytes(b"\xff\xfe\x00garbage")
    with pytest.raises(ConfigError, match="no text in UTF-8"):
        load_config(box)


def test_a_text_of_ten_megabytes_is_refused_before_it_is_read():
    from appliance.settings import LONGEST, read_yaml

    text = "".join(f"k{n}: {{a: [1, x]}}\n" for n in range(4000))[: LONGEST - 100].rpartition("\n")[0]
    assert len(read_yaml(text)[0]) > 1000
    with pytest.raises(ConfigError, match=r"has 10000000 characters, and settings have at most 65536; .*Export YAML"):
        read_yaml("x" * 10_000_000)
