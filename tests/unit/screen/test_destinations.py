"""Destinations and their queues."""

from __future__ import annotations

import pytest
from admin_kit import FakeTools, served

from appliance.config import Config
from appliance.deliver.channel import Sender
from appliance.deliver.retry import Judgement, Verdict
from appliance.deliver.stage import DeliverStage
from appliance.records import SYSTEM, Actor, ActorKind, UserRole
from appliance.screen.destinations import hint
from appliance.screen.tools import Probe
from appliance.store.destinations import tell_gone
from appliance.store.facts import Kind

pytestmark = pytest.mark.req("R-ADMIN-01")
PACS = {
    "kind": "dicom",
    "name": "PACS",
    "purpose": "test",
    "host": "10.1.2.10",
    "port": 104,
    "ae_title": "ARCH",
    "send": ["original"],
}
CONFIG = Config.model_validate({"destinations": [PACS]})
ADA = Actor(kind=ActorKind.PERSON, name="Ada", role="administrator")


@pytest.fixture
def owe(store, write, scenes):
    """``owe(state, ...)``: an object of a study of Wang that the PACS has not got."""

    def add(state="owed", error="", status=None):
        part = store.spool.open_part()
        part.write(memoryview(b"an image"))
        path = part.commit()

        def insert(tx):
            study = scenes.add_study(tx)
            return tx.insert(
                "delivery",
                destination="PACS",
                kind="statement",
                study_id=study,
                sop_instance_uid=f"1.2.{study}",
                sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
                transfer_syntax_uid="1.2.840.10008.1.2.1",
                path=path,
                sha256=part.data_sha256,
                state=state,
                next_at=tx.at,
                owed_at=tx.at,
                error=error,
                status=status,
            )

        return write(insert)

    return add


class _Channel:
    def takes(self, batch):
        return True

    def send(self, delivery, stream, size):
        return Judgement(verdict=Verdict.STORED, status=0)

    def release(self):
        pass

    interrupt = release


class _Sender(Sender):
    opened = 0

    def batch(self, owed):
        return owed

    def open(self, batch):
        self.opened += 1
        return _Channel()


@pytest.fixture
def sender():
    return _Sender()


@pytest.fixture
def stage(store, clock, sender):
    return DeliverStage(
        CONFIG.destinations[0],
        store.deliveries,
        store.spool,
        clock,
        box_ae_title="SCANSIDE",
        evaluation=True,
        sender=sender,
    )


def test_a_wrong_ae_title_is_told_in_plain_words_that_say_who_mends_it(store, clock, scenes):
    """M3: the words of the real peer's refusal, as dest test gives them."""
    tools = FakeTools()
    tools.answer = Probe(
        ok=False,
        ms=7,
        words="ARCH at 10.1.2.10:104 does not know our AE title 'SCANSIDE'; enter it there with this box's address",
    )
    with served(store, clock, scenes.packages(), config=CONFIG, tools=tools) as somebody:
        page = somebody("service").post("/destinations/PACS/test").text
    assert tools.asked == ["PACS"]
    assert "Ask its administrator to add this box" in page
    assert "does not know our AE title" in page
    (fact,) = store.journal.after(0, 10, (Kind.DESTINATION_TESTED,))
    assert fact.body == {"destination": "PACS", "ok": False, "ms": 7.0}
    assert fact.actor["name"] == "Sam Service"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("ARCH at h:1 does not answer to the AE title 'X'; correct ae_title of the destination", "another AE title"),
        ("status 0xA700: it is out of resources; look at its disk", "no room"),
        ("status 0xA900: it finds that the object does not match its SOP Class", "faulty"),
        ("h:1 answered with something that is no HTTP", "Something else answers"),
        ("HTTP 401: h refuses us", "refuses this box"),
        ("ARCH at h:1: connection refused", "cannot be reached"),
    ],
)
def test_what_a_peer_says_is_told_in_plain_words(words, told):
    assert told in hint(words)


def test_a_paused_destination_gets_nothing_until_somebody_resumes_it(store, clock, scenes, owe, stage, sender):
    owe()
    with served(store, clock, scenes.packages(), config=CONFIG) as somebody:
        ada = somebody("administrator")
        assert "Say why" in ada.post("/destinations/PACS/pause", reason=" ").text
        page = ada.post("/destinations/PACS/pause", reason="PACS is being moved").text
        assert "PAUSED" in page
        assert "PACS is being moved" in page
        for _ in range(3):
            stage.step()
            clock.advance(300)
        assert store.deliveries.backlog()[0].owed == 1
        assert sender.opened == 0  # it is not even called
        assert [issue.code for issue in store.issues.open()] == ["DESTINATION_PAUSED"]
        assert "PAUSED" not in ada.post("/destinations/PACS/resume").text
    stage.step()
    assert store.deliveries.backlog() == []
    assert store.issues.open() == []
    facts = store.journal.after(0, 10, (Kind.DESTINATION_PAUSED,))
    assert [fact.body["paused"] for fact in facts] == [True, False]


