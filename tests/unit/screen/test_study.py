"""The page of one study and what is done at it, asked without a browser."""

from __future__ import annotations

import ast
import re
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta

import pytest
from asgi_kit import AsgiClient
from web_kit import COOKIE, session

from appliance.config import Config, Site
from appliance.records import (
    Actor,
    ActorKind,
    AnalysisResult,
    Detail,
    FindingResult,
    Outcome,
    Reason,
    ReviewDecision,
    Severity,
)
from appliance.screen import history, screen_app, words
from appliance.screen.history import SENTENCES, sentence_of
from appliance.screen.result import evidence
from appliance.screen.timing import duration, timing_view
from appliance.store import facts as facts_module
from appliance.store.database import iso
from appliance.store.facts import Body, Kind
from appliance.store.facts.intake import InstanceStored, SeriesReady
from appliance.store.issues import raise_issue
from appliance.store.readmodels import FactView, RevisionView
from appliance.store.review_rules import Draft
from appliance.store.reviews import ELSEWHERE, Reading
from appliance.store.short_series import no_longer_missing
from appliance.store.timings import AnalysisTiming, Hop, Spread, Usual

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=a()>{{7*7}}%(name)s%s</bdi></td>"


@pytest.fixture
def serve(store, clock, scenes):
    """``with serve(role) as client``: the pages of the store as they stand now, without a server around them."""
    apps = {}

    @contextmanager
    def served(role="radiologist", config=None, **site):
        config = config or Config(site=Site(**site))
        known = config.model_dump_json()
        if known not in apps:
            apps[known] = screen_app(store, config, scenes.packages(), clock)
        yield AsgiClient(apps[known], {COOKIE: session(store, role)})

    return served


def part(page, place):
    """What stands in the part of the page with that test id, up to the next part; tags left out."""
    begin = page.index(f'data-testid="{place}"')
    end = page.find('data-testid="', begin + 20 + len(place))
    return re.sub(r"\s+", " ", re.sub("<[^>]*>", " ", page[begin : end if end > 0 else None]))


def text(page):
    """The page without its tags."""
    return re.sub(r"\s+", " ", re.sub("<[^>]*>", " ", page))


def act(client, path, **fields):
    """Send a form of the page."""
    client.get("/studies")
    return client.post(path, data={"csrf": client.cookies["scanside_csrf"], **fields})


def rich(tx, scenes):
    """A flagged head CT of which two slices never came, with everything that follows."""
    ago = lambda s: iso(tx.now - timedelta(seconds=s))  # noqa: E731
    study = scenes.add_study(tx, scenes.WANG, outcome=Outcome.FINDING, images=118, ago_s=300.0)
    tx.execute(
        "UPDATE revision SET evidence = ?", ('{"rule": "quiet", "listed": 120, "missing": 2, "contiguous": false}',)
    )
    for n in range(118):
        tx.journal(InstanceStored(association=1, source="CT-1", series=1, version=n + 1, size=5), study_id=study)
    tx.journal(SeriesReady(series=1, revision=1, n=1, images=118, rule="quiet"), study_id=study)
    caveat = Detail("the examination was discontinued at the scanner; images may be missing")
    result = replace(scenes.finding_result(tx, study), hops_ms=scenes.HOPS, caveats=(caveat,))
    analysis = scenes.add_analysis(tx, study, result, started_at=ago(299.8), done_at=ago(297.2))
    scenes.add_alert(
        tx, study, analysis, state="acknowledged", raised_at=ago(297.2), presented_at=ago(297),
        acknowledged_at=ago(260), acknowledged_by="Li Wei",
    )  # fmt: skip
    scenes.add_delivery(tx, study, analysis_id=analysis, sent_at=ago(296), attempt=1)
    scenes.add_delivery(tx, study, "HIS", kind="statement", analysis_id=analysis, state="parked", error="AE <unknown>")
    tx.insert(
        "study_order", study_id=study, state="found", asked=1, asked_at=tx.at, identity_revision=1, priority="STAT",
        procedure_description="CT head without contrast",
    )  # fmt: skip
    return study


