"""Packages over a real HTTPS line from a real TUF repository: whole and proven, or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import json
import random
import shutil

import pytest
from fleet_jobs_kit import ALWAYS, keys
from fleet_link_kit import ConnectProxy
from tuf.api.metadata import Signature
from tuf_box_kit import DIGEST, GIB, TARGET, FetchBox, TufJobBox, TufServer, put_models, repository, scene

from appliance.errors import TransientError
from appliance.fleet.device.acts import ActRefused, Unfinished
from appliance.fleet.device.download import BLOCK_BYTES
from engines import signing

DATA = random.Random(7).randbytes(5 * BLOCK_BYTES + 12_345)


@pytest.fixture
def life(tmp_path):
    with scene(tmp_path, DATA) as made:
        yield made


def refused(life, **more):
    """The code; and nothing was left that another fetch could take for good."""
    with pytest.raises(ActRefused) as caught:
        life.box.fetch(**more)
    assert not list((life.box.folder / "downloads").glob("*/whole"))
    return caught.value.code


@pytest.fixture
def sent(wait_until):
    """``sent(life, n)``: the server has sent so many bytes of the package; it counts them after the box has them."""
    return lambda life, n: wait_until(lambda: life.server.sent[blob(life)] == n, what=f"{n} bytes were sent")


def blob(life):
    return "targets/" + life.kit.blob(TARGET).relative_to(life.kit.folder / "targets").as_posix()


# Good ----------------------------------------------------------------------------------------------------------------


@pytest.mark.req("R-FLEET-65")
def test_package_comes_whole_proven_and_only_once(life):
    path = life.box.fetch()
    assert path.read_bytes() == DATA
    assert life.box.told[-1] == 100.0
    assert life.box.told == sorted(life.box.told)
    before = list(life.server.asked)
    assert life.box.fetch() == path
    assert life.server.asked == before, "what is here needs no network"
    life.box.fetcher.done(TARGET)
    assert not path.exists()


@pytest.mark.req("R-FLEET-65")
def test_what_is_here_and_was_changed_is_fetched_again(life):
    path = life.box.fetch()
    path.write_bytes(DATA[:-1] + b"!")
    assert life.box.fetch().read_bytes() == DATA


@pytest.mark.req("R-FLEET-65")
@pytest.mark.parametrize("quarter", [1, 2, 3])
def test_line_that_is_cut_is_resumed_where_it_broke(life, quarter, sent):
    life.server.cut_after = len(DATA) * quarter // 4
    with pytest.raises(TransientError):
        life.box.fetch()
    assert life.box.fetch().read_bytes() == DATA
    sent(life, len(DATA))  # not one byte came twice
    assert [begin for path, begin in life.server.asked if path == blob(life)] == [0, len(DATA) * quarter // 4]


@pytest.mark.req("R-FLEET-65")
def test_after_a_power_cut_at_most_one_block_comes_twice(life, sent):
    """The part is there, what was written last is not what it was, and nobody could say goodbye."""
    life.server.cut_after = 3 * BLOCK_BYTES + 777
    with pytest.raises(TransientError):
        life.box.fetch()
    (part,) = (life.box.folder / "downloads").glob("*/part")
    (part.parent / "clean").unlink()
    torn = part.read_bytes()
    part.write_bytes(torn[: 3 * BLOCK_BYTES] + bytes(777))
    assert life.box.fetch().read_bytes() == DATA
    sent(life, len(DATA) + 777)  # less than a block


@pytest.mark.req("R-FLEET-65")
def test_part_that_rotted_is_fetched_from_its_start_and_no_attack_is_reported(life):
    life.server.cut_after = 3 * BLOCK_BYTES
    with pytest.raises(TransientError):
        life.box.fetch()
    (part,) = (life.box.folder / "downloads").glob("*/part")
    part.write_bytes(b"?" + part.read_bytes()[1:])
    with pytest.raises(TransientError, match="from its start"):
        life.box.fetch()
    assert life.box.fetch().read_bytes() == DATA


@pytest.mark.req("R-FLEET-65")
def test_site_that_lets_out_through_a_proxy_alone_gets_its_model(tmp_path):
    with contextlib.closing(ConnectProxy(credentials="box:se cret")) as proxy:
        url = proxy.url.replace("//", "//box:se%20cret@")
        with scene(tmp_path, b"x", proxy_url=url) as life:
            assert life.box.fetch().read_bytes() == b"x"
            assert len(proxy.asked) == len(life.server.asked)
            life.box.fetcher.proxy_url = proxy.url
            with pytest.raises(TransientError, match="407"):
                life.box.fetcher.small("trust.json")


@pytest.mark.req("R-FLEET-65")
def test_server_that_knows_no_parts_sends_all_of_it_again(life, sent):
    life.server.cut_after, life.server.ranges = 2 * BLOCK_BYTES, False
    with pytest.raises(TransientError):
        life.box.fetch()
    assert life.box.fetch().read_bytes() == DATA
    sent(life, len(DATA) + 2 * BLOCK_BYTES)


@pytest.mark.req("R-FLEET-65")
def test_another_version_never_goes_on_from_a_foreign_part(life):
    life.server.cut_after = 2 * BLOCK_BYTES
    with pytest.raises(TransientError):
        life.box.fetch()
    other = bytes(reversed(DATA))
    life.kit.add(TARGET, other, package="toy", version="2.0.0", digest=DIGEST)
    assert life.box.fetch().read_bytes() == other
    assert life.server.asked[-1] == (blob(life), 0)


@pytest.mark.req("R-FLEET-65")
def test_parts_that_no_job_waits_for_are_removed(life):
    life.server.cut_after = 2 * BLOCK_BYTES
    with pytest.raises(TransientError):
        life.box.fetch()
    life.kit.add("models/toy/3.0.0.zip", b"three", package="toy", version="3.0.0", digest="cc" * 32)
    life.box.wanted = {"models/toy/3.0.0.zip"}
    life.box.fetch("models/toy/3.0.0.zip", "cc" * 32)
    assert [path.name for path in (life.box.folder / "downloads").glob("*/*") if path.name == "part"] == []


@pytest.mark.req("R-FLEET-65")
def test_part_of_a_job_that_was_taken_back_gives_its_room_back_within_the_hour(life):
    life.server.cut_after = 2 * BLOCK_BYTES
    with pytest.raises(TransientError):
        life.box.fetch()
    downloads = life.box.folder / "downloads"
    life.box.fetcher.tidy()
    assert list(downloads.glob("*/part")), "a job waits for it"
    life.box.wanted = set()
    life.box.fetcher.tidy()
    assert list(downloads.glob("*/part")), "looked just now"
    life.box.clock.advance(3601)
    life.box.fetcher.tidy()
    assert not list(downloads.iterdir())


# The pace ------------------------------------------------------------------------------------------------------------


@pytest.mark.req("R-FLEET-65")
def test_download_keeps_to_the_wished_pace_and_a_new_wish_counts_at_once(life):
    rates = []

    def slower():
        came = sum(path.stat().st_size for path in (life.box.folder / "downloads").glob("*/part"))
        if came > len(DATA) // 2 and not rates:
            rates.append((life.box.waited, came))
            life.box.rate = 10_000
        return False

    life.box.rate, life.box.on_wait = 20_000, slower
    life.box.fetch()
    first_s, came = rates[0]
    assert came / first_s == pytest.approx(20_000, rel=0.1)
    assert (len(DATA) - came) / (life.box.waited - first_s) == pytest.approx(10_000, rel=0.1)


@pytest.mark.req("R-FLEET-65")
def test_long_download_gives_others_their_turn_and_goes_on_where_it_was(life):
    life.box.rate = 3_000  # seven minutes for all of it: two slices
    with pytest.raises(Unfinished):
        life.box.fetch()
    assert 290 < life.box.waited < 310
    assert life.box.fetch().read_bytes() == DATA
    assert life.server.asked[-1][1] > len(DATA) // 3


@pytest.mark.req("R-FLEET-65", "R-FLEET-69")
def test_job_with_a_long_download_takes_several_steps(tmp_path):
    """Twenty minutes at the pace that the server wished; no step of the stage takes more than five."""
    kit = repository(tmp_path / "tuf")
    put_models(kit, "2.0.0", size=1_300_000)
    with TufServer(kit.folder) as server:
        box = TufJobBox(tmp_path / "box", server.url)
        box.serve("1.0.0")
        box.inbox.take_twin(box.twin(1, window=ALWAYS, bytes_per_s=1024))
        job = box.install_job(soak_h=0, soak_studies=0)
        began, longest = box.clock.monotonic(), 0.0
        while box.state(job) != "SUCCEEDED":
            before = box.clock.monotonic()
            assert box.quick.step() | box.slow.step()
            longest = max(longest, box.clock.monotonic() - before)
        assert longest < 302
        assert box.clock.monotonic() - began == pytest.approx(1_300_000 / 1024, rel=0.1)
        facts = [fact.body for fact in box.store.journal.after(0, 10_000) if fact.kind == "fleet_job_step"]
        percents = [one["percent"] for one in facts if one["percent"] is not None]
        assert percents == sorted(percents)
        assert percents[-1] > 89
        assert len(percents) > 10
        begins = [begin for path, begin in server.asked if path.startswith("targets/")]
        assert len(begins) == 5
        assert begins == sorted(set(begins)), "each step goes on where the last one stood"
        box.close()


@pytest.mark.req("R-FLEET-65")
def test_box_that_ends_does_not_wait_for_its_download(life):
    life.box.rate, life.box.on_wait = 10_000, lambda: life.box.waited > 3
    with pytest.raises(Unfinished):
        life.box.fetch()
    assert life.box.waited < 4


@pytest.mark.req("R-FLEET-65")
def test_disk_without_room_for_it_twice_and_a_gibibyte_takes_nothing(life):
    life.box.room = 2 * len(DATA) + GIB - 1
    assert refused(life) == "DISK_FULL"
    assert life.server.sent[blob(life)] == 0
    life.box.room += 1
    life.box.fetch()


# Attacks -------------------------------------------------------------------------------------------------------------


@pytest.mark.fault("T40")
@pytest.mark.req("R-FLEET-66")
@pytest.mark.parametrize("twist", ["other", "longer", "shorter"])
def test_other_bytes_than_the_metadata_say_are_refused(life, twist):
    data = {"other": b"!" + DATA[1:], "longer": DATA + b"!", "shorter": DATA[:-1]}[twist]
    life.server.twist[blob(life)] = data
    assert refused(life) == "TUF_DAMAGED"
    assert life.server.sent[blob(life)] <= len(DATA) + 1
    del life.server.twist[blob(life)]
    assert life.box.fetch().read_bytes() == DATA


@pytest.mark.req("R-FLEET-66")
@pytest.mark.parametrize("name", ["root.json", "2.root.json", "timestamp.json", "1.snapshot.json", "2.0.0.zip"])
def test_endless_data_end(life, name):
    if name == "2.root.json":
        life.server.twist[name] = b"{"
    life.server.endless = newest(life, "snapshot").name if "snapshot" in name else name
    assert refused(life) == "TUF_DAMAGED"
    assert life.server.sent.total() < 50_000_000, "what is beyond lay in the buffers of the line"


def tampered(document):
    document["signed"]["version"] += 1


def unsigned(document):
    document["signatures"] = []


def misspelt(document):
    document["signatures"][0]["sig"] = "no number"


@pytest.mark.req("R-FLEET-66")
@pytest.mark.parametrize("change", [tampered, unsigned, misspelt])
@pytest.mark.parametrize("role", ["root", "timestamp", "snapshot", "targets"])
def test_metadata_that_somebody_changed_are_refused(life, role, change):
    paths = [path for path in (life.kit.folder / "metadata").iterdir() if role in path.name]
    for path in paths:
        document = json.loads(path.read_text())
        change(document)
        path.write_text(json.dumps(document))
    assert refused(life) in {"TUF_FORGED", "TUF_DAMAGED"}


def newest(life, role):
    found = (life.kit.folder / "metadata").glob(f"*.{role}.json")
    return max(found, key=lambda path: int(path.name.split(".")[0]), default=None)


@pytest.mark.fault("T40")
@pytest.mark.req("R-FLEET-66")
def test_signatures_of_a_stranger_count_nothing(tmp_path):
    """A whole repository, right in every way but by keys that the box's enrolment does not name."""
    with scene(tmp_path, b"x") as life:
        kit = repository(tmp_path / "evil", release=("stranger",))
        kit.add(TARGET, b"evil", digest=DIGEST)
        life.server.folder = kit.folder
        assert refused(life) == "TUF_FORGED"


