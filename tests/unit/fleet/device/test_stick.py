"""A box without any network: what it brings by a file, what it is brought, and that neither is checked any less."""

from __future__ import annotations

import base64
import json

import pytest
from fleet_jobs_kit import ALWAYS, JobBox, keys
from hypothesis import given
from hypothesis import strategies as st
from package_rows_kit import NAME

from appliance.errors import ConfigError
from appliance.fleet.device.contents import Contents
from appliance.fleet.device.stick import Exporter, bring
from appliance.fleet.keys import DeviceKey, holds, public_of
from appliance.fleet.wire import (
    SIGNED,
    Batch,
    Get,
    Op,
    Reported,
    Status,
    Up,
    WireError,
    inflate,
    parse_topic,
    strict_json,
)
from appliance.fleet.wire_records import Health
from appliance.fleet.wire_stick import Export, bundle, claimed_sender, seal, split, unseal
from appliance.store.facts.fleet import FleetTold
from engines import signing

GAP = {"k": "gap", "skipped": "health", "first_seq": 1, "last_seq": 2, "n": 1}


@pytest.fixture
def box(tmp_path, clock):
    made = JobBox(tmp_path, clock=clock)
    yield made
    made.close()


def contents(box):
    return Contents(box.store, box.config, box.clock, quality=lambda _: "rtc")


@pytest.fixture
def export(box, tmp_path):
    """Write a file and read it as the server does."""

    def write(name="out.json", **more):
        told = Exporter(box.store, contents(box), box.inbox).write(tmp_path / name, **more)
        data = (tmp_path / name).read_bytes()
        assert claimed_sender(data) == box.inbox.identity.enrolment.device
        return told, unseal(data, public_of(box.inbox.identity.certificate_path.read_bytes()))

    return write


def tell(box, n):
    with box.store.db.write() as tx:
        for _ in range(n):
            tx.journal(FleetTold(record=GAP))


def payloads(read, name):
    mine = [letter for letter in read.letters if parse_topic(letter.topic)[1] is name]
    return [inflate(one.data) if one.properties.get("ce") == "gzip" else one.data for one in mine]


def seqs(read):
    return [record.seq for one in payloads(read, Up.REC) for record in Batch.unpack(one).recs]


# Out -----------------------------------------------------------------------------------------------------------------


@pytest.mark.req("R-FLEET-49")
def test_file_holds_what_the_link_would_say_each_part_signed_as_there(box, export):
    job = box.give(Op.PING)
    box.inbox.take_twin(box.twin(1, health_every_s=30))
    box.run()
    tell(box, 250)
    told, read = export()
    assert told.records == len(seqs(read)) >= 253
    assert (read.clk, read.nonce) == ("rtc", box.inbox.nonce())
    public = public_of(box.inbox.identity.certificate_path.read_bytes())
    batches = [letter for letter in read.letters if letter.topic.endswith(Up.REC)]
    assert len(batches) == told.batches >= 3
    signed = [one for one in read.letters if one.topic.endswith(tuple(SIGNED))]
    assert len(signed) == len(batches) + 2
    assert all(holds(public, one.topic, one.data, one.properties["sig"]) for one in signed)
    states = [r.d for one in payloads(read, Up.REC) for r in Batch.unpack(one).recs if r.d.k == "job"]
    assert [(one.job, one.state) for one in states] == [(job.id, "ACCEPTED"), (job.id, "SUCCEEDED")]
    assert Health.model_validate(strict_json(payloads(read, Up.HEALTH)[0])).mode == "evaluation"
    assert Reported.unpack(payloads(read, Up.TWIN)[0]).applied_dv == 1
    assert Get.unpack(payloads(read, Up.GET)[0]).ctr == 1
    status = Status.unpack(payloads(read, Up.STATUS)[0])
    assert (status.online, status.nonce) == (False, read.nonce)


@pytest.mark.req("R-FLEET-49")
def test_next_file_goes_on_where_the_last_one_ended_and_a_lost_one_is_written_again(box, export):
    tell(box, 3)
    _, first = export()
    assert export("again.json")[0].records == 0
    tell(box, 2)
    _, second = export()
    assert len(seqs(second)) == 2
    assert min(seqs(second)) > max(seqs(first))
    _, everything = export(everything=True)
    assert seqs(everything) == seqs(first) + seqs(second)