@pytest.mark.req("R-STUDY-01")
def test_a_page_tells_what_was_found_what_was_looked_for_and_where_the_time_went(serve, write, scenes):
    study = write(rich, scenes)
    with serve() as client:
        page = client.get(f"/studies/{study}").text
        chinese = text(client.get(f"/studies/{study}?lang=zh_Hans_CN").text)
    said = text(page)
    for one in (
        "WANG, XIAOMING", "PID-88172355", "ACC20260100474711", "URGENT", "Suspected bleed in the head",
        "head-ct-hyperdensity 0.1.0", "12.4 ml", "slice 14", "Looked for", "Not looked for", "infarction, fracture",
        "the examination was discontinued at the scanner", "Incomplete: 118 of 120 expected",
        "The numbers of the images have gaps", "CT head without contrast", "STAT", "Seen by Li Wei",
        "Report (SR)", "AE &lt;unknown&gt;", "refused", "Images received from CT-1: 118",
        "A series of 118 images was taken as whole: no further image came for a while",
    ):  # fmt: skip
        assert one in said, one
    timing = part(page, "timing")
    for one in ("2,610 ms", "Decoding 310 ms", "Preparing 315 ms", "Inference 1,640 ms", "Waiting for the AI 200 ms"):
        assert one in timing, one
    assert "Until the radiologist was told not measured" in timing
    for one in (
        *("王晓明", "紧急", "疑似颅内出血", "图像不完整：应有 120 幅，收到 118 幅", "来自 CT-1 的图像：118 幅"),
        *("推理", "未测量", "检查在检查设备端中止"),
    ):
        assert one in chinese, one
    for banned in ("normal", "negative", "正常", "阴性", "扫描仪"):
        assert banned not in said.lower() + chinese


@pytest.mark.req("R-STUDY-02")
def test_score_and_threshold_are_for_the_administrator_alone(serve, write, scenes):
    study = write(rich, scenes)
    for role, sees in (("administrator", True), ("radiologist", False), ("technologist", False), ("viewer", False)):
        with serve(role) as client:
            page = client.get(f"/studies/{study}").text
        assert ("Score 12.4, threshold 1.5 (standard)" in page) is sees
        assert ('data-testid="reprocess"' in page) is sees


@pytest.mark.req("R-REVIEW-05")
def test_a_radiologist_goes_to_the_review_and_a_technologist_asks_for_one(serve, write, scenes, store):
    study = write(scenes.urgent) and 1
    for role, reviews, asks in (
        *(("radiologist", True, True), ("technologist", False, True)),
        *(("viewer", False, False), ("administrator", False, False)),
    ):
        with serve(role) as client:
            page = client.get(f"/studies/{study}").text
        assert "No radiologist has reviewed this result." in part(page, "review-card"), role
        assert (f'href="/studies/{study}/review"' in page) is reviews, role
        assert (f'action="/studies/{study}/review/ask"' in page) is asks, role
    with serve("technologist") as client:
        assert act(client, f"/studies/{study}/review/ask").headers["location"] == f"/studies/{study}"
        page = client.get(f"/studies/{study}").text
    assert "Asked for by Theo Technologist" in part(page, "review-card")
    assert 'data-testid="ask-review"' not in page
    case, draft = store.reviews.case(study), Draft(decision=ReviewDecision.AGREE)
    li = Actor(kind=ActorKind.PERSON, name="Li <Wei>", role="radiologist")
    store.reviews.sign(study, draft, case.etag, li, Reading(seen={ELSEWHERE: 1}), organization="R")
    with serve("technologist") as client:
        page = client.get(f"/studies/{study}").text
    assert re.search(r"Agreed Li &lt;Wei&gt; · \d{4}-", part(page, "review-card"))
    assert 'data-testid="ask-review"' in page


@pytest.mark.req("R-STUDY-03")
def test_a_triage_package_shows_no_place_and_no_size(serve, write, scenes):
    write(scenes.priority)
    with serve() as client:
        page = client.get("/studies/1").text
    assert "Suspected pleural effusion" in page
    assert "slice 14" not in page
    assert "12.4 ml" not in page


