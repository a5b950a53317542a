"""Tables that `maskrcnn-export` prints."""

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maskrcnn.commands.console import session, show, wrapped
from runtime.artifact import Metadata
from runtime.errors import ArtifactCorruptError
from runtime.one_line import count_of, one_line

_NOTHING_COMPARED = (
    "no image has a detection of both it and the artifact, so nothing was compared with it and the Keras model was the "
    "reference: give images with the model's objects (--verify-images DIR)"
)
_KINDS = {"inputs": "inputs, set by every run", "constants": "constants; higher scores can be asked for"}

if TYPE_CHECKING:
    from export.benchmark.artifact import Benchmark
    from export.benchmark.comparison import Comparison
    from export.doctor.finding import DoctorFinding
    from export.verify.verdict import PrecisionGate, Verdict


def verdict_table(verdict: "Verdict") -> None:
    """Print a verdict."""
    show(verdict_lines(verdict), verdict=verdict)


def verdict_lines(verdict: "Verdict") -> list[str]:
    """Return a verdict as lines: the stages, the whole runs, and the outcome."""
    lines = [f"{verdict.engine} against {verdict.reference}"]
    lines += [part for line in _stage_lines(verdict) for part in wrapped(line, 22)]
    width = max((len(case.case) for case in verdict.cases), default=0)
    lines.append(f"  score threshold {verdict.score_threshold}, nms threshold {verdict.nms_threshold}")
    lines.append(f"  {'whole runs':<{width}}  found  boxes px   scores    masks")
    for case in verdict.cases:
        count = f"{case.found}" if case.found == case.expected else f"{case.found}/{case.expected}"
        values = f"{case.boxes:8.1e}  {case.scores:7.1e}  {case.masks:7.1e}"
        lines.append(f"  {case.case:<{width}}  {count:>5}  {values}  {_mark(case.passed)}")
        for reason in case.decisions[:3]:
            lines += wrapped(f"    depends on {reason}", 6)
        if len(case.decisions) > 3:
            lines.append(f"    and on {len(case.decisions) - 3} more: see the verdict")
        for objection in case.objections:
            lines += wrapped(f"    but {objection}", 6)
    if verdict.graph:
        transposes = verdict.graph["operators"].get("Transpose", 0)
        lines.append(f"  graph: {count_of(verdict.graph['nodes'], 'node')}, {transposes} Transpose, no control flow")
    lines += [part for line in _source_lines(verdict.source) for part in wrapped(line, 4)]
    outcome = _outcome(verdict.passed, float32=bool(verdict.precision))
    lines.append(f"verdict: {outcome} ({count_of(verdict.detections, 'detection')} compared)")
    if verdict.precision:
        lines += _precision_lines(verdict.precision)
    return lines


def gate(found: "PrecisionGate") -> None:
    """Print what lower precision costs, in total and per class."""
    show(_precision_lines(found.to_dict()), judgement=found)


def _source_lines(source: Mapping[str, Any]) -> list[str]:
    """Return what the genuine model of a PyTorch checkpoint found, from image to masks."""
    if not source:
        return []
    if not source["ran"]:
        return [f"source: {source['package']} was not run ({source['reason']}); the Keras model was the reference"]
    lines = [f"  {source['package']} from image to masks (weights read by {source['weights']})"]
    for case in source["cases"]:
        alone = case["near"] + case["unexplained"]
        values = f"{case['boxes']:.1e} px, scores {case['scores']:.1e}, masks {case['masks']:.2%}"
        lines.append(
            f"  {case['image']}: {case['matched']} of {case['expected']}, {values}, {alone} without counterpart  "
            f"{_mark(case['passed'])}"
        )
    if source["passed"] is None:
        lines.append(f"source: {_source_outcome(source)}")
    return lines


def _source_outcome(source: Mapping[str, Any]) -> str:
    """Return in one line what the comparison with the genuine model came to."""
    if not source["ran"]:
        return f"{source['package']} was not run: {source['reason']}"
    if source["passed"] is None:
        return f"{source['package']}: {_NOTHING_COMPARED}"
    pairs = sum(case["matched"] for case in source["cases"])
    return f"{'passed' if source['passed'] else 'FAILED'}: {source['package']}, {count_of(pairs, 'detection')} compared"


def _outcome(passed: bool, float32: bool) -> str:
    """Return the outcome; with lower precision it is that of the float32 graph."""
    return ("passed" if passed else "FAILED") + (" (float32 graph)" if float32 else "")