@pytest.mark.req("R-FLEET-49")
def test_file_for_the_next_fleet_holds_what_the_last_one_was_told(box, export):
    tell(box, 3)
    first, _ = export()
    assert export()[0].records == 0
    box.store.fleet.leave()
    again, _ = export()
    assert again.records == first.records > 0, "else nobody would ever acknowledge these rows"


def test_server_s_word_for_it_moves_the_cursor_as_over_the_network(box, export):
    tell(box, 130)
    _, read = export()
    ids = [Batch.unpack(one).batch for one in payloads(read, Up.REC)]
    assert box.store.fleet.place().cursor == 0
    (told,) = bring(box.ack(ids), box.store, box.inbox)
    assert (told.kind, told.result, told.ref) == ("ack", "TAKEN", str(len(ids)))
    assert box.store.fleet.place().cursor >= max(seqs(read))
    assert export(everything=True)[0].records == 0


@pytest.mark.req("R-FLEET-49")
def test_server_that_was_restored_asks_for_what_it_lost_once(box, export):
    tell(box, 5)
    _, read = export()
    ids = [Batch.unpack(one).batch for one in payloads(read, Up.REC)]
    bring(box.ack(ids), box.store, box.inbox)
    again = box.ack((), st=7, resend_after=0)
    bring(again, box.store, box.inbox)
    assert seqs(export()[1]) == seqs(read)
    bring(again, box.store, box.inbox)
    assert export()[0].records == 0, "played again it asks for nothing"


@pytest.mark.req("R-FLEET-49")
def test_what_the_link_has_on_its_way_goes_under_the_same_ids(box, export):
    tell(box, 3)
    batch = box.store.fleet.add_batch(0, box.store.journal.last_seq())
    _, read = export()
    assert Batch.unpack(payloads(read, Up.REC)[0]).batch == batch.id


@pytest.mark.req("R-FLEET-49")
def test_file_that_is_full_says_that_there_is_more(box, export, monkeypatch):
    monkeypatch.setattr("appliance.fleet.device.stick._ROOM", 2000)
    tell(box, 1000)
    told, read = export()
    assert told.more
    assert read.more
    seen = seqs(read)
    while told.more:
        told, read = export()
        seen += seqs(read)
    assert seen == sorted(set(seen))
    assert len(seen) >= 1000


@pytest.mark.req("R-FLEET-49")
def test_full_stick_is_told_and_nothing_counts_as_exported(box, tmp_path):
    tell(box, 3)
    with pytest.raises(ConfigError, match="cannot be written"):
        Exporter(box.store, contents(box), box.inbox).write(tmp_path / "no such folder" / "out.json")
    assert Exporter(box.store, contents(box), box.inbox).write(tmp_path / "out.json").records >= 3


@pytest.mark.req("R-FLEET-49")
def test_file_of_another_box_or_with_one_bit_changed_is_nobody_s(box, tmp_path, export):
    export()
    data = (tmp_path / "out.json").read_bytes()
    with pytest.raises(WireError):
        unseal(data, public_of_new_key())
    document = json.loads(data)
    payload = json.loads(base64.b64decode(document["payload"]))
    payload["ts"] += 1
    document["payload"] = base64.b64encode(json.dumps(payload).encode()).decode()
    with pytest.raises(WireError):
        unseal(json.dumps(document).encode(), public_of(box.inbox.identity.certificate_path.read_bytes()))


def public_of_new_key():
    return DeviceKey.generate()._key.public_key()


@pytest.mark.req("R-FLEET-49")
def test_key_of_one_box_signs_for_that_box_alone(box):
    key = DeviceKey.generate()
    mine = Export(tenant="tenant-0001", device="box-00000001", stream="0" * 26, ts=0, clk="ntp", nonce="", letters=())
    document = json.loads(seal(mine, key))
    document["signatures"][0]["keyid"] = "box-00000002"
    with pytest.raises(WireError):
        unseal(json.dumps(document).encode(), key._key.public_key())


# In ------------------------------------------------------------------------------------------------------------------