@pytest.mark.req("R-STUDIES-11")
def test_a_technologist_who_is_told_the_priority_alone_reads_no_finding_on_the_page(serve, write, scenes):
    study = write(rich, scenes)
    config = Config(site=Site(profile="us"))
    with serve("technologist", config) as client:
        page = client.get(f"/studies/{study}").text
    assert "Prioritised by the AI" in part(page, "card")
    assert "Suspected bleed" not in page
    assert "12.4" not in page
    with serve("radiologist", config) as client:
        assert "Suspected bleed" in client.get(f"/studies/{study}").text


@pytest.mark.req("R-STUDY-04")
def test_the_registration_number_and_the_name_of_a_measurement_come_from_the_manifest(
    serve, store, write, scenes, repo
):
    study = write(rich, scenes)
    manifest = (repo / "engines" / "models" / scenes.HEAD / "model.yaml").read_text(encoding="utf-8")
    manifest = manifest.replace("regulatory: {}", 'regulatory: {CN: {class: III, number: "20263210001"}}')
    with store.db.write() as tx:
        tx.insert(
            "package", name=scenes.HEAD, version="0.1.0", digest="d", origin="config", manifest=manifest, state="live",
            state_at=tx.at, installed_at=tx.at,
        )  # fmt: skip
    with serve() as client:
        said = text(client.get(f"/studies/{study}").text)
        assert "CN registration 20263210001 (class III)" in said
        assert "Volume of bright regions 12.4 ml" in said
    with store.db.write() as tx:
        tx.execute("UPDATE package SET manifest = 'schema: 99'")
    with serve() as client:
        assert client.get(f"/studies/{study}").status_code == 200


@pytest.mark.req("R-STUDY-05")
def test_every_reason_why_a_study_was_not_analysed_is_loud_and_says_what_to_do(serve, write, scenes):
    gap = Detail(
        "{count} slices are missing: {slices} of {total}, counted along the series",
        {"count": 6, "slices": "9-14", "total": 32},
    )
    studies = {reason: write(scenes.not_analysed, reason, (gap,)) for reason in Reason}
    with serve() as client:
        for reason, study in studies.items():
            page = client.get(f"/studies/{study}?lang=zh_Hans_CN").text
            assert 'data-level="not-analysed"' in page, reason
            assert "缺少 6 层图像：第 9-14 层" in part(page, "details"), reason
            assert "本应查找" in page, reason
            assert words.reason(reason)[0] not in page, reason


def test_not_applicable_is_quiet_and_a_study_that_arrives_says_so(serve, write, scenes):
    knee = write(scenes.add_study, outcome=Outcome.NOT_APPLICABLE)
    coming = write(scenes.add_study, is_open=True, images=7)
    with serve() as client:
        quiet = client.get(f"/studies/{knee}").text
        assert "No AI in service here looks at images of this kind." in part(quiet, "no-result")
        assert "glyph" not in quiet
        page = client.get(f"/studies/{coming}").text
        assert "receiving, 7 images" in part(page, "no-result")
        assert "Images are still coming" in page


@pytest.mark.req("R-STUDY-06")
def test_removed_images_are_told_and_nothing_is_analysed_again_without_them(serve, store, write, scenes):
    study = write(rich, scenes)
    with store.db.write() as tx:
        tx.execute("UPDATE study SET kept = 0, images_removed_at = ?", (tx.at,))
        tx.execute("UPDATE version SET removed_at = ?", (tx.at,))
    with serve("administrator") as client:
        page = client.get(f"/studies/{study}").text
        assert "72 h after they were last needed (site rule). The result is kept." in part(page, "removed")
        assert 'data-testid="reprocess"' not in page
        answer = act(client, f"/studies/{study}/reprocess")
        assert answer.status_code == 409
        assert "images of this study are no longer on this box" in part(answer.text, "refusal")


