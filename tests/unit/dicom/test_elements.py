"""The walker against hostile and odd bytes; what it must find is written by hand here, not by a library."""

from __future__ import annotations

import struct
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.dicom.elements import (
    EXPLICIT_BE,
    EXPLICIT_LE,
    IMPLICIT_LE,
    MAX_DEPTH,
    MAX_TOP_LEVEL_ELEMENTS,
    UNDEFINED,
    flatten,
    walk,
)
from appliance.dicom.source import Source
from appliance.errors import RejectedInstance

LONG = {b"OB", b"OW", b"SQ", b"UN", b"UT"}
ITEM, ITEM_END, SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD


def element(tag, vr, value, encoding=EXPLICIT_LE, length=None):
    order = ">" if encoding.big else "<"
    length = len(value) if length is None else length
    numbers = struct.pack(order + "HH", tag >> 16, tag & 0xFFFF)
    if not encoding.explicit or tag >= 0xFFFE0000:
        return numbers + struct.pack(order + "L", length) + value
    if vr in LONG:
        return numbers + vr + b"\0\0" + struct.pack(order + "L", length) + value
    return numbers + vr + struct.pack(order + "H", length) + value


def item(value, encoding=EXPLICIT_LE, *, undefined=False):
    if undefined:
        return element(ITEM, b"", value, encoding, UNDEFINED) + element(ITEM_END, b"", b"", encoding)
    return element(ITEM, b"", value, encoding)


def sequence(tag, items, encoding=EXPLICIT_LE, *, undefined=False, vr=b"SQ"):
    if undefined:
        return element(tag, vr, items, encoding, UNDEFINED) + element(SEQUENCE_END, b"", b"", encoding)
    return element(tag, vr, items, encoding)


def nested(depth, encoding, *, undefined):
    inner = element(0x00080060, b"CS", b"CT", encoding)
    for _ in range(depth):
        inner = sequence(0x00081140, item(inner, encoding, undefined=undefined), encoding, undefined=undefined)
    return inner


def find(data, encoding=EXPLICIT_LE):
    return walk(Source(data), 0, encoding)


def status_of(data, encoding):
    """0 when the bytes are a data set, else the status of the refusal; any other exception comes out."""
    try:
        find(data, encoding)
    except RejectedInstance as refused:
        return refused.status
    return 0


ENCODINGS = [EXPLICIT_LE, IMPLICIT_LE, EXPLICIT_BE]
LEAVES = st.tuples(st.sampled_from([b"CS", b"LO", b"OB", b"UN", b"US", b"UT"]), st.binary(max_size=12))


@st.composite
def data_sets(draw):
    """Bytes of a data set in a random encoding and the tags and values at its top level."""
    encoding = draw(st.sampled_from(ENCODINGS))
    expected, data = {}, b""
    for tag in sorted(draw(st.sets(st.integers(0x00080005, 0x7FDF0000), max_size=6))):
        if draw(st.booleans()):
            value = draw(trees(encoding, depth=3))
            undefined = draw(st.booleans())
            data += sequence(tag, value, encoding, undefined=undefined)
            expected[tag] = None
        else:
            vr, value = draw(LEAVES)
            data += element(tag, vr, value, encoding)
            expected[tag] = value
    return encoding, data, expected


@st.composite
def trees(draw, encoding, depth):
    """Items of a sequence with random sequences below."""
    data = b""
    for _ in range(draw(st.integers(0, 2))):
        content = b""
        for tag in sorted(draw(st.sets(st.integers(0x00080005, 0x7FDF0000), max_size=3))):
            if depth and draw(st.booleans()):
                below = draw(trees(encoding, depth - 1))
                content += sequence(tag, below, encoding, undefined=draw(st.booleans()))
            else:
                vr, value = draw(LEAVES)
                content += element(tag, vr, value, encoding)
        data += item(content, encoding, undefined=draw(st.booleans()))
    return data


