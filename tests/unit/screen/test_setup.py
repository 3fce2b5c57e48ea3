"""The set-up of a new box; its whole way through a browser is tests/browser/test_admin.py."""

from __future__ import annotations

import pytest
from admin_kit import FakeTools, served, settings_in

from appliance.errors import ConflictError
from appliance.records import SYSTEM, UserRole
from appliance.screen.tools import Probe, TestState
from appliance.store.facts import Kind
from appliance.store.facts.intake import Refused
from appliance.store.setup import MAX_TRIES
from appliance.web.passwords import Passwords
from appliance.web.throttle import Rate

pytestmark = pytest.mark.req("R-ADMIN-07")
PASSWORD = "brisk otter 71 lamp"  # noqa: S105 - of nobody


@pytest.fixture
def tools(tmp_path):
    return FakeTools(settings_in(tmp_path, f"state_path: {tmp_path}\n"))


@pytest.fixture
def somebody(store, clock, scenes, tools):
    with served(store, clock, scenes.packages(), config=tools.settings.loaded.config, tools=tools) as opened:
        yield opened


def begin(person, code, **changes):
    fields = {"name": "ada", "full_name": "Ada Lind", "password": PASSWORD, "again": PASSWORD} | changes
    return person.post("/setup", code=code, **fields)


def test_the_code_makes_one_administrator_who_is_signed_in_and_then_opens_nothing_any_more(store, somebody):
    """M7."""
    code = store.setup.new_code()
    ada = somebody()
    page = begin(ada, code.lower().replace("-", " "))
    assert page.url.path == "/setup/site"
    (account,) = store.accounts.all()
    assert (account.name, account.role) == ("ada", UserRole.ADMINISTRATOR)
    eve = somebody()
    answer = begin(eve, code, name="eve")
    assert answer.status_code == 409
    assert "used up" in answer.text
    assert "/sign-in" in str(eve.get("/setup").url)
    assert len(store.accounts.all()) == 1
    with pytest.raises(ConflictError, match="sign in"):
        store.setup.new_code()


def test_a_code_that_was_printed_opens_nothing_once_an_account_was_made_another_way(store, somebody):
    code = store.setup.new_code()
    store.accounts.add("root", "Root", UserRole.ADMINISTRATOR, None, SYSTEM)
    assert begin(somebody(), code).status_code == 409
    assert [account.name for account in store.accounts.all()] == ["root"]


def test_only_the_newest_code_counts_and_guessing_ends_it(store, somebody):
    old, new = store.setup.new_code(), store.setup.new_code()
    eve = somebody()
    assert begin(eve, old).status_code == 409
    for _ in range(MAX_TRIES):
        begin(eve, "AAAAA-AAAAA")
    assert "holds no more" in begin(eve, new).text
    assert store.accounts.all() == []
    assert begin(eve, store.setup.new_code()).status_code == 200
    assert code_digest_is_all_that_is_kept(store, new)


def test_who_has_not_the_code_costs_no_hash_is_in_the_journal_and_must_wait(store, somebody, monkeypatch):
    hashed = []
    made = Passwords.hashed
    monkeypatch.setattr(Passwords, "hashed", lambda self, text: hashed.append(text) or made(self, text))
    code, eve = store.setup.new_code(), somebody()
    assert begin(eve, "AAAAA-AAAAA").status_code == 409
    assert [fact.body["how"] for fact in store.journal.after(0, 100, (Kind.SIGN_IN_FAILED,))] == ["setup"]
    for _ in range(19):
        assert begin(eve, code, name="a b").status_code == 422
    answer = begin(eve, code)
    assert (answer.status_code, int(answer.headers["Retry-After"]) > 0) == (429, True)
    assert 'data-testid="wait"' in answer.text
    assert hashed == []
    assert store.setup.is_open()
    store.accounts.add("root", "Root", UserRole.ADMINISTRATOR, None, SYSTEM)
    monkeypatch.setattr(Rate, "take", lambda *_: 0.0)
    assert begin(eve, code).status_code == 409
    assert hashed == []


def code_digest_is_all_that_is_kept(store, code):
    plain = code.replace("-", "")
    values = [row["value"] for row in store.db.all("SELECT value FROM meta")]
    bodies = [row["body"] for row in store.db.all("SELECT body FROM journal")]
    return not any(plain in text or code in text for text in values + bodies)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"password": "short", "again": "short"}, "at least"),
        ({"again": "another one 99"}, "not the same"),
        ({"name": "a b"}, "1 to 64 letters"),
        ({"full_name": ""}, "1 to 64 characters"),
    ],
)
def test_what_is_wrong_is_told_and_the_code_stays_good(store, somebody, changes, told):
    code = store.setup.new_code()
    eve = somebody()
    answer = begin(eve, code, **changes)
    assert answer.status_code == 422
    assert told in answer.text
    assert begin(eve, code).status_code == 200