@pytest.mark.req("R-STUDY-07")
def test_an_administrator_has_a_study_analysed_again(serve, store, write, scenes):
    study = write(rich, scenes)
    with serve("administrator") as client:
        answer = act(client, f"/studies/{study}/reprocess")
        assert (answer.status_code, answer.headers["location"]) == (303, f"/studies/{study}")
        assert "The study is to be analysed again" in client.get(f"/studies/{study}").text
        assert client.post(f"/studies/{study}/reprocess", data={}).status_code == 403
        assert act(client, "/studies/99/reprocess").status_code == 404
    (fact,) = store.journal.after(0, 500, (Kind.STUDY_REPROCESSED,))
    assert fact.actor == {"kind": "person", "name": "Ada Administrator", "role": "administrator"}
    assert store.revisions.studies_to_route() == [study]


@pytest.mark.req("R-STUDY-08")
def test_a_technologist_answers_the_quality_warnings_that_they_saw(serve, store, write, scenes):
    study = write(scenes.warned, findings=("bases", "rotated"))
    fields = {"choice": "accepted_as_is", "reason": "patient", "analysis": "1"}
    with serve("technologist") as client:
        page = client.get(f"/studies/{study}").text
        assert "lung bases cut off" in page
        assert "Exposure index 325" in page
        assert 'data-testid="answer"' in page
        for wrong in ({"choice": "what"}, {"reason": ""}, {"analysis": "x"}):
            assert act(client, f"/studies/{study}/warnings", **(fields | wrong)).status_code == 400
        assert act(client, f"/studies/{study}/warnings", **(fields | {"analysis": "7"})).status_code == 409
        assert act(client, f"/studies/{study}/warnings", **fields).status_code == 303
        page = client.get(f"/studies/{study}").text
        assert "The image stays as it is (The patient could not cooperate)" in part(page, "answered")
        assert 'data-testid="answer"' not in page
    (fact,) = store.journal.after(0, 500, (Kind.QUALITY_DECIDED,))
    assert fact.actor["name"] == "Theo Technologist"
    with serve("viewer") as client:
        assert act(client, f"/studies/{study}/warnings", **fields).status_code == 403


@pytest.mark.req("R-STUDY-09")
def test_a_person_chooses_between_two_versions_of_an_image(serve, store, write, scenes):
    study = write(scenes.nothing_flagged)
    with store.db.write() as tx:
        first = dict(tx.one("SELECT * FROM version"))
        other = tx.insert("version", **(first | {"id": None, "n": 2, "state": "conflict", "path": "store/00/b.dcm"}))
    with serve("viewer") as client:
        page = client.get(f"/studies/{study}").text
        assert "One image came with different pixels." in page
        assert 'data-testid="choose"' not in page
        assert act(client, f"/studies/{study}/version", version=other).status_code == 403
    with serve("technologist") as client:
        assert client.get(f"/studies/{study}").text.count('data-testid="choose"') == 2
        for wrong in ("99", "", "-1"):
            assert act(client, f"/studies/{study}/version", version=wrong).status_code == 400
        assert act(client, f"/studies/{study}/version", version=other).status_code == 303
        assert "One image came with different pixels." not in client.get(f"/studies/{study}").text
    (fact,) = store.journal.after(0, 500, (Kind.VERSION_CHOSEN,))
    assert (fact.body["version"], fact.actor["name"]) == (other, "Theo Technologist")


@pytest.mark.req("R-STUDY-10")
def test_a_look_at_a_study_is_a_fact_and_an_unknown_one_is_a_page_in_words(serve, store, write, scenes):
    study = write(scenes.nothing_flagged)
    with serve() as client:
        for _ in range(2):
            page = client.get(f"/studies/{study}").text
        assert "Looked at the study" in part(page, "history")
        assert "Rada Radiologist" in page
        missing = client.get("/studies/4711", headers={"Accept": "text/html"})
        assert missing.status_code == 404
        assert "There is nothing here" in missing.text
    (fact,) = store.journal.after(0, 100, (Kind.ACCESSED,))
    assert (fact.study_id, fact.body, fact.actor["name"]) == (study, {"what": "study"}, "Rada Radiologist")
    for role in ("service", "screen"):
        with serve(role) as client:
            assert client.get(f"/studies/{study}").status_code == 403