@pytest.mark.fault("T40")
@pytest.mark.req("R-FLEET-66")
def test_first_root_needs_as_many_release_keys_as_the_enrolment_says_and_online_ones_count_nothing(tmp_path):
    one = repository(tmp_path / "one")
    one.add(TARGET, b"x", digest=DIGEST)
    for name in ("root.json", "1.root.json"):
        root = one.metadata(name)
        root.signatures["online"] = Signature("online", keys()["online"].sign(root.signed_bytes).hex())
        root.to_file(str(one.folder / "metadata" / name))
    two = repository(tmp_path / "two", release=("release", "release-2"), threshold=2)
    two.add(TARGET, b"x", digest=DIGEST)
    with TufServer(one.folder) as server:
        box = FetchBox(tmp_path / "box", server.url, release=("release", "release-2", "online"), threshold=2)
        with pytest.raises(ActRefused) as caught:
            box.fetch()
        assert caught.value.code == "TUF_FORGED"
        server.folder = two.folder
        assert box.fetch().read_bytes() == b"x"
        box.close()


@pytest.mark.fault("T40")
@pytest.mark.req("R-FLEET-66")
def test_older_metadata_than_were_seen_are_refused(life, tmp_path):
    old = shutil.copytree(life.kit.folder, tmp_path / "old")
    life.kit.add("models/toy/3.0.0.zip", b"three", digest="cc" * 32)
    life.box.fetch()
    life.box.fetcher.done(TARGET)
    life.server.folder = old
    assert refused(life) == "TUF_ROLLED_BACK"


