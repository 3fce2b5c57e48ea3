"""Results in the language of a site: nothing else is said than in English, and nothing of it is left English."""

from __future__ import annotations

import re
from datetime import datetime, timezone

import pytest
from babel.messages.pofile import read_po

from appliance.deliver.language import Language
from appliance.errors import ConfigError
from appliance.records import AnalysisResult, DeliveryKind, Detail, FindingResult, Identity, Outcome, Reason
from appliance.report.request import ReportPackage, ReportRequest
from appliance.report.sentences import EVALUATION, REASONS, USES
from appliance.report.statement import build_statement
from appliance.store.said import Said
from appliance.web.i18n import FOLDER
from engines.package import bundled_packages, parse_manifest

pytestmark = pytest.mark.req("R-DELIVER-08")

FILE = bundled_packages()["cxr-triage"] / "model.yaml"
MANIFEST = parse_manifest(FILE.read_bytes())
EFFUSION, OPACITY = MANIFEST.findings
LOST = Detail("{count} of {total} images left out: localizer", {"count": 2, "total": 9})


def finding(one, *, flagged):
    return FindingResult(id=one.id, score=0.5, operating_point="x", threshold=0.4, flagged=flagged)


def both(effusion, opacity):
    return (finding(EFFUSION, flagged=effusion), finding(OPACITY, flagged=opacity))


RESULTS = {
    "one flagged": AnalysisResult(outcome=Outcome.FINDING, findings=both(True, False), caveats=(LOST,)),
    "both flagged": AnalysisResult(outcome=Outcome.FINDING, findings=both(True, True), warnings=(LOST,)),
    "a measurement": AnalysisResult(outcome=Outcome.FINDING),
    "nothing flagged": AnalysisResult(outcome=Outcome.NOTHING_FLAGGED, findings=both(False, False)),
    **{
        str(reason): AnalysisResult(outcome=Outcome.NOT_ANALYSED, reason=reason, details=(LOST, LOST))
        for reason in Reason
    },
}


def statement(result, *, status="", **changes):
    """What the child would write of a result."""
    package = ReportPackage.from_manifest(MANIFEST.model_copy(update={"status": status} if status else {}))
    fields = {
        "kind": DeliveryKind.STATEMENT,
        "sop_instance_uid": "2.25.1",
        "predecessors": (),
        "output_path": "",
        "package": package,
        "package_version": MANIFEST.version,
        "box_version": "0.1.0",
        "picture_path": "",
        "masks_path": "",
        "result": result,
        "late": True,
        "evaluation": True,
        "done_at": datetime(2026, 3, 4, tzinfo=timezone.utc),
        "identity": Identity(study_instance_uid="1.2.3", patient_name="Zhang^San=张^三"),
        "study_description": "Chest PA",
        "study_date": "20260304",
        "study_time": "",
        "patient_age": "",
        "modality": "DX",
        "images": (),
    }
    return build_statement(ReportRequest(**{**fields, **changes}))


def said(result, manifest=FILE):
    return Said(result=result, manifest=manifest.read_text("utf-8") if manifest else "")


@pytest.fixture(scope="module")
def chinese():
    return Language("zh_Hans_CN")


@pytest.mark.parametrize("name", RESULTS)
def test_told_in_english_it_is_the_statement_itself(name):
    one = statement(RESULTS[name])
    assert Language("en").tell(one, said(RESULTS[name])) == one


@pytest.mark.parametrize("name", RESULTS)
def test_told_in_chinese_no_english_word_is_left_and_all_that_is_no_text_stays(chinese, name):
    one = statement(RESULTS[name])
    told = chinese.tell(one, said(RESULTS[name]))
    words = [told["summary"], told["reason_text"], told["looked_for"], told["not_looked_for"], *told["caveats"]]
    words += [*told["permitted_use"], told["package"]["title"], *(item["title"] for item in told["findings"])]
    assert not [text for text in words if re.search("[a-z]{2}", text)]
    texts = {
        "summary",
        "reason_text",
        "looked_for",
        "not_looked_for",
        "caveats",
        "permitted_use",
        "package",
        "findings",
    }
    assert {key: value for key, value in told.items() if key not in texts} == {
        key: value for key, value in one.items() if key not in texts
    }
    assert [{**item, "title": ""} for item in told["findings"]] == [{**item, "title": ""} for item in one["findings"]]


def test_outcome_words_say_what_is_flagged_and_that_the_rest_is_not_excluded(chinese):
    told = chinese.tell(statement(RESULTS["one flagged"]), said(RESULTS["one flagged"]))
    effusion, opacity = EFFUSION.title.zh_Hans, OPACITY.title.zh_Hans
    assert told["summary"] == f"{effusion}。 AI 未提示：{opacity}。AI 未提示不代表可以排除。"
    both_flagged = chinese.tell(statement(RESULTS["both flagged"]), said(RESULTS["both flagged"]))
    assert both_flagged["summary"] == f"{effusion}、{opacity}。"
    assert told["caveats"] == ["9 幅图像中有 2 幅未采用：定位像", "此结果延迟送达。"]


def test_a_reason_is_told_with_what_was_found(chinese):
    one = RESULTS[str(Reason.INCOMPLETE)]
    told = chinese.tell(statement(one), said(one))
    assert told["summary"] == "未分析。"
    assert told["reason_text"].startswith("序列不完整。 9 幅图像中有 2 幅未采用：定位像; ")


@pytest.mark.parametrize("manifest", ["", "schema: 2\n"])
def test_texts_of_a_package_that_this_box_does_not_know_stay_english_and_the_rest_does_not(chinese, manifest):
    one = statement(RESULTS["one flagged"])
    told = chinese.tell(one, Said(result=RESULTS["one flagged"], manifest=manifest))
    assert told["findings"] == one["findings"]
    assert told["summary"].startswith(f"{EFFUSION.title.en}。 AI 未提示：")


def test_where_the_analysis_is_not_known_its_details_stay_english_and_the_rest_does_not(chinese):
    one = statement(RESULTS[str(Reason.INCOMPLETE)])
    told = chinese.tell(one, None)
    assert told["reason_text"] == f"序列不完整。 {LOST}; {LOST}"
    assert told["caveats"] == ["此结果延迟送达。"]
    assert told["permitted_use"][0] == "评估模式，不得用于诊疗。"


@pytest.mark.parametrize("status", USES)
def test_what_a_result_may_be_used_for_is_said_in_sentences_that_are_translated(chinese, status):
    one = statement(RESULTS["nothing flagged"], status=status)
    assert one["permitted_use"] == [str(EVALUATION), str(USES[status])]
    told = chinese.tell(one, None)["permitted_use"]
    assert not [text for text in told if re.search("[A-Za-z]", text)]


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_has_its_sentence_in_both_languages(reason):
    with (FOLDER / "zh_Hans_CN" / "LC_MESSAGES" / "scanside.po").open("rb") as file:
        catalogue = read_po(file)
    sentence = REASONS[reason].text
    assert statement(RESULTS[str(reason)])["reason_text"].startswith(sentence)
    assert catalogue[sentence].string


def test_a_language_whose_catalogue_is_damaged_is_told_at_the_start(monkeypatch, tmp_path):
    monkeypatch.setattr("appliance.web.i18n.Catalogues.__init__.__defaults__", (tmp_path,))
    with pytest.raises(ConfigError, match="reinstall"):
        Language("zh_Hans_CN")