@given(data_sets())
def test_every_top_level_element_is_found_where_it_lies(made):
    encoding, data, expected = made
    found = find(data, encoding)
    assert list(found.places) == list(expected)
    for tag, value in expected.items():
        if value is not None:
            place = found.places[tag]
            assert data[place.offset : place.offset + place.length] == value


@settings(max_examples=50)
@given(data_sets())
def test_a_data_set_that_is_cut_inside_an_element_is_refused_as_truncated(made):
    encoding, data, _ = made
    ends = {0, len(data)}
    for size in range(1, len(data)):
        if status_of(data[:size], encoding) == 0:
            ends.add(size)
    # Only a cut between two elements can pass, and then nothing of what remains is short.
    assert len(ends) <= len(find(data, encoding).places) + 2


@settings(max_examples=3 * settings.default.max_examples)
@given(st.binary(max_size=400), st.sampled_from(ENCODINGS))
def test_random_bytes_are_read_or_refused_and_never_raise_anything_else(data, encoding):
    assert status_of(data, encoding) in {0, 0xC000}


@pytest.mark.req("R-INTAKE-17")
@pytest.mark.fault("T20")
@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("undefined", [True, False])
def test_sequences_may_nest_64_deep_and_no_deeper(encoding, undefined):
    assert list(find(nested(MAX_DEPTH, encoding, undefined=undefined), encoding).places) == [0x00081140]
    with pytest.raises(RejectedInstance, match="deeper than 64"):
        find(nested(MAX_DEPTH + 1, encoding, undefined=undefined), encoding)


@pytest.mark.req("R-INTAKE-17")
@pytest.mark.fault("T20")
@pytest.mark.parametrize("depth", [100, 1_000, 100_000])
@pytest.mark.parametrize("opening", ["explicit", "implicit", "unknown"])
def test_a_tower_of_sequences_is_refused_at_once(depth, opening):
    step = {
        "explicit": element(0x00081140, b"SQ", b"", EXPLICIT_LE, UNDEFINED),
        "implicit": element(0x00081140, b"", b"", IMPLICIT_LE, UNDEFINED),
        "unknown": element(0x00091010, b"UN", b"", EXPLICIT_LE, UNDEFINED),
    }[opening]
    encoding = IMPLICIT_LE if opening == "implicit" else EXPLICIT_LE
    below = element(0x00091010, b"", b"", IMPLICIT_LE, UNDEFINED) if opening == "unknown" else step
    start = time.process_time()
    with pytest.raises(RejectedInstance, match="deeper than 64"):
        find(step + (element(ITEM, b"", b"", encoding, UNDEFINED) + below) * depth, encoding)
    assert time.process_time() - start < 2


@pytest.mark.req("R-INTAKE-17")
@pytest.mark.fault("T22")
@pytest.mark.parametrize(
    "data",
    [
        pytest.param(element(0x00100010, b"PN", b"") * 1_200_000, id="one element again and again"),
        pytest.param(
            element(0x00081140, b"SQ", item(element(0x00100010, b"PN", b"") * 1_200_000), length=UNDEFINED),
            id="a million leaves",
        ),
        pytest.param(element(0x00081140, b"SQ", item(b"") * 1_200_000, length=UNDEFINED), id="a million empty items"),
        pytest.param(element(0x7FE00010, b"OB", item(b"") * 1_200_000, length=UNDEFINED), id="a million fragments"),
        pytest.param(
            b"".join(
                element(0x00090000 | i, b"SQ", element(ITEM, b"", b"", length=4095))
                for i in range(MAX_TOP_LEVEL_ELEMENTS)
            ),
            id="broken sequences",
        ),
    ],
)
def test_a_data_set_of_a_million_elements_costs_a_bounded_time(data):
    start = time.process_time()
    status_of(data, EXPLICIT_LE)
    assert time.process_time() - start < 2


@pytest.mark.parametrize("length", [0x7FFFFFFF, 0xFFFFFFFE, 17])
def test_an_announced_length_beyond_the_file_is_a_truncated_object(length):
    with pytest.raises(RejectedInstance, match=r"truncated: element \(0042,0011\) claims"):
        find(element(0x00420011, b"OB", b"0123456789abcdef", length=length))