@pytest.mark.req("R-FLEET-66")
def test_frozen_repository_stops_new_installs(tmp_path):
    import datetime as dt

    kit = repository(tmp_path / "tuf", now=dt.datetime.now(dt.timezone.utc) - dt.timedelta(days=8))
    kit.add(TARGET, b"x", digest=DIGEST)
    with TufServer(kit.folder) as server:
        box = FetchBox(tmp_path / "box", server.url)
        with pytest.raises(ActRefused) as caught:
            box.fetch()
        assert caught.value.code == "TUF_EXPIRED"
        kit.refresh(dt.datetime.now(dt.timezone.utc))
        assert box.fetch().read_bytes() == b"x"
        box.close()


@pytest.mark.req("R-FLEET-66")
def test_target_that_the_metadata_do_not_know_is_refused(life):
    assert refused(life, target="models/toy/9.9.9.zip") == "TUF_UNKNOWN_TARGET"
    life.kit.withdraw(TARGET)
    assert refused(life) == "TUF_UNKNOWN_TARGET"


@pytest.mark.req("R-FLEET-66")
def test_target_of_another_package_than_the_job_names_is_refused(life):
    assert refused(life, digest="dd" * 32) == "DIGEST"


@pytest.mark.req("R-FLEET-66")
@pytest.mark.parametrize(("least", "code"), [("99.0.0", "AGENT_TOO_OLD"), ("next", "AGENT_TOO_OLD"), ("0.0.9", "")])
def test_package_for_newer_software_waits_for_it(life, least, code):
    life.kit.add(TARGET, b"new", digest=DIGEST, min_agent=least)
    if code:
        assert refused(life) == code
    else:
        assert life.box.fetch().read_bytes() == b"new"


