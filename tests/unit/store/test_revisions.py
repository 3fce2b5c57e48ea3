"""What completeness reads of the store: the pauses that a source makes within a series."""

from __future__ import annotations

import pytest


@pytest.fixture
def arrive(store, clock, make_header, receive):
    """``arrive("a", 1, after_s=0.5)``: image 1 of series a, so long after the image before it."""

    def image(series, number, *, after_s, source="CT-1"):
        clock.advance(after_s)
        header = make_header(
            number, sop_instance_uid=f"1.2.{ord(series)}.{number}", series_instance_uid=f"1.{ord(series)}"
        )
        store.studies.add_new(receive(header, source=source), ())

    return image


@pytest.mark.req("R-COMPLETE-03")
def test_gaps_of_interleaved_series_are_those_within_each_series(store, arrive):
    for number in range(1, 4):
        arrive("a", number, after_s=1.0)
        arrive("b", number, after_s=0.5)
    assert store.revisions.gaps_s("CT-1", longest_s=20) == pytest.approx([1.5] * 4)


def test_other_sources_and_images_sent_much_later_tell_nothing_of_a_sources_pauses(store, arrive):
    arrive("a", 1, after_s=0)
    arrive("a", 2, after_s=0.2)
    arrive("c", 1, after_s=0, source="CT-2")
    arrive("c", 2, after_s=7, source="CT-2")
    arrive("a", 3, after_s=3600)
    assert store.revisions.gaps_s("CT-1", longest_s=20) == pytest.approx([0.2])


def test_only_the_latest_images_count(store, arrive):
    for number in range(1, 6):
        arrive("a", number, after_s=float(number))
    assert store.revisions.gaps_s("CT-1", longest_s=20, limit=3) == pytest.approx([4.0, 5.0])


@pytest.mark.req("R-COMPLETE-03")
def test_association_on_which_no_image_can_come_holds_no_series_back(store, arrive):
    arrive("a", 1, after_s=0)
    peer = {"source": "CT-1", "calling_ae": "CT1", "called_ae": "BOX", "address": "127.0.0.1"}
    store.studies.open_association(**peer, can_store=False)
    assert not store.revisions.open_series()[0].peer_is_open
    store.studies.open_association(**peer)
    assert store.revisions.open_series()[0].peer_is_open
