"""The figures of ``model evaluate``, against figures worked out by hand."""

from __future__ import annotations

import itertools
import math

import pytest
import toy_packages
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.triage.evaluation import NOT_APPLICABLE, Case, Estimate, Evaluated, Proportion, auc, evaluate, proportion
from appliance.triage.evaluation_truth import TruthError, TruthRow, match, read_truth
from engines.manifest import Manifest

pytestmark = pytest.mark.req("R-KSERVE-09")
FINDING = toy_packages.FINDING
#: Points: standard (0.5, default) and sensitive (0.3).
MANIFEST = Manifest.model_validate(toy_packages.manifest())


def study(name, score=None, *, reason="", source="CT A", date="20260101", also=()):
    scores = {} if score is None else {FINDING: score}
    return Evaluated(names=(name, *also), source=source, date=date, scores=scores, reason=reason)


def case(one, *, present):
    return Case(study=one, finding=FINDING, present=present, source=one.source)


# -- proportions -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("numerator", "denominator", "low", "high"),
    [
        # Newcombe 1998, table I, method 3 (Wilson score without continuity correction).
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
        (29, 29, 0.8830, 1.0),
    ],
)
def test_the_interval_is_wilsons_as_published(numerator, denominator, low, high):
    got = proportion(numerator, denominator)
    assert (got.numerator, got.denominator, got.value) == (numerator, denominator, numerator / denominator)
    assert (got.low, got.high) == (pytest.approx(low, abs=5e-5), pytest.approx(high, abs=5e-5))


def test_a_share_of_nothing_is_not_known_and_not_0():
    assert proportion(0, 0) == Proportion(0, 0, None, None, None)