# Bad lines -----------------------------------------------------------------------------------------------------------


@pytest.mark.req("R-FLEET-65")
@pytest.mark.parametrize("silent", ["root.json", "timestamp.json", "2.0.0.zip"])
def test_server_that_says_nothing_is_left(life, silent):
    life.box.fetcher.stall_s = 0.2
    life.server.silent = silent
    with pytest.raises(TransientError):
        life.box.fetch()
    life.server.silent, life.box.fetcher.stall_s = "", 30.0
    assert life.box.fetch().read_bytes() == DATA


@pytest.mark.req("R-FLEET-65")
def test_server_that_trickles_is_left_and_what_came_stays(life):
    class Ticking(type(life.box.clock)):
        """Every look at it takes seconds, as every byte does."""

        def monotonic(self):
            self.advance(1.0)
            return super().monotonic()

    life.box.fetcher.clock = Ticking()
    life.server.trickle = 0.0
    with pytest.raises(TransientError, match="trickles"):
        life.box.fetch()
    (part,) = (life.box.folder / "downloads").glob("*/part")
    assert 0 < part.stat().st_size < 4096
    life.box.fetcher.clock = life.box.clock
    life.server.trickle = None
    assert life.box.fetch().read_bytes() == DATA


@pytest.mark.req("R-FLEET-65")
@pytest.mark.parametrize("name", ["root.json", "timestamp.json"])
def test_line_that_is_cut_within_metadata_is_no_attack(life, name):
    life.server.cut_path, life.server.cut_after = f"metadata/{name}", 100
    with pytest.raises(TransientError, match="cut off"):
        life.box.fetch()
    assert life.box.fetch().read_bytes() == DATA