def test_a_pause_ends_a_batch_that_is_under_way(store, owe):
    owe()
    (owed,) = store.deliveries.next_owed("PACS", store.db.clock.now(), 10)
    assert store.deliveries.is_still_owed(owed)
    store.destinations.pause("PACS", "moved", ADA)
    assert not store.deliveries.is_still_owed(owed)


def test_send_all_again_drains_the_queue_also_of_what_was_set_aside(store, clock, scenes, owe, stage):
    """M4."""
    owe("parked", "status 0xA900: it finds that the object does not match its SOP Class", 0xA900)
    owe("owed")
    with served(store, clock, scenes.packages(), config=CONFIG) as somebody:
        service = somebody("service")
        page = service.get("/destinations").text
        assert "0xA900" in page
        assert "It took the object for faulty" in page
        service.post("/destinations/PACS/retry")
        stage.step()
        page = service.get("/destinations").text
    assert store.deliveries.backlog() == []
    assert "0xA900" not in page


def test_the_service_role_sees_ids_and_no_patient(store, clock, scenes, owe):
    owe("parked", "refused", 0xC000)
    with served(store, clock, scenes.packages(), config=CONFIG) as somebody:
        page = somebody("service").get("/destinations").text
    assert not [text for text in ("WANG", "王", "PID-88172355", "ACC2026", "1.2.826") if text in page]


def test_an_unknown_destination_is_told_so(store, clock, scenes):
    with served(store, clock, scenes.packages(), config=CONFIG) as somebody:
        assert somebody("service").post("/destinations/NOPE/pause", reason="x").status_code == 404
        assert somebody("technologist").get("/destinations").status_code == 403
        assert somebody(UserRole.RADIOLOGIST).post("/destinations/PACS/retry").status_code == 403


@pytest.mark.req("R-CUSTODY-06")
def test_an_administrator_gives_up_a_destination_that_is_gone_with_a_reason_and_its_name(store, clock, scenes, owe):
    """It may let images go, so nobody else does, and not by one press."""
    owe()
    owe("parked", "status 0xA900", 0xA900)
    tell_gone(store.db, ())
    with served(store, clock, scenes.packages(), config=Config()) as somebody:
        service, ada = somebody("service"), somebody("administrator")
        assert "2 objects are still owed to it" in service.get("/destinations").text
        assert 'data-testid="forget"' not in service.get("/destinations").text
        assert service.post("/destinations/PACS/forget", reason="replaced", typed="PACS").status_code == 403
        assert 'data-testid="forget"' in ada.get("/destinations").text
        assert "Say why" in ada.post("/destinations/PACS/forget", reason=" ", typed="PACS").text
        assert "as it stands there" in ada.post("/destinations/PACS/forget", reason="replaced", typed="PAC").text
        assert store.deliveries.backlog()[0].owed == 1
        assert [issue.code for issue in store.issues.open()] == ["DESTINATION_GONE"]
        done = ada.post("/destinations/PACS/forget", reason="replaced by ARCHIVE-2", typed="PACS")
        assert done.status_code == 200
        assert "PACS" not in done.text.partition("<main")[2]
        again = ada.post("/destinations/PACS/forget", reason="again", typed="PACS")
        assert again.status_code == 409
    assert store.deliveries.backlog() == []
    assert store.issues.open() == []
    (fact,) = store.journal.after(0, 10, (Kind.DESTINATION_FORGOTTEN,))
    assert (fact.actor["kind"], fact.actor["name"], fact.actor["role"]) == (
        "person",
        "Ada Administrator",
        "administrator",
    )
    assert fact.body == {
        "destination": "PACS",
        "reason": "replaced by ARCHIVE-2",
        "owed": 1,
        "held": 0,
        "parked": 1,
        "uncommitted": 0,
    }


@pytest.mark.req("R-CUSTODY-06")
def test_what_a_gone_destination_got_and_never_committed_to_is_shown_and_a_configured_one_is_not_given_up(
    store, clock, scenes, owe
):
    delivery = owe()
    store.deliveries.sent(delivery, 0)
    store.commitments.asked(store.commitments.begin("PACS", "9.1", [delivery]))
    with served(store, clock, scenes.packages(), config=Config()) as somebody:
        page = somebody("administrator").get("/destinations").text
    assert "1 objects that it got are not committed to" in page
    assert "still owed to it" not in page
    with served(store, clock, scenes.packages(), config=CONFIG) as somebody:
        ada = somebody("administrator")
        assert 'data-testid="forget"' not in ada.get("/destinations").text
        refused = ada.post("/destinations/PACS/forget", reason="x", typed="PACS")
    assert refused.status_code == 409
    assert store.db.one("SELECT forgotten_at FROM delivery")["forgotten_at"] is None


def test_nobody_pauses_twice_or_resumes_what_goes(store):
    from appliance.errors import ConflictError

    store.destinations.pause("PACS", "why", SYSTEM)
    with pytest.raises(ConflictError):
        store.destinations.pause("PACS", "why", SYSTEM)
    store.destinations.resume("PACS", SYSTEM)
    with pytest.raises(ConflictError):
        store.destinations.resume("PACS", SYSTEM)