def _precision_lines(gate: Mapping[str, Any]) -> list[str]:
    """Return what lower precision costs, in total and per class."""
    before, after, allowed = gate["reference"], gate["found"], gate["allowed"]
    lines = [
        f"{gate['precision']}: {gate['measure']} {before:.4f} -> {after:.4f}, allowed drop {allowed:g}",
        f"  against {gate['against']}: {count_of(gate['objects'], 'object')} in {count_of(gate['pictures'], 'image')}; "
        + (
            f"{count_of(gate['calibrated'], 'other')} for calibration"
            if gate.get("calibrated")
            else "none for calibration"
        ),
    ]
    width = max((len(name) for name in gate["classes"]), default=0)
    for name, (before, after) in gate["classes"].items():
        if before is not None and after is not None:
            lines.append(f"  {name:<{width}}  {before:.4f} -> {after:.4f}")
    left = ", ".join(gate["left_in_float"]) or "only the last two products of the box head"
    return [*lines, *wrapped(f"  in float32: {left}", 4)]


def _stage_lines(verdict: "Verdict") -> list[str]:
    """Return one line per stage with the worst difference of each tensor."""
    stages: dict[str, list[str]] = {}
    failed: dict[str, bool] = {}
    for result in verdict.stages:
        stages.setdefault(result.stage, []).append(f"{result.tensor} {result.worst:.1e}")
        failed[result.stage] = failed.get(result.stage, False) or not result.passed
    return [f"  {name:<14}  {_mark(not failed[name]):<4}  {', '.join(parts)}" for name, parts in stages.items()]


def _mark(passed: bool) -> str:
    return "ok" if passed else "FAIL"


def metadata(path: Path, found: Metadata, flaw: str) -> None:
    """Print the metadata of an artifact; `flaw` is why its verdict proves nothing."""
    names = ", ".join(found.class_names[:6]) + (", ..." if len(found.class_names) > 6 else "")
    resize = ", ".join(f"{key} {value}" for key, value in found.resize.to_dict().items())
    lines = [
        f"{path}: {found.format}, model {found.name!r}" + (f", opset {found.opset}" if found.opset else ""),
        f"  classes     {len(found.class_names)}: {names}",
        f"  resize      {resize}",
        *(f"  {name:<12}{value}" for name, value in found.pixels.to_dict().items() if value is not None),
        f"  thresholds  score {found.score_threshold}, nms {found.nms_threshold} ({_KINDS[found.thresholds]})",
        f"  made by     {_pairs(found.producer)}",
        f"  made from   {_pairs(found.checkpoint)}",
        f"  needs       {_pairs(found.engine_minimum)} or later",
    ]
    lines = [lines[0], *(part for line in lines[1:] for part in wrapped(line, 14))]
    for title, tensors in (("inputs", found.inputs()), ("outputs", found.outputs())):
        lines.append(f"  {title}")
        for name, tensor in tensors.items():
            shape = "x".join("?" if side is None else str(side) for side in tensor["shape"]) or "scalar"
            lines += wrapped(f"    {name:<16}{tensor['dtype']:<9}{shape:<16}{tensor['meaning']}", 45)
    try:
        lines += [part for line in _verdict_lines(found, flaw) for part in wrapped(line, 14)]
    except (LookupError, TypeError, ValueError, AttributeError) as error:  # written by an older version, or made up
        raise ArtifactCorruptError(f"the verdict in {path} cannot be read: export the checkpoint again") from error
    show(lines, artifact=path, metadata=json.loads(found.to_json()), proven=not flaw, flaw=flaw)


def _verdict_lines(found: Metadata, flaw: str) -> list[str]:
    verdict = found.verdict
    outcome = _outcome(bool(verdict.get("passed")), float32=found.precision != "fp32")
    lines = [f"  edited      {note}" for note in found.edits]
    lines.append(f"  verdict     {outcome}: {verdict.get('engine')} against {verdict.get('reference')}")
    lines.append(f"  proven      {f'no: {flaw}' if flaw else 'yes: the verdict is about this very graph'}")
    if verdict.get("source"):
        lines.append(f"  source      {_source_outcome(verdict['source'])}")
    if verdict.get("precision"):
        lines += [f"  {line}" for line in _precision_lines(verdict["precision"])]
    return lines


def _pairs(values: object) -> str:
    return ", ".join(f"{key} {value}" for key, value in dict(values).items())  # type: ignore[call-overload]