@pytest.mark.req("R-STUDIES-08")
def test_hostile_text_on_the_page_of_a_study_is_text(serve, store, write, scenes):
    identity = replace(
        scenes.DOE, patient_name=HOSTILE, patient_id=HOSTILE, accession_number=HOSTILE, patient_birth_date=HOSTILE
    )
    study = write(
        scenes.add_study, identity, outcome=Outcome.NOT_ANALYSED, reason=Reason.FAILED, description=HOSTILE,
        modality=HOSTILE, source=HOSTILE,
    )  # fmt: skip
    result = AnalysisResult(
        outcome=Outcome.NOT_ANALYSED, reason=Reason.FAILED, details=(Detail(HOSTILE, {"name": HOSTILE}),),
        findings=(FindingResult(id=HOSTILE, score=1, operating_point=HOSTILE, threshold=0, flagged=True),),
    )  # fmt: skip
    write(scenes.add_analysis, study, result, package=HOSTILE, package_version=HOSTILE)
    with store.db.write() as tx:
        tx.execute("UPDATE series SET body_part = ?, left_out = ?", (HOSTILE, HOSTILE))
        scenes.add_delivery(tx, study, HOSTILE, state="parked", error=HOSTILE)
        tx.journal(InstanceStored(association=1, source=HOSTILE, series=1, version=1, size=1), study_id=study)
        tx.insert(
            "study_order", study_id=study, state="found", asked=1, asked_at=tx.at, identity_revision=1,
            priority=HOSTILE, procedure_id=HOSTILE, procedure_description=HOSTILE, accession_number=HOSTILE,
        )  # fmt: skip
    with serve("administrator", name=HOSTILE) as client:
        page = client.get(f"/studies/{study}").text
    assert "<script>alert" not in page
    assert "<img src=x" not in page
    assert page.count("&lt;script&gt;alert(1)&lt;/script&gt;") >= 15


def test_replaced_and_silent_results_are_not_told_as_the_present_one(serve, store, write, scenes):
    study = write(rich, scenes)
    with store.db.write() as tx:
        quiet = AnalysisResult(outcome=Outcome.NOTHING_FLAGGED)
        newer = scenes.add_analysis(tx, study, quiet, predecessor=1)
        tx.execute("UPDATE analysis SET superseded_by = ? WHERE id = 1", (newer,))
        scenes.add_analysis(tx, study, scenes.finding_result(tx, study), role="silent", package_version="9.9.9")
    with serve("administrator") as client:
        page = client.get(f"/studies/{study}").text
    assert page.count('data-testid="card"') == 1
    assert "Nothing flagged" in part(page, "card")
    assert "Suspected bleed in the head" in part(page, "earlier")
    assert "9.9.9" not in page


# Pure parts ----------------------------------------------------------------------------------------------------


@pytest.mark.req("R-STUDY-11")
def test_every_kind_of_fact_that_is_written_about_a_study_has_a_sentence(repo):
    """Kinds are found where they are written: a new one that nobody put into words would be told by its code."""
    for name in (repo / "appliance" / "store").glob("*_facts.py"):
        __import__(f"appliance.store.{name.stem}")
    bodies = {body.__name__: body.kind for body in all_bodies(Body)}
    written = set()
    writers = [
        text for path in (repo / "appliance" / "store").glob("*.py") if ".journal(" in (text := path.read_text())
    ]
    for source in writers:
        for node in ast.walk(ast.parse(source)):
            if (
                not isinstance(node, ast.Call)
                or not isinstance(node.func, ast.Attribute)
                or node.func.attr != "journal"
            ):
                continue
            if any(keyword.arg == "study_id" for keyword in node.keywords) and isinstance(node.args[0], ast.Call):
                written.add(bodies[node.args[0].func.id])
    assert len(written) > 30
    # The agreement of a shadow is told of nowhere.
    assert written - set(SENTENCES) - {Kind.SHADOW_AGREEMENT} == set()
    assert set(SENTENCES) <= set(Kind)
    assert facts_module.Kind is Kind


def all_bodies(body):
    for child in body.__subclasses__():
        yield child
        yield from all_bodies(child)