@pytest.mark.req("R-FLEET-65")
def test_server_without_a_repository_is_asked_again_later(life):
    shutil.rmtree(life.kit.folder / "metadata")
    with pytest.raises(TransientError):
        life.box.fetch()


@pytest.mark.req("R-FLEET-65")
def test_whoever_has_another_certificate_is_told_nothing(tmp_path):
    with scene(tmp_path, b"x") as life:
        (life.box.folder / "ca.crt").write_bytes((life.box.folder / "device.crt").read_bytes())
        with pytest.raises(TransientError):
            life.box.fetch()
        assert life.server.asked == []


# Damage here ---------------------------------------------------------------------------------------------------------


@pytest.mark.req("R-FLEET-66")
@pytest.mark.parametrize("damage", [b"", b"{}", b"\0" * 100], ids=["empty", "other", "zeros"])
def test_damaged_metadata_of_our_own_are_brought_anew(life, damage):
    life.box.fetch()
    for name in ("timestamp.json", "snapshot.json", "targets.json", "root_history/1.root.json"):
        (life.box.folder / "tuf" / name).write_bytes(damage)
        life.box.fetcher.done(TARGET)
        assert life.box.fetch().read_bytes() == DATA
    assert (life.box.folder / "tuf.damaged" / "root_history" / "1.root.json").read_bytes() == damage


@pytest.mark.fault("T40")
@pytest.mark.req("R-FLEET-66")
def test_lost_metadata_never_bring_an_older_root_back(life, tmp_path):
    """A root whose keys were given up must not come again, whatever became of the box's disk."""
    old = shutil.copytree(life.kit.folder, tmp_path / "old")
    life.kit.rotate(release=[keys()["release-2"]])
    life.box.fetch()
    life.box.fetcher.done(TARGET)
    shutil.rmtree(life.box.folder / "tuf")
    life.server.folder = old
    assert refused(life) == "TUF_ROLLED_BACK"
    life.server.folder = life.kit.folder
    assert life.box.fetch().read_bytes() == DATA, "a root between is signed by the keys of the enrolment"


@pytest.mark.req("R-FLEET-66")
def test_many_rotations_ago_is_not_too_long_ago(life):
    made = [signing.generate(f"r{n}") for n in range(4)]
    for key in made:
        life.kit.rotate(release=[key])
    assert life.box.fetch().read_bytes() == DATA
    assert (life.box.folder / "tuf" / "root.json").readlink().name == "5.root.json"


@pytest.mark.req("R-FLEET-66")
def test_keys_that_change_twice_while_a_box_reads_are_no_attack(life, monkeypatch):
    life.box.fetch()
    answered, made = life.server.answer, iter([signing.generate("r1"), signing.generate("r2")])

    def answer(handler):
        asked = handler.path.endswith("/timestamp.json")  # the box has just learnt that there is no other root
        for key in made if asked else ():
            life.kit.rotate(release=[key])
        answered(handler)

    monkeypatch.setattr(life.server, "answer", answer)
    (life.box.folder / "downloads").rename(life.box.folder / "gone")
    assert life.box.fetch().read_bytes() == DATA
    assert next(made, None) is None
    assert (life.box.folder / "tuf" / "root.json").readlink().name == "3.root.json"


def test_hash_of_the_folder_is_of_the_file(life):
    path = life.box.fetch()
    assert path.parent.name == hashlib.sha256(DATA).hexdigest()