@pytest.mark.req("R-FLEET-49", "R-FLEET-44")
def test_signed_file_takes_a_model_out_of_a_box_that_has_no_network(box):
    box.serve("1.0.0")
    box.clk = "rtc"
    (told,) = bring(box.job(Op.MODEL_WITHDRAW, package=NAME, version="1.0.0"), box.store, box.inbox)
    assert (told.kind, told.result, told.ref) == ("job", "ACCEPTED", "1")
    box.quick.step()
    assert box.packages() == {"1.0.0": "withdrawn"}


@pytest.mark.req("R-FLEET-49")
def test_box_without_network_and_time_obeys_the_nonce_of_its_last_file(box, export):
    box.clk = "none"
    box.serve("1.0.0")
    withdraw = {"op": Op.MODEL_WITHDRAW, "package": NAME, "version": "1.0.0"}
    assert bring(box.job(**withdraw), box.store, box.inbox)[0].code == "NONCE"
    _, read = export()
    assert bring(box.job(**withdraw, nonce=read.nonce), box.store, box.inbox)[0].result == "ACCEPTED"


@pytest.mark.req("R-FLEET-49")
def test_file_of_many_is_taken_part_by_part_and_the_same_file_again_does_nothing(box):
    data = bundle([box.job(Op.RESTART), box.twin(1, window=ALWAYS), box.twin(2, packages=[{"name": "nobody"}])])
    found = bring(data, box.store, box.inbox)
    assert [(one.kind, one.result) for one in found] == [("job", "ACCEPTED"), ("twin", "APPLIED"), ("twin", "REFUSED")]
    assert found[2].code == "PACKAGE_UNKNOWN"
    box.run()
    again = bring(data, box.store, box.inbox)
    assert [one.result for one in again] == ["KNOWN", "UNFIT", "KNOWN"]
    box.run()
    assert box.acts.calls == ["restart"]


@pytest.mark.req("R-FLEET-49")
def test_stick_is_trusted_no_more_than_a_broker(box):
    serves = {"op": Op.MODEL_WITHDRAW, "package": NAME, "version": "1.0.0"}
    box.serve("1.0.0")
    tell(box, 1)
    batch = box.store.fleet.add_batch(0, box.store.journal.last_seq())
    forged = signing.sign(
        "application/vnd.scanside.ack.v1+json",
        signing.verify(box.ack([batch.id]), "application/vnd.scanside.ack.v1+json", [keys()["online"].public]).payload,
        [keys()["stranger"]],
    )
    data = bundle(
        [
            box.job(**serves, sign=("stranger", "release")),
            box.job(**serves, sign=("online",)),
            box.job(**serves, exp=1),
            box.job(**serves, aud="box-99999999"),
            box.twin(1, sign="stranger"),
            forged,
            box.ack([batch.id], aud="box-99999999"),
            signing.sign("application/x-other", b"{}", [keys()["online"]]),
        ]
    )
    found = bring(data, box.store, box.inbox)
    assert [one.result for one in found] == [
        *("FORGED", "REJECTED", "REJECTED", "UNFIT"),
        *("FORGED", "FORGED", "UNFIT", "UNFIT"),
    ]
    assert [one.code for one in found[1:3]] == ["SIGNATURES", "EXPIRED"]
    box.run()
    assert box.packages() == {"1.0.0": "live"}
    assert len(box.store.fleet.place().batches) == 1
    assert "FLEET_FORGED" in box.issues()


TREES = st.recursive(st.none() | st.text(max_size=5), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner))
FILES = TREES.map(lambda tree: json.dumps({"format": "scanside-fleet-import/1", "envelopes": tree}).encode())


@pytest.mark.req("R-FLEET-49")
@given(data=st.binary(max_size=300) | FILES)
def test_any_file_is_refused_in_words_of_ours(data):
    for read in (split, claimed_sender):
        try:
            read(data)
        except WireError:
            continue


@pytest.mark.req("R-FLEET-49")
def test_batches_of_a_file_are_cut_where_the_link_cuts_them(box, export):
    """So that a box that comes online sends the very same ones."""
    tell(box, 101)
    export()
    sizes = [len(box.store.fleet.facts(b.first_seq - 1, b.last_seq, contents(box).kinds)) for b in batches(box)]
    assert sizes[0] == 100


def batches(box):
    return box.store.fleet.place().batches
