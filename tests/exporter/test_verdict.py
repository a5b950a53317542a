"""Verdicts: when one passes, how it describes a failure, and that it survives JSON."""

import json
from dataclasses import replace

import pytest

from export.errors import ParityError, PrecisionError
from export.verify import tolerances
from export.verify.verdict import CaseResult, PrecisionGate, StageResult, Verdict

STAGE = StageResult("mask head", "masks", 1e-6, 1e-4, relative=False)
CASE = CaseResult("picture (alone, 1)", 4, 4, 1e-5, 1e-7, 1e-6, passed=True)
VERDICT = Verdict("keras", "engine", 0.5, 0.3, [STAGE], [CASE], {"nodes": 3, "operators": {"Add": 3}})


def test_sound_verdict_passes():
    assert VERDICT.passed
    assert VERDICT.detections == 4
    assert VERDICT.failures() == []


@pytest.mark.parametrize(
    ("worst", "passed"), [(1e-4, True), (1.01e-4, False), (float("inf"), False), (float("nan"), False)]
)
def test_stage_passes_up_to_its_tolerance(worst, passed):
    stage = replace(STAGE, worst=worst)
    assert stage.passed is passed
    assert replace(VERDICT, stages=[STAGE, stage]).passed is passed


def test_failed_stage_is_named():
    (sentence,) = replace(VERDICT, stages=[STAGE, replace(STAGE, tensor="other", worst=0.25)]).failures()
    assert sentence == "stage 'mask head': other differs by 2.50e-01; the tolerance is 1e-04"


def test_failed_case_is_named():
    verdict = replace(VERDICT, cases=[CASE, replace(CASE, case="second", found=3, masks=0.5, passed=False)])
    assert not verdict.passed
    (sentence,) = verdict.failures()
    assert sentence.startswith("second: 4 detections became 3;")
    assert "masks by 5.00e-01" in sentence


@pytest.mark.parametrize("cases", [[], [replace(CASE, expected=0, found=0)]], ids=["no case", "no detection"])
def test_nothing_compared_is_not_passed(cases):
    verdict = replace(VERDICT, cases=cases)
    assert not verdict.passed
    (sentence,) = verdict.failures()
    assert "the model detects nothing in the verification images" in sentence
    assert "--verify-images" in sentence


def test_detections_of_the_artifact_alone_prove_nothing():
    assert not replace(VERDICT, cases=[replace(CASE, expected=0, found=7)]).passed


def test_dictionary_is_json_and_equal_after_a_round_trip():
    case = replace(CASE, decisions=("one", "two"), objections=("three",))
    values = replace(VERDICT, cases=(case,), stages=(STAGE,)).to_dict()
    assert json.loads(json.dumps(values)) == values
    assert values["passed"] is True
    assert values["cases"][0]["decisions"] == ["one", "two"]
    assert values["cases"][0]["objections"] == ["three"]
    assert values["stages"][0]["worst"] == STAGE.worst
    assert values["graph"] == VERDICT.graph
    assert values["tolerances"]["masks"] == tolerances.MASKS.bound


def test_failed_verdict_says_so_in_its_dictionary():
    assert replace(VERDICT, cases=[replace(CASE, passed=False)]).to_dict()["passed"] is False


def test_dictionary_of_an_infinite_difference_is_equal_after_a_round_trip():
    values = replace(VERDICT, stages=[replace(STAGE, worst=float("inf"))]).to_dict()
    assert json.loads(json.dumps(values)) == values


def test_error_is_one_line_and_counts_the_failures():
    failed = replace(VERDICT, stages=[replace(STAGE, worst=1.0)] * 3)
    error = ParityError(failed)
    assert error.verdict is failed
    assert str(error) == (
        "the artifact does not match the model: "
        "stage 'mask head': masks differs by 1.00e+00; the tolerance is 1e-04 (and 2 more)"
    )
    assert "more" not in str(ParityError(replace(VERDICT, stages=[replace(STAGE, worst=1.0)])))


def test_one_detection_is_something_to_compare_and_a_case_counts_rows_from_none():
    case = CaseResult("picture", 1, 1, 0.0, 0.0, 0.0, passed=True)
    assert (case.unmatched, case.swapped, case.decisions, case.objections) == (0, 0, (), ())
    assert Verdict("model", "engine", 0.5, 0.3, [], [case]).passed


GATE = PrecisionGate("int8", "annotations", "mask AP", 2, 5, 0.9, 0.89, 0.0125, {"a": (0.9, 0.89)}, ("FPN",))


@pytest.mark.parametrize(
    ("found", "objects", "passed"), [(0.89, 5, True), (0.95, 5, True), (0.88, 5, False), (0.9, 0, False)]
)
def test_lower_precision_may_lose_what_is_allowed_where_there_are_objects(found, objects, passed):
    gate = replace(GATE, found=found, objects=objects)
    assert gate.passed is passed
    assert gate.drop == pytest.approx(0.9 - found)


@pytest.mark.parametrize("found", [0.0, 0.01, 0.5])
@pytest.mark.parametrize(("reference", "allowed"), [(0.0, 0.0125), (0.0, 0.0), (0.01, 0.0125), (0.9, 1.0)])
def test_a_reference_that_finding_nothing_would_equal_proves_nothing(reference, allowed, found):
    assert not replace(GATE, reference=reference, allowed=allowed, found=found).passed


def test_a_gate_as_json_is_what_is_read_back():
    values = GATE.to_dict()
    assert json.loads(json.dumps(values)) == values
    assert values["drop"] == pytest.approx(0.01)
    assert (values["passed"], values["left_in_float"], values["classes"]) == (True, ["FPN"], {"a": [0.9, 0.89]})


def test_the_error_of_lower_precision_carries_its_gate():
    error = PrecisionError(replace(GATE, found=0.7))
    assert error.gate.drop == pytest.approx(0.2)
    assert "drops from 0.9000 to 0.7000; the largest allowed drop is 0.0125" in str(error)
    assert "--max-drop" in str(error)