def test_a_broken_sequence_of_defined_length_does_not_hide_what_follows():
    broken = element(0x00081140, b"SQ", b"\xfe\xff\x00\xe0\xff\xff\x00\x00rubbish!")
    after = element(0x00100010, b"PN", b"Doe^John")
    assert list(find(broken + after).places) == [0x00081140, 0x00100010]


def test_a_sequence_hidden_in_an_unknown_value_is_walked_in_implicit_vr():
    inside = item(element(0x00080060, b"", b"CT", IMPLICIT_LE), IMPLICIT_LE, undefined=True)
    data = sequence(0x00091010, inside, undefined=True, vr=b"UN") + element(0x00100010, b"PN", b"Doe^John")
    assert list(find(data).places) == [0x00091010, 0x00100010]


def test_an_unknown_value_inside_an_item_is_walked_in_implicit_vr_too():
    inside = item(element(0x00080060, b"", b"CT", IMPLICIT_LE), IMPLICIT_LE, undefined=True)
    unknown = sequence(0x00091010, inside, undefined=True, vr=b"UN")
    after = element(0x00100010, b"PN", b"Doe^John")
    data = sequence(0x00081140, item(unknown + after, undefined=True), undefined=True) + after
    source = Source(data)
    found = walk(source, 0, EXPLICIT_LE)
    assert list(found.places) == [0x00081140, 0x00100010]
    assert list(flatten(source, found.places[0x00081140], EXPLICIT_LE)[0]) == [0x00100010]


def test_an_icon_with_encapsulated_pixels_is_passed_over():
    pixels = element(0x7FE00010, b"OB", item(b"") + item(b"code"), length=UNDEFINED) + element(SEQUENCE_END, b"", b"")
    data = sequence(0x00880200, item(pixels, undefined=True), undefined=True) + element(0x00880906, b"ST", b"text")
    assert list(find(data).places) == [0x00880200, 0x00880906]
    assert find(data).fragments is None


def test_fragments_are_those_after_the_offset_table():
    stream = item(b"\0\0\0\0") + item(b"first") + item(b"second")
    data = element(0x7FE00010, b"OB", stream, length=UNDEFINED) + element(SEQUENCE_END, b"", b"")
    fragments = find(data).fragments
    assert [data[offset : offset + length] for offset, length in fragments.items] == [b"first", b"second"]
    assert fragments.end == len(data)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (element(SEQUENCE_END, b"", b""), "no Value Representation"),
        (element(0x00100010, b"??", b"x"), "no Value Representation"),
        (element(0x00100010, b"PN", b"Doe") + b"\0\0\0", "stray bytes"),
        (element(0x7FE00010, b"OB", item(b"") + item(b"code"), length=UNDEFINED), "without a sequence delimiter"),
        (element(0x7FE00010, b"OB", element(ITEM, b"", b"", length=UNDEFINED), length=UNDEFINED), "fragment"),
        (element(0x00081140, b"SQ", item(b""), length=UNDEFINED), "inside a sequence"),
        (element(0x00081140, b"SQ", element(0x00100010, b"PN", b""), length=UNDEFINED), "where an item"),
    ],
)
def test_what_is_no_data_set_is_refused_with_the_reason(data, why):
    with pytest.raises(RejectedInstance, match=why) as refused:
        find(data)
    assert refused.value.status == 0xC000


def test_leaves_are_given_by_item_without_those_of_private_sequences():
    private = sequence(0x00091010, item(element(0x00200032, b"DS", b"9\\9\\9")))
    position = sequence(0x00209113, item(element(0x00200032, b"DS", b"1\\2\\3")))
    data = sequence(0x52009230, item(private + position) + item(b""))
    source = Source(data)
    first, second = flatten(source, walk(source, 0, EXPLICIT_LE).places[0x52009230], EXPLICIT_LE)
    place = first[0x00200032]
    assert source.read(place.offset, place.length) == b"1\\2\\3"
    assert second == {}
