"""Models on a stick: the same checks as over the network, and nothing of a hostile file stays."""

from __future__ import annotations

import datetime as dt
import io
import os
import shutil
import stat
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from fleet_jobs_kit import ALWAYS, keys
from hypothesis import given, settings
from hypothesis import strategies as st
from package_rows_kit import NAME
from tuf_box_kit import GIB, TufJobBox, TufServer, put_models, repository, stick_files

from appliance.errors import StoreError
from appliance.fleet.device.stick import bring
from appliance.fleet.device.stick_files import take_stick
from appliance.fleet.wire import Op, WireError
from appliance.fleet.wire_stick import is_stick, open_stick, pack_stick, split

NOWHERE = "https://localhost:9"


@pytest.fixture
def kit(tmp_path):
    made = repository(tmp_path / "tuf")
    put_models(made, "2.0.0", size=100_000)
    return made


@pytest.fixture
def box(tmp_path):
    """Without any network."""
    made = TufJobBox(tmp_path / "box", NOWHERE)
    made.serve("1.0.0")
    made.inbox.take_twin(made.twin(1, window=ALWAYS))
    yield made
    made.close()


def carry(box, kit, path, envelopes=(), targets=("toy-2.0.0.zip",)):
    """What ``scanside fleet import`` does with a file that the server wrote."""
    pack_stick(path, envelopes, stick_files(kit, *targets))
    with open_stick(path) as stick:
        take_stick(box.folder, stick, lambda _: box.room)
        return bring(stick.envelopes(), box.store, box.inbox)


def install(box, **more):
    args = {"package": NAME, "version": "2.0.0", "digest": "bb" * 32, "target": "toy-2.0.0.zip"}
    return box.job(Op.MODEL_INSTALL, **args, soak_h=0, soak_studies=0, **more)


def state(box):
    row = box.store.fleet_jobs.all()[0]
    return (row.state, row.code) if row.code else row.state


# Good ----------------------------------------------------------------------------------------------------------------


@pytest.mark.req("R-FLEET-68")
def test_box_without_network_gets_its_model_and_the_order_for_it_by_one_file(box, kit, tmp_path):
    (told,) = carry(box, kit, tmp_path / "in.zip", [install(box)])
    assert told.result == "ACCEPTED"
    box.run()
    assert state(box) == "SUCCEEDED"
    assert box.packages() == {"1.0.0": "retired", "2.0.0": "live"}
    left = sorted(path.name for path in box.folder.iterdir() if path.name.startswith(("stick", "downloads")))
    assert left == ["downloads"]
    assert not list((box.folder / "downloads").iterdir())


@pytest.mark.req("R-FLEET-68")
def test_stick_stays_while_another_job_waits_for_it(box, kit, tmp_path):
    put_models(kit, "3.0.0", size=100_000)
    first = install(box)
    other = box.job(
        Op.MODEL_INSTALL, package="other", version="3.0.0", digest="cc" * 32, target="toy-3.0.0.zip", soak_h=0
    )
    carry(box, kit, tmp_path / "in.zip", [first, other], ["toy-2.0.0.zip", "toy-3.0.0.zip"])
    while not box.packages().get("2.0.0"):
        assert box.quick.step() | box.slow.step()
    assert (box.folder / "stick").is_dir()
    box.run()
    assert not (box.folder / "stick").exists()


@pytest.mark.req("R-FLEET-68")
def test_stick_of_another_order_stays_for_it(box, kit, tmp_path):
    """It came while this order was under way, and its own follows within the second."""
    put_models(kit, "3.0.0", size=100_000)
    carry(box, kit, tmp_path / "in.zip", targets=["toy-3.0.0.zip"])
    box.fetcher.done("toy-2.0.0.zip")
    assert (box.folder / "stick").is_dir()


@pytest.mark.req("R-FLEET-68")
def test_what_a_stick_lacks_comes_over_the_network(kit, tmp_path):
    with TufServer(kit.folder) as server:
        box = TufJobBox(tmp_path / "online", server.url)
        box.inbox.take_twin(box.twin(1, window=ALWAYS))
        carry(box, kit, tmp_path / "in.zip", [install(box)], targets=[])
        (box.folder / "stick" / "metadata" / "timestamp.json").unlink()
        box.run()
        assert (state(box), box.packages()) == ("SUCCEEDED", {"2.0.0": "live"})
        box.close()


@pytest.mark.req("R-FLEET-67", "R-FLEET-68")
def test_keys_that_changed_after_a_stick_was_written_are_the_server_s_to_tell(kit, tmp_path):
    with TufServer(kit.folder) as server:
        box = TufJobBox(tmp_path / "online", server.url)
        carry(box, kit, tmp_path / "in.zip", targets=["trust.json"])
        kit.rotate(release=[keys()["release-2"]])
        box.give(Op.ROOT_UPDATE)
        box.run()
        assert state(box) == "SUCCEEDED", "and not ALREADY, by which the server would take it for told"
        assert box.inbox.identity.trust == kit.trust
        box.close()