def test_every_later_step_is_an_administrators(store, somebody):
    store.accounts.add("x", "X", UserRole.ADMINISTRATOR, None, SYSTEM)
    for role in ("service", "radiologist", "technologist", "viewer", "screen"):
        person = somebody(role)
        for path in ("/setup/receive", "/setup/receive/check", "/setup/sheet", "/setup/test/state"):
            assert person.get(path).status_code == 403
        for path in ("/setup/site", "/setup/test", "/setup/pacs/test", "/setup/screen/sound"):
            assert person.post(path).status_code == 403


def test_who_called_and_was_refused_is_offered_as_a_scanner_with_the_protocols_of_each_source(store, somebody, write):
    def seed(tx):
        message = "association rejected: AE title 'CT_NEW' from 10.1.2.9 is no configured source; add it under sources"
        tx.journal(Refused(source="10.1.2.9", status=0, message=message))
        tx.execute("INSERT INTO source_fact VALUES ('CT-1', 'protocol', 'Head <plain>', 31, ?)", (tx.at,))

    write(seed)
    ada = somebody("administrator")
    page = ada.get("/setup/receive").text
    assert 'data-take-ae="CT_NEW"' in page
    assert 'data-take-address="10.1.2.9"' in page
    assert "Head &lt;plain&gt; × 31" in page
    store.studies.open_association(source="CT-1", calling_ae="CT1", called_ae="X", address="10.1.2.3", can_store=True)
    assert "CT-1 has called and was taken" in ada.get("/setup/receive/check").text


def test_steps_write_the_settings_each_and_can_be_done_again(store, somebody, tools):
    ada = somebody("administrator")
    ada.post("/setup/site", name="Ward 3", language="zh_Hans_CN", mode="evaluation")
    ada.post(
        "/setup/receive",
        ae_title="BOX",
        port="104",
        host="0.0.0.0",  # noqa: S104 - as a hospital sets it
        source_name=["CT-1", ""],
        source_ae=["CT1", ""],
        source_address=["10.1.2.3, 10.1.2.4", ""],
        source_mode=["parallel", "parallel"],
    )
    ada.post(
        "/setup/pacs", name="PACS", ae_title="ARCH", host="10.1.2.10", port="104", test="on", send=["original", "sr"]
    )
    ada.post("/setup/models", **{"role-cxr-triage": "silent", "role-cxr-quality": "live"})
    config = tools.settings.next_config()
    assert (config.site.name, config.dicom.port) == ("Ward 3", 104)
    assert config.sources[0].addresses == ("10.1.2.3", "10.1.2.4")
    assert (config.destinations[0].purpose, config.destinations[0].port) == ("test", 104)
    # What another requires stands before it.
    assert [(one.name, str(one.role)) for one in config.packages] == [("cxr-quality", "live"), ("cxr-triage", "silent")]
    ada.post("/setup/pacs", name="PACS", ae_title="ARCH2", host="10.1.2.10", port="104", send=["original"])
    assert [one.ae_title for one in tools.settings.next_config().destinations] == ["ARCH2"]
    assert set(store.setup.steps()) == {"site", "receive", "pacs", "models"}
    reasons = {fact.body["reason"] for fact in store.journal.after(0, 100, (Kind.SETTINGS_CHANGED,))}
    assert reasons == {"set-up"}
    answer = ada.post("/setup/site", name="x", language="de", mode="evaluation")
    assert answer.status_code == 422
    assert "site.language" in answer.text


def test_the_pacs_is_asked_as_it_was_saved_and_its_answer_told_in_plain_words(store, somebody, tools):
    ada = somebody("administrator")
    assert "Save the PACS first" in ada.post("/setup/pacs/test").text
    ada.post("/setup/pacs", name="PACS", ae_title="ARCH", host="10.1.2.10", port="104", send="original")
    tools.answer = Probe(ok=False, ms=3, words="ARCH at 10.1.2.10:104 does not know our AE title 'SCANSIDE'; enter it")
    assert "Ask its administrator to add this box" in ada.post("/setup/pacs/test").text
    tools.answer = Probe(ok=True, ms=3, words="ARCH answers")
    assert "The PACS answers (3 ms)" in ada.post("/setup/pacs/test").text


def test_the_end_of_the_test_study_stands_on_the_sheet_once(store, somebody, tools):
    ada = somebody("administrator")
    tools.test = TestState(state="done", run="r1", sent=33, images=33, outcome="FINDING", alerted=True, result_s=1.4)
    for _ in range(3):
        assert ada.get("/setup/test/state").json()["outcome"] == "FINDING"
    assert len(store.journal.after(0, 100, (Kind.SETUP_STEP_DONE,))) == 1
    sheet = ada.get("/setup/sheet").text
    assert "FINDING" in sheet.split('data-testid="sheet-test"')[1]
    assert "not done" in sheet.split('data-testid="sheet-pacs"')[1].split("</tr>")[0]
