from __future__ import annotations

import base64
import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.errors import SignatureError
from engines.signing import (
    PrivateKey,
    PublicKey,
    add_signature,
    generate,
    load_private,
    load_public,
    parse_strict,
    sign,
    verify,
)

KIND = "application/vnd.scanside.test+json"
ALICE, BOB, MALLORY = (PrivateKey(name, bytes([n]) * 32) for n, name in enumerate(("alice", "bob", "mallory"), 1))
TRUSTED = [ALICE.public, BOB.public]
X25519 = """-----BEGIN PUBLIC KEY-----
MCowBQYDK2VuAyEAhSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=
-----END PUBLIC KEY-----
"""
ENVELOPE = sign(KIND, b"payload", [ALICE])


def test_key_and_signature_are_those_of_rfc_8032():
    key = PrivateKey("test 1", bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60"))
    assert key.public.raw.hex() == "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
    assert key.sign(b"").hex().startswith("e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e06522490155")


def test_what_is_signed_is_the_encoding_of_the_dsse_protocol():
    """The example of the protocol's own text: lengths of type and body stand before them."""
    envelope = json.loads(sign("http://example.com/HelloWorld", b"hello world", [ALICE]))
    expected = ALICE.sign(b"DSSEv1 29 http://example.com/HelloWorld 11 hello world")
    assert base64.b64decode(envelope["signatures"][0]["sig"]) == expected
    assert envelope["payloadType"] == "http://example.com/HelloWorld"


@pytest.mark.req("R-SIGN-01")
@given(payload=st.binary(max_size=200), signers=st.sets(st.sampled_from([ALICE, BOB]), min_size=1))
def test_signed_bytes_come_back_with_who_signed_them(payload, signers):
    verified = verify(sign(KIND, payload, list(signers)), KIND, TRUSTED)
    assert verified.payload == payload
    assert set(verified.keyids) == {key.public.keyid for key in signers}


@pytest.mark.req("R-SIGN-01")
@given(at=st.integers(0, len(ENVELOPE) - 1), byte=st.integers(0, 255))
def test_an_altered_envelope_gives_the_signed_bytes_or_nothing(at, byte):
    altered = ENVELOPE[:at] + bytes([byte]) + ENVELOPE[at + 1 :]
    with contextlib.suppress(SignatureError):
        assert verify(altered, KIND, TRUSTED).payload == b"payload"


@given(st.binary(max_size=300))
def test_bytes_that_are_no_envelope_are_refused_and_nothing_else_happens(data):
    with pytest.raises(SignatureError):
        verify(data, KIND, TRUSTED)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(JSON, JSON, JSON)
def test_json_of_another_shape_is_refused_and_nothing_else_happens(payload, kind, signatures):
    document = {"payload": payload, "payloadType": kind, "signatures": signatures}
    for data in (document, payload, {"payload": "", "payloadType": KIND, "signatures": [signatures]}):
        with pytest.raises(SignatureError):
            verify(json.dumps(data).encode(), KIND, TRUSTED)


@pytest.mark.req("R-SIGN-02")
@pytest.mark.fault("T40")
@pytest.mark.parametrize("trusted", [[], [BOB.public], [MALLORY.public, BOB.public]], ids=["none", "old", "others"])
def test_a_key_that_is_not_trusted_counts_for_nothing(trusted):
    with pytest.raises(SignatureError, match="0 of 1 needed signatures hold") as caught:
        verify(ENVELOPE, KIND, trusted)
    assert f"signed by {ALICE.public.keyid}" in str(caught.value)


@pytest.mark.fault("T40")
def test_one_of_three_signatures_is_not_two():
    with pytest.raises(SignatureError, match="1 of 2 needed"):
        verify(ENVELOPE, KIND, [*TRUSTED, MALLORY.public], threshold=2)
    assert len(verify(sign(KIND, b"p", [ALICE, BOB]), KIND, TRUSTED, threshold=2).keyids) == 2


@pytest.mark.req("R-SIGN-02")
def test_one_key_that_signs_or_is_trusted_twice_counts_once():
    twice = json.loads(ENVELOPE)
    twice["signatures"] *= 2
    again = PublicKey("alice once more", ALICE.public.raw)
    with pytest.raises(SignatureError, match="1 of 2 needed"):
        verify(json.dumps(twice).encode(), KIND, [ALICE.public, again], threshold=2)


@pytest.mark.req("R-SIGN-02")
def test_a_second_signature_is_of_the_same_bytes_and_leaves_the_first():
    first, second = generate("first"), generate("second")
    envelope = sign("application/x", b"payload", [first])
    both = add_signature(envelope, "application/x", second)
    assert verify(both, "application/x", [first.public, second.public], threshold=2).payload == b"payload"
    assert add_signature(both, "application/x", first) == both
    with pytest.raises(SignatureError, match="expected"):
        add_signature(envelope, "application/y", second)
    full = sign("application/x", b"payload", [generate() for _ in range(16)])
    with pytest.raises(SignatureError, match="16 signatures"):
        add_signature(full, "application/x", second)


def test_a_key_id_is_only_a_hint():
    claimed = json.loads(ENVELOPE)
    claimed["signatures"][0]["keyid"] = BOB.public.keyid
    assert verify(json.dumps(claimed).encode(), KIND, TRUSTED).keyids == (ALICE.public.keyid,)
    with pytest.raises(SignatureError, match="0 of 1"):
        verify(json.dumps(claimed).encode(), KIND, [BOB.public])
    del claimed["signatures"][0]["keyid"]
    assert verify(json.dumps(claimed).encode(), KIND, TRUSTED).keyids == (ALICE.public.keyid,)


def test_an_envelope_of_one_type_does_not_pass_for_another():
    with pytest.raises(SignatureError, match="signed as"):
        verify(ENVELOPE, KIND + "2", TRUSTED)
    relabelled = ENVELOPE.replace(KIND.encode(), b"application/x")
    with pytest.raises(SignatureError, match="0 of 1"):
        verify(relabelled, "application/x", TRUSTED)


def test_url_safe_base64_is_read_too():
    document = json.loads(sign(KIND, b"\xfb\xff\xfe", [ALICE]))
    document["payload"] = base64.urlsafe_b64encode(b"\xfb\xff\xfe").decode()
    assert verify(json.dumps(document).encode(), KIND, TRUSTED).payload == b"\xfb\xff\xfe"


@pytest.mark.parametrize(
    "text",
    [b'{"a": 1, "a": 2}', b'{"a": NaN}', b"[" * 100_000, b"\xff", b"", b"1" * 5000],
    ids=["a key twice", "NaN", "nested", "no UTF-8", "empty", "a number of 5000 digits"],
)
def test_json_that_two_readers_could_read_differently_is_refused(text):
    with pytest.raises(ValueError, match=r"."):
        parse_strict(text)


def test_an_envelope_is_small_and_has_few_signatures():
    many = json.loads(ENVELOPE)
    many["signatures"] *= 17
    with pytest.raises(SignatureError, match="17 signatures"):
        verify(json.dumps(many).encode(), KIND, TRUSTED)
    with pytest.raises(SignatureError, match="at most 1048576 are read"):
        verify(b" " * 2_000_000, KIND, TRUSTED)


def test_a_key_id_that_a_terminal_would_act_on_is_refused():
    document = json.loads(ENVELOPE)
    document["signatures"][0]["keyid"] = "\x1b[2J"
    with pytest.raises(SignatureError, match="plain text"):
        verify(json.dumps(document).encode(), KIND, TRUSTED)


def test_keys_go_through_files_and_keep_their_id(tmp_path):
    key = generate("maker")
    private, public = tmp_path / "maker.pem", tmp_path / "maker.pub"
    private.write_text(key.pem())
    private.chmod(0o600)
    public.write_text(key.public.pem())
    assert load_private(private) == key
    assert load_public(public) == PublicKey("maker", key.public.raw)
    assert load_public(key.public.pem(), "text").keyid == key.public.keyid
    assert len(key.public.keyid) == 16
    assert key.raw.hex() not in repr(key)


def test_a_private_key_that_others_can_read_is_refused(tmp_path):
    path = tmp_path / "maker.pem"
    path.write_text(generate().pem())
    path.chmod(0o640)
    with pytest.raises(SignatureError, match="chmod 600"):
        load_private(path)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "no public key in PEM form"),
        ("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "no public key in PEM form"),
        (generate().pem(), "is a private key"),
        (
            X25519,
            "no Ed25519 key",
        ),
    ],
    ids=["empty", "damaged", "private", "X25519"],
)
def test_what_is_no_public_key_is_refused_by_name(tmp_path, text, complaint):
    path = tmp_path / "key.pem"
    path.write_text(text)
    with pytest.raises(SignatureError, match=complaint) as caught:
        load_public(path)
    assert "key.pem" in str(caught.value)
    with pytest.raises(SignatureError, match="cannot be read"):
        load_public(tmp_path / "none.pem")