@pytest.mark.req("R-FLEET-67", "R-FLEET-68")
def test_box_without_network_takes_the_keys_of_a_stick(box, kit, tmp_path):
    kit.rotate(release=[keys()["release-2"]])
    carry(box, kit, tmp_path / "in.zip", [box.job(Op.ROOT_UPDATE)], targets=["trust.json"])
    box.run()
    assert (state(box), box.inbox.identity.trust) == ("SUCCEEDED", kit.trust)


@pytest.mark.req("R-FLEET-68")
def test_stick_that_no_job_ever_used_goes_when_it_can_prove_nothing_any_more(box, kit, tmp_path):
    carry(box, kit, tmp_path / "in.zip")
    stick, now = box.folder / "stick", box.clock.now().timestamp()
    os.utime(stick, (now, now - 7 * 86_400))
    box.run()
    assert stick.is_dir()
    os.utime(stick, (now, now - 9 * 86_400))
    box.clock.advance(3601)
    box.run()
    assert not stick.exists()


@pytest.mark.req("R-FLEET-68")
def test_next_file_takes_the_place_of_the_last(box, kit, tmp_path):
    carry(box, kit, tmp_path / "in.zip")
    put_models(kit, "3.0.0", size=100_000)
    carry(box, kit, tmp_path / "in.zip", targets=["toy-3.0.0.zip"])
    names = [path.name for path in (box.folder / "stick").rglob("*.zip")]
    pack_stick(tmp_path / "orders.zip", [], {})
    with open_stick(tmp_path / "orders.zip") as stick:
        take_stick(box.folder, stick)
    assert [path.name for path in (box.folder / "stick").rglob("*.zip")] == names, "one with orders alone leaves it"
    assert [path.name.partition(".")[2] for path in (box.folder / "stick").rglob("*.zip")] == ["toy-3.0.0.zip"]


@pytest.mark.req("R-FLEET-68")
def test_same_contents_make_the_same_file(kit, tmp_path):
    for name in ("one", "two"):
        pack_stick(tmp_path / name, [b'{"payloadType": "x"}'], stick_files(kit))
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    assert is_stick(tmp_path / "one")
    with open_stick(tmp_path / "one") as stick:
        assert split(stick.envelopes()) == [("x", b'{"payloadType": "x"}')]


# Refused by TUF ------------------------------------------------------------------------------------------------------


@pytest.mark.req("R-FLEET-68", "R-FLEET-66")
def test_older_stick_than_was_seen_installs_nothing(box, kit, tmp_path):
    old = repository(tmp_path / "other")
    shutil.rmtree(old.folder)
    shutil.copytree(kit.folder, old.folder)
    put_models(kit, "3.0.0", size=100_000)
    carry(box, kit, tmp_path / "in.zip")
    box.fetcher.small("trust.json")
    carry(box, old, tmp_path / "in.zip", [install(box)])
    box.run()
    assert (state(box), box.packages()) == (("FAILED", "TUF_ROLLED_BACK"), {"1.0.0": "live"})


@pytest.mark.req("R-FLEET-68", "R-FLEET-66")
def test_stick_that_lay_about_for_weeks_installs_nothing(box, tmp_path):
    kit = repository(tmp_path / "old", now=dt.datetime.now(dt.timezone.utc) - dt.timedelta(days=8))
    put_models(kit, "2.0.0")
    carry(box, kit, tmp_path / "in.zip", [install(box)])
    box.run()
    assert (state(box), box.packages()) == (("FAILED", "TUF_EXPIRED"), {"1.0.0": "live"})


@pytest.mark.req("R-FLEET-68", "R-FLEET-66")
def test_swapped_package_on_a_stick_is_not_installed(box, kit, tmp_path):
    kit.blob("toy-2.0.0.zip").write_bytes(b"evil".ljust(100_000))
    carry(box, kit, tmp_path / "in.zip", [install(box)])
    box.run()
    assert (state(box), box.packages()) == (("FAILED", "TUF_DAMAGED"), {"1.0.0": "live"})


# Hostile files -------------------------------------------------------------------------------------------------------