def benchmark(found: "Benchmark") -> None:
    """Print times as a table: a row per batch size, number of detections and step."""
    size = " x ".join(map(str, found.image["image"]))
    lines = [f"{found.artifact} ({found.precision}) on {found.device}, an image of {size}, milliseconds"]
    lines.append("  batch  detections  step        p50      p90      p99  images/s")
    for timing in found.timings:
        for step, values in timing.milliseconds.items():
            figures = "  ".join(f"{value:7.1f}" for value in values.values())
            speed = f"{timing.images_per_second:8.2f}" if step == "total" else ""
            lines.append(f"  {timing.batch:>5}  {timing.detections:>10}  {step:<6}  {figures}  {speed}".rstrip())
    most = list(found.operators.items())[:8]
    lines += wrapped("  operators   " + ", ".join(f"{name} {value:.1f}" for name, value in most), 14)
    memory = "unknown" if found.peak_memory is None else f"{found.peak_memory:.0f} MB"
    lines += wrapped(f"  peak memory {memory};  {_pairs(found.machine)}", 14)
    show(lines, **found.to_dict())


def comparison(found: "Comparison") -> None:
    """Print a row per configuration, the fastest first, and the line of Python that opens the best."""
    ran = [row for row in found.rows if row.rounds]
    names = {id(row): (found.name(row), row.engine, row.device, row.precision) for row in found.rows}
    widths = [max(len(cell) for cell in column) for column in zip(*names.values(), strict=True)]
    judged = (
        f"mask AP against {found.against}: {count_of(found.objects, 'object')} in {count_of(found.images, 'image')}"
    )
    timed = f"{count_of(found.timed, 'image')} in {count_of(found.runs, 'round')}"
    lines = wrapped(f"{timed}; {judged if found.against else 'no average precision'}", 2)
    titles = _row(("artifact", "engine", "device", "precision"), widths)
    lines.append(f"  {titles}  threads        ms  images/s       MB  file MB      AP     drop")
    for place, row in enumerate(ran):
        mark = "*" if place == found.best else "=" if place in found.equal else " "
        numbers = [
            f"{'-' if row.threads is None else row.threads:>7}",
            f"{row.milliseconds['total']:8.1f}",
            f"{row.images_per_second:8.2f}",
            f"{'-' if row.memory is None else round(row.memory):>7}",
            f"{row.megabytes:7.1f}",
            f"{'-' if row.average_precision is None else f'{row.average_precision:.4f}':>6}",
            f"{'-' if row.drop is None else f'{row.drop:.4f}':>7}",
        ]
        lines.append(f"{mark} {_row(names[id(row)], widths)}  " + "  ".join(numbers))
    absent: dict[tuple[str, ...], list[str]] = {}
    for row in found.rows:
        if not row.rounds:
            absent.setdefault((row.engine, row.device, row.reason), []).append(f"{found.name(row)} {row.precision}")
    lines += [f"  not run: {way[0]} on {way[1]} ({', '.join(those)}): {way[2]}" for way, those in absent.items()]
    best = ran[found.best]
    allowed = f" with a drop of at most {found.max_drop:g}" if found.against else ""
    lines.append(f"fastest{allowed} (*): {best.milliseconds['total']:.1f} ms")
    if found.equal:
        lines.append(f"  as fast, within the noise of these rounds (=): {len(found.equal)} more")
    show([*lines, best.python], **found.to_dict())
    if not best.judged:
        options = f"--device {best.device} --precision {best.precision}"
        command = f"maskrcnn verify {shlex.quote(best.artifact)} {options}"
        show([f"after '{command} --truth DATASET' it needs no require_verdict=False"])


def _row(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(f"{cell:<{width}}" for cell, width in zip(cells, widths, strict=True))


def findings(found: "Sequence[DoctorFinding]") -> int:
    """Print the doctor's findings, each command that fixes one on a line of its own; return the exit code."""
    subjects = [one_line(finding.subject) for finding in found]
    width = max(map(len, subjects))
    lines: list[str] = []
    for subject, finding in zip(subjects, found, strict=True):
        lines.append(f"{finding.state:<7}  {subject:<{width}}  {one_line(finding.detail)}")
        if finding.fix:
            lines += [f"{'':<7}  to fix it:", finding.fix]
    show(lines, findings=found)
    problems = [one_line(finding.subject) for finding in found if finding.state == "problem"]
    if problems:
        session().note_error("Problem", f"there are problems with {', '.join(problems)}")
    return 3 if problems else 0