@given(st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_an_interval_holds_its_share_lies_within_0_and_1_and_mirrors(pair):
    numerator, denominator = pair
    got, mirrored = proportion(*pair), proportion(denominator - numerator, denominator)
    assert 0 <= got.low <= got.value <= got.high <= 1
    assert got.low < got.high
    assert math.isclose(got.low, 1 - mirrored.high, abs_tol=1e-12)


@given(st.integers(0, 50), st.integers(1, 50))
def test_more_studies_of_the_same_share_narrow_the_interval(part, rest):
    one, ten = proportion(part, part + rest), proportion(10 * part, 10 * (part + rest))
    assert ten.high - ten.low < one.high - one.low


# -- AUC ---------------------------------------------------------------------------------------------------------------


def test_the_auc_counts_pairs_and_ties_half():
    # Pairs: 3>1 3>2 3>2 | 2>1 2=2 2=2 = 3 + 1 + 0.5 + 0.5 of 6.
    got = auc([3.0, 2.0], [1.0, 2.0, 2.0])
    assert got.value == pytest.approx(5 / 6)
    assert 0 <= got.low <= got.value <= got.high <= 1


@settings(max_examples=30)
@given(st.lists(st.integers(0, 6), min_size=1, max_size=8), st.lists(st.integers(0, 6), min_size=1, max_size=8))
def test_the_auc_is_what_counting_all_pairs_gives(positive, negative):
    pairs = [(p > n) + (p == n) / 2 for p, n in itertools.product(positive, negative)]
    assert math.isclose(auc(positive, negative).value, sum(pairs) / len(pairs))


def test_an_auc_needs_both_kinds_and_its_interval_two_of_each():
    assert auc([], [1.0]) == auc([1.0], []) == Estimate(None, None, None)
    assert auc([2.0], [1.0, 0.0]) == Estimate(1.0, None, None)


def test_the_interval_of_an_auc_is_the_same_each_time_and_grows_with_doubt():
    noisy = auc([1.0, 2.0, 3.0, 4.0], [0.0, 1.5, 2.5, 3.5])
    assert noisy == auc([1.0, 2.0, 3.0, 4.0], [0.0, 1.5, 2.5, 3.5])
    sure = auc([1.0, 2.0, 3.0, 4.0] * 25, [0.0, 1.5, 2.5, 3.5] * 25)
    assert sure.value == noisy.value
    assert sure.high - sure.low < noisy.high - noisy.low


# -- the report --------------------------------------------------------------------------------------------------------


@pytest.fixture
def report():
    """Five with the finding, six without, over two sources and two days; one of no known truth."""
    yes = [
        study("p1", 0.9),
        study("p2", 0.5),  # at the threshold: flagged
        study("p3", 0.4, source="CT B"),
        study("p4", reason="incomplete"),
        study("p5", reason=NOT_APPLICABLE),
    ]
    no = [
        study("n1", 0.6, date="20260102"),
        study("n2", 0.35),
        study("n3", 0.1, source="CT B"),
        study("n4", 0.0),
        study("n5", reason="incomplete"),
        study("n6", reason="quality"),
    ]
    cases = [case(one, present=True) for one in yes] + [case(one, present=False) for one in no]
    return evaluate(MANIFEST, [*yes, *no, study("x", 0.8)], cases)


def of(proportion):
    return proportion.numerator, proportion.denominator


def test_the_table_of_four_at_each_operating_point(report):
    (finding,) = report.findings
    standard, sensitive = finding.groups[0].points
    assert (standard.point, standard.threshold, standard.default) == ("standard", 0.5, True)
    four = ("true_positive", "false_positive", "true_negative", "false_negative")
    assert [getattr(standard, name) for name in four] == [2, 1, 3, 1]
    assert [getattr(sensitive, name) for name in four] == [3, 2, 2, 0]
    assert [of(getattr(standard, name)) for name in ("sensitivity", "specificity", "ppv", "npv")] == [
        (2, 3),
        (3, 4),
        (2, 3),
        (3, 4),
    ]


def test_what_was_not_analysed_is_counted_apart_and_missed_where_it_was_owed(report):
    assert (report.studies, report.analysed, report.not_applicable) == (12, 8, 1)
    assert report.not_analysed == {"incomplete": 2, "quality": 1}
    group = report.findings[0].groups[0]
    assert (group.positive, group.negative) == (5, 6)
    assert group.not_analysed == {
        "incomplete": {"positive": 1, "negative": 1},
        "quality": {"positive": 0, "negative": 1},
    }
    assert group.not_applicable == {"positive": 1, "negative": 0}
    # p4 is missed, p5 was not owed.
    assert of(group.points[0].sensitivity_owed) == (2, 4)


def test_alerts_a_day_count_every_study_also_those_without_truth(report):
    assert report.studies_a_day == 6.0
    # p1, p2, n1 and x of twelve, six a day.
    assert of(report.findings[0].groups[0].points[0].flagged) == (4, 12)
    assert report.alerts_a_day == report.findings[0].groups[0].points[0].alerts_a_day == pytest.approx(2.0)
    assert report.findings[0].groups[0].points[1].alerts_a_day == pytest.approx(3.0)


def test_studies_a_day_may_be_given_and_are_not_guessed():
    one, undated = study("a", 0.9), study("b", 0.1, date="")
    assert evaluate(MANIFEST, [one, undated], [], studies_a_day=40).alerts_a_day == pytest.approx(20.0)
    unknown = evaluate(MANIFEST, [one, undated], [])
    assert (unknown.studies_a_day, unknown.alerts_a_day) == (None, None)


def test_each_source_has_figures_of_its_own(report):
    groups = report.findings[0].groups
    assert [group.source for group in groups] == ["all", "CT A", "CT B"]
    assert of(groups[2].points[0].sensitivity) == (0, 1)
    assert of(groups[2].points[1].sensitivity) == (1, 1)
    assert groups[2].points[0].alerts_a_day is None


def test_one_source_is_not_told_twice():
    one = study("a", 0.9)
    assert [g.source for g in evaluate(MANIFEST, [one], [case(one, present=True)]).findings[0].groups] == ["all"]


@settings(max_examples=20)
@given(st.lists(st.tuples(st.floats(0, 1), st.booleans(), st.sampled_from(["", "quality"])), max_size=30))
def test_every_case_is_in_exactly_one_cell(drawn):
    studies = [
        study(str(n), None if reason else score, reason=reason, source=f"S{n % 2}")
        for n, (score, _, reason) in enumerate(drawn)
    ]
    cases = [case(one, present=present) for one, (_, present, _) in zip(studies, drawn, strict=True)]
    groups = evaluate(MANIFEST, studies, cases).findings[0].groups
    for group in groups:
        left_out = sum(sum(count.values()) for count in group.not_analysed.values())
        for p in group.points:
            cells = p.true_positive + p.false_positive + p.true_negative + p.false_negative
            assert cells + left_out == group.positive + group.negative
    assert sum(g.positive for g in groups[1:]) in {0, groups[0].positive}


# -- truth -------------------------------------------------------------------------------------------------------------


def test_truth_is_read_as_spreadsheets_write_it():
    want = [TruthRow(2, "A1", FINDING, True, "CT-1"), TruthRow(4, "B, 2", FINDING, False, "")]
    assert (
        read_truth(f'study,finding,present,source\nA1, {FINDING} ,1,CT-1\n\n"B, 2",{FINDING},0,\n', [FINDING]) == want
    )
    assert read_truth(f"\ufeffstudy;finding;present\r\nA1;{FINDING};1\r\n", [FINDING]) == [
        TruthRow(2, "A1", FINDING, True)
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "the columns are missing"),
        ("study,finding\nA,x\n", "use study,finding,present"),
        ("study,finding,present,age\n", "use study,finding,present"),
        (f"study,finding,present\nA,{FINDING},yes\n", "line 2: 'yes' is neither 0 nor 1"),
        ("study,finding,present\nA,stroke,1\n", f"line 2: no finding 'stroke'; the package has {FINDING}"),
        (f"study,finding,present\n,{FINDING},1\n", "line 2: expected 3 values"),
        (f"study,finding,present\nA,{FINDING},1,2,3\n", "line 2: expected 3 values"),
    ],
)
def test_truth_that_cannot_be_read_names_its_line(text, words):
    with pytest.raises(TruthError) as caught:
        read_truth(text, [FINDING])
    assert words in str(caught.value)


def row(line, name, *, present=True, source=""):
    return TruthRow(line, name, FINDING, present, source)


def test_truth_names_a_study_by_uid_accession_or_folder_and_nothing_is_dropped_in_silence():
    a, b, c = study("1.2", also=("ACC1", "folder")), study("1.3", also=("ACC2", "folder")), study("1.4")
    rows = [row(2, "1.2"), row(3, "ACC2", present=False, source="MR"), row(4, "folder"), row(5, "gone"), row(6, "ACC1")]
    cases, unmatched, without = match(rows, [a, b, c])
    assert [(one.study, one.present, one.source) for one in cases] == [(a, True, "CT A"), (b, False, "MR")]
    assert [(one.line, one.why) for one in unmatched] == [
        (4, "names 2 studies; use the Study Instance UID"),
        (5, "names no study"),
        (6, "says the same as line 2"),
    ]
    assert without == [c]


def test_truth_that_contradicts_itself_is_refused():
    with pytest.raises(TruthError, match="line 3: contradicts line 2"):
        match([row(2, "1.2"), row(3, "ACC", present=False)], [study("1.2", also=("ACC",))])