def zipped(path, members, *, packing=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", packing) as made:
        for name, data, *mode in members:
            member = zipfile.ZipInfo(name)
            member.compress_type = packing
            member.external_attr = (mode[0] if mode else stat.S_IFREG | 0o644) << 16
            made.writestr(member, data)
    return path


ENVELOPES = ("envelopes.json", '{"format": "scanside-fleet-import/1", "envelopes": []}')
HOSTILE = {
    "no envelopes": [("tuf/metadata/root.json", "{}")],
    "up": [ENVELOPES, ("tuf/targets/../../../trust.json", "evil")],
    "root": [ENVELOPES, ("/tuf/targets/x", "evil")],
    "hidden": [ENVELOPES, ("tuf/targets/.x", "evil")],
    "elsewhere": [ENVELOPES, ("trust.json", "evil")],
    "backslash": [ENVELOPES, ("tuf\\targets\\x", "evil")],
    "link": [ENVELOPES, ("tuf/targets/x", "/etc/passwd", stat.S_IFLNK | 0o777)],
    "device": [ENVELOPES, ("tuf/targets/x", "", stat.S_IFCHR | 0o666)],
    "huge metadata": [ENVELOPES, ("tuf/metadata/root.json", bytes(9 * 1024 * 1024))],
    "many": [ENVELOPES, *((f"tuf/targets/{n}", "") for n in range(1000))],
}


@pytest.mark.req("R-FLEET-68")
@pytest.mark.fault("T40")
@pytest.mark.parametrize("members", HOSTILE.values(), ids=HOSTILE)
def test_hostile_zip_file_is_refused_before_anything_is_written(tmp_path, members):
    with pytest.raises(WireError), open_stick(zipped(tmp_path / "in.zip", members)):
        pass


@pytest.mark.req("R-FLEET-68")
@pytest.mark.fault("T40")
def test_bomb_is_refused(tmp_path):
    path = zipped(tmp_path / "in.zip", [ENVELOPES, ("tuf/targets/x", bytes(50_000_000))], packing=zipfile.ZIP_DEFLATED)
    with pytest.raises(WireError), open_stick(path):
        pass


@pytest.mark.req("R-FLEET-68")
@pytest.mark.fault("T40")
def test_parts_that_share_their_bytes_are_a_bomb(tmp_path):
    """The overlapping kind: many names in the directory, one local entry."""
    plain = zipped(tmp_path / "in.zip", [ENVELOPES, *((f"tuf/targets/x{n}", bytes(5000)) for n in range(9))])
    with zipfile.ZipFile(plain) as read:
        first = read.getinfo("tuf/targets/x0").header_offset
        directory = read.start_dir
    raw = plain.read_bytes()
    end = raw[directory:]
    for n in range(1, 9):
        at = end.index(f"tuf/targets/x{n}".encode()) - 4
        end = end[:at] + first.to_bytes(4, "little") + end[at + 4 :]
    cut = raw[: first + 5100]
    tail = bytearray(end)
    tail[-6:-2] = len(cut).to_bytes(4, "little")
    plain.write_bytes(cut + bytes(tail))
    with pytest.raises(WireError), open_stick(plain):
        pass


@pytest.mark.req("R-FLEET-68")
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_name_that_stands_twice_is_refused(tmp_path):
    path = zipped(tmp_path / "in.zip", [ENVELOPES, ("tuf/targets/x", "a"), ("tuf/targets/x", "b")])
    with pytest.raises(WireError), open_stick(path):
        pass


@pytest.mark.req("R-FLEET-68")
def test_disk_without_room_and_a_damaged_stick_leave_nothing(box, kit, tmp_path):
    box.room = GIB
    with pytest.raises(StoreError, match="make room"):
        carry(box, kit, tmp_path / "in.zip")
    assert not list(box.folder.glob("stick*"))
    path = tmp_path / "in.zip"
    raw = path.read_bytes()
    at = raw.index(b"bbbb" * 8)
    path.write_bytes(raw[:at] + b"c" + raw[at + 1 :])
    with pytest.raises(WireError), open_stick(path) as stick:
        take_stick(box.folder, stick)
    assert not list(box.folder.glob("stick*"))


@pytest.mark.req("R-FLEET-68")
@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_change_of_a_stick_is_its_contents_or_a_wire_error(data):
    plain = io.BytesIO()
    with zipfile.ZipFile(plain, "w") as made:
        made.writestr(*ENVELOPES)
        made.writestr("tuf/metadata/root.json", "{}" * 20)
    raw = bytearray(plain.getvalue())
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    raw = raw[: data.draw(st.integers(0, len(raw)) | st.just(len(raw)))]
    with TemporaryDirectory() as folder:
        path = Path(folder) / "in.zip"
        path.write_bytes(raw)
        try:
            with open_stick(path) as stick:
                stick.envelopes()
                for name in stick.files:
                    into = io.BytesIO()
                    stick.copy(name, into)
                    assert len(into.getvalue()) == stick.files[name]
        except WireError:
            pass
