"""Who is let in, by AE titles and address, and what the journal then says."""

from __future__ import annotations

import pytest

from appliance.intake.peers import Peers, Rejection, SourceSettings, harmless
from appliance.records import SourceMode, SourceRef

CT1 = SourceSettings(
    name="ct1", ae_title="CT", addresses=("10.0.0.5", "10.1.0.0/16", "fd00::/64"), assume_charset="GB18030"
)
ANYWHERE = SourceSettings(name="ct-any", ae_title="CT", mode=SourceMode.INLINE, stat=True)
XRAY = SourceSettings(name="xray", ae_title=" DX ")


@pytest.mark.req("R-INTAKE-06")
@pytest.mark.parametrize("address", ["10.0.0.5", "10.1.200.3", "::ffff:10.0.0.5", "fd00::17", "fd00::17%eth0"])
def test_source_is_found_by_ae_title_and_address(address):
    assert Peers((CT1,)).resolve("CT", "SCANSIDE", address) == SourceRef(
        name="ct1", mode=SourceMode.PARALLEL, assume_charset="GB18030"
    )


@pytest.mark.req("R-INTAKE-06")
def test_known_ae_title_from_another_address_is_refused_and_the_message_names_both():
    found = Peers((CT1,)).resolve("CT", "SCANSIDE", "10.0.0.6")

    assert isinstance(found, Rejection)
    assert (found.result, found.source, found.reason) == (1, 1, 3)
    assert "10.0.0.6" in found.message
    assert "ct1" in found.message


def test_source_that_names_the_address_goes_before_one_that_takes_any():
    peers = Peers((ANYWHERE, CT1))
    assert peers.resolve("CT", "X", "10.0.0.5").name == "ct1"
    assert peers.resolve("CT", "X", "192.168.1.1") == SourceRef(name="ct-any", mode=SourceMode.INLINE, stat=True)


def test_spaces_around_ae_titles_do_not_count():
    assert Peers((XRAY,)).resolve("DX  ", "SCANSIDE", "127.0.0.1").name == "xray"


def test_ae_titles_are_case_sensitive():
    assert isinstance(Peers((XRAY,)).resolve("dx", "SCANSIDE", "127.0.0.1"), Rejection)


def test_unknown_source_is_refused_and_the_journal_shows_who_knocked():
    found = Peers((CT1,)).resolve("MR7", "SCANSIDE", "10.0.0.9")

    assert isinstance(found, Rejection)
    assert "'MR7' from 10.0.0.9" in found.message
    assert "sources" in found.message


def test_unknown_source_is_parallel_where_it_is_accepted():
    found = Peers(unknown_sources="accept").resolve("MR7", "SCANSIDE", "10.0.0.9")
    assert found == SourceRef(name="unknown MR7 10.0.0.9", mode=SourceMode.PARALLEL)


def test_another_called_ae_title_is_refused_where_ours_is_required():
    found = Peers((XRAY,), required_called_ae="SCANSIDE").resolve("DX", "PACS", "127.0.0.1")

    assert isinstance(found, Rejection)
    assert (found.result, found.source, found.reason) == (1, 1, 7)
    assert Peers((XRAY,), required_called_ae="SCANSIDE").resolve("DX", "SCANSIDE ", "127.0.0.1").name == "xray"


@pytest.mark.fault("T23")
@pytest.mark.parametrize("text", ["../../etc", "<script>x</script>", "a\r\nb", "\x1b[31m", "\x00", "界" * 40])
def test_hostile_ae_titles_are_harmless_in_journal_and_names(text):
    assert not set(harmless(text)) & set("/<>\r\n\x1b\x00'\"&;界")
    assert len(harmless(text)) <= 16
    found = Peers(unknown_sources="accept").resolve(text, text, "127.0.0.1")
    assert not set(found.name) & set("/<>\r\n\x1b\x00界")


def test_ordinary_ae_titles_are_shown_as_they_are():
    assert harmless(" CT#1_A (2) ") == "CT#1_A (2)"