@pytest.mark.req("R-STUDY-11")
def test_facts_of_many_images_are_one_line_though_deliveries_come_in_between(clock):
    def fact(n, kind, **body):
        return FactView(seq=n, at=clock.now(), kind=str(kind), actor="system", body=body)

    told = []
    for n in range(300):
        told.append(fact(3 * n, Kind.INSTANCE_STORED, source="CT-1"))
        told.append(fact(3 * n + 1, Kind.DELIVERY_OWED, destination="PACS", object="original"))
        told.append(fact(3 * n + 2, Kind.DELIVERY_SENT, destination="PACS", object="original"))
    told.append(fact(999, Kind.SERIES_READY, images=300, rule="released"))
    told.append(fact(1000, Kind.SERIES_READY, images=301, rule="quiet"))
    told.append(fact(1001, Kind.ANALYSIS_STARTED, analysis=7))
    told.append(fact(1002, Kind.ANALYSIS_STARTED, analysis=8))
    told.append(fact(1003, "a kind of the future"))
    entries = history.history(told, {8: "head"}, frozenset({7}))
    assert [entry.sentence.values.get("count") for entry in entries] == [300, 300, 300, None, None, None, None]
    assert entries[5].sentence.values == {"package": "head"}
    assert entries[6].sentence == sentence_of("a kind of the future", {})
    assert entries[0].actor == ""


def test_evidence_is_told_with_what_is_missing_first(clock):
    revision = RevisionView(
        n=1, images=118, ready_at=clock.now(),
        evidence={"rule": "quiet", "listed": 120, "missing": 2, "not_listed": 1, "contiguous": False},
    )  # fmt: skip
    first, *rest = evidence(revision)
    assert first.text % first.values == "Incomplete: 118 of 120 expected"
    assert [one.text for one in rest] == [
        "Taken as whole: %(rule)s",
        "%(count)s images that the scanner does not list",
        "The numbers of the images have gaps",
    ]


@pytest.mark.req("R-MPPS-03")
def test_a_finding_on_a_part_of_what_the_scanner_lists_says_so_on_its_page_while_it_is_so(store, serve, scenes, write):
    write(scenes.urgent)
    (study,) = [row["id"] for row in store.db.all("SELECT id FROM study")]
    detail = {"listed": 120, "missing": 2}
    write(raise_issue, "IMAGES_MISSING", "series 1", Severity.WARNING, detail, study)
    with serve() as client:
        assert "118 of 120 expected" in part(client.get(f"/studies/{study}").text, "incomplete")
        write(no_longer_missing, 1)
        assert 'data-testid="incomplete"' not in client.get(f"/studies/{study}").text


def test_the_bar_is_as_long_as_the_way_and_slow_hops_are_marked():
    timing = AnalysisTiming(
        analysis_id=1, package="head", hops_ms={Hop.DECIDED: 40.0, Hop.INFERENCE: 1600.0, Hop.SEEN: 9e6}, ahead_ms=None,
        total_ms=1700.0,
    )  # fmt: skip
    usual = Usual(
        analyses=20,
        hops={
            Hop.INFERENCE: Spread(p50_ms=800.0, p95_ms=1500.0, n=20),
            Hop.DECIDED: Spread(p50_ms=40, p95_ms=40, n=20),
        },
        total=None,
    )
    view = timing_view(timing, usual)
    assert sum(piece.width for piece in view.segments) == pytest.approx(1000.0)
    assert [piece.hop for piece in view.segments] == [Hop.DECIDED, Hop.INFERENCE]
    slow = {line.hop: line.is_slow for line in (*view.to_result, *view.after)}
    assert [hop for hop, is_slow in slow.items() if is_slow] == [Hop.INFERENCE]
    assert {line.hop: line.ms for line in view.to_result}[Hop.DECODE] == ""


@pytest.mark.parametrize(
    ("ms", "shown"),
    [(0.4, "0 ms"), (1640, "1,640 ms"), (12_340, "12.3 s"), (200_000, "3:20 min"), (7_500_000, "2:05 h")],
)
def test_times_are_written_as_a_person_reads_them(ms, shown):
    assert duration(ms) == shown
