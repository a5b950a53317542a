"""The parts of the page that belong to no image: the model, its training, and the exported graph."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from maskrcnn.inspection.charts import bar_chart, curve_chart, histogram_grid, to_svg
from maskrcnn.inspection.page_model import Block, Charts, Finding, Numbers, Summary, Table
from maskrcnn.inspection.proposal_steps import RECALL_IOU
from maskrcnn.inspection.weights import Arrays, kernels, kernels_by_part, weight_table
from maskrcnn.intermediates.artifact_run import placement_rows
from runtime.artifact import Metadata
from runtime.one_line import count_of
from runtime.placement import Placement

# Counts of the comparison with the annotations by their names in the summary.
_OUTCOMES = {
    "objects": ("objects",),
    "found": ("matches",),
    "missed": ("misses",),
    "wrong": ("wrong_class", "false"),
    "duplicates": ("duplicates",),
}
_SUMMARY_NAMES = {
    "images": "images",
    "detections": "detections",
    "objects": "annotated objects",
    "found": "found",
    "missed": "missed",
    "wrong": "wrong",
    "duplicates": "duplicates",
    "ap50": "mean AP at IoU 0.5",
    "ap": "mean AP over IoU 0.5 to 0.95",
}
_LARGE_DIFFERENCE = 5  # pixels between a box and its mask, one of DIFFERENCES
_FEW = 4


def weight_blocks(arrays: Arrays, other: Arrays | None) -> tuple[list[Block], list[dict[str, object]]]:
    """Describe the weights, by "<layer>/<variable>", as a table and histograms, next to those of another checkpoint."""
    rows = weight_table(arrays, other)
    columns = ["array", "shape", "min", "max", "mean", "std", "dead?", "overflow?"]
    cells = []
    marks: dict[tuple[int, int], str] = {}
    for number, row in enumerate(rows):
        shape = " x ".join(map(str, row.shape))
        flags = ["dead" if row.dead else "", "overflow" if row.overflow else ""]
        values = [f"{value:.4g}" for value in (row.low, row.high, row.mean, row.std)]
        cells.append([row.name, shape, *values, *flags])
        marks |= {(number, 6 + place): "bad" for place, flag in enumerate(flags) if flag}
        if other is not None:
            cells[-1].append("not in both" if row.change is None else f"{row.change:.3g}")
    counts = {
        "weights.arrays": ("arrays", str(len(rows))),
        "weights.parameters": ("parameters", f"{sum(array.size for array in arrays.values()):,}"),
        "weights.dead": ("dead kernels", str(sum(row.dead for row in rows))),
        "weights.overflow": ("arrays that overflow", str(sum(row.overflow for row in rows))),
    }
    if other is not None:
        columns.append("change")
        changed = sum(row.change is None or row.change != 0 for row in rows)  # NaN is a change
        counts["weights.changed"] = ("arrays that differ from the other checkpoint", str(changed))
        counts["weights.only_other"] = ("arrays only in the other checkpoint", str(len(other.keys() - arrays.keys())))
    intro = "Values of the kernels of convolutions and dense layers." + (
        "" if other is None else " Blue is this checkpoint, orange the other."
    )
    rivals = kernels(other or {})
    charts = [
        Charts(
            f"Histograms of the weights: {part}",
            intro,
            [to_svg(histogram_grid({name: each}, rivals)) for name, each in chosen.items()],
        )
        for part, chosen in kernels_by_part(arrays).items()
    ]
    blocks: list[Block] = [
        Numbers("All arrays together", counts),
        *charts,
        Table("All arrays", columns, cells, marks, folded=True),
    ]
    return blocks, [asdict(row) for row in rows]


def history_blocks(history: Sequence[Mapping[str, float]]) -> list[Block]:
    """Describe the training run of the checkpoint by its losses and scores, without those that are always zero."""
    if not history:
        return []
    curves: defaultdict[str, dict[str, list[float]]] = defaultdict(dict)
    names = list(dict.fromkeys(name for epoch in history for name in epoch))  # not every epoch has scores
    for name in names:
        values = [float(epoch.get(name, np.nan)) for epoch in history]
        kind = "loss" if "loss" in name else ("score" if "_ap" in name else "")
        if kind and np.nan_to_num(values).any():
            curves[kind][name] = values
    for kind, total in (("loss", "val_loss"), ("loss", "loss")):  # what the others add up to comes first
        if total in curves[kind]:
            curves[kind] = {total: curves[kind][total], **curves[kind]}
    charts = [to_svg(curve_chart(each, kind.capitalize() + " of each epoch", kind)) for kind, each in curves.items()]
    rows = [[str(number), *(_known(epoch.get(name)) for name in names)] for number, epoch in enumerate(history, 1)]
    intro = f"{count_of(len(history), 'epoch')}. Dashed lines are those of the validation images."
    return [
        Charts("Training run of this checkpoint", intro, charts),
        Table("Numbers of each epoch", ["epoch", *names], rows, folded=True),
    ]


def _known(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def mean_precision(figures: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
    """Return the mean over the images with objects of their average precision; None if there are none."""
    means: dict[str, float | None] = {}
    for name in ("ap50", "ap"):
        values = [each[f"truth.{name}"] for each in figures if each.get(f"truth.{name}") is not None]
        means[name] = float(np.mean(values)) if values else None
    return means


def artifact_blocks(metadata: Metadata, placement: Placement) -> tuple[list[Block], dict[str, Any]]:
    """Describe where the nodes of an exported graph run and for how long, and how it was exported."""
    rows = placement_rows(placement)
    total = sum(milliseconds for *_, milliseconds in rows)
    places = sorted({place for place, *_ in rows})
    shown = {
        "artifact.format": ("format", metadata.format if metadata.opset is None else f"onnx, opset {metadata.opset}"),
        "artifact.device": ("device", placement.device),
        "artifact.nodes": ("nodes", str(sum(count for _, _, count, _ in rows))),
        "artifact.milliseconds": ("time in operators", f"{total:.1f} ms"),
    }
    for place in places:
        count = sum(n for where, _, n, _ in rows if where == place)
        shown[f"artifact.nodes.{place}"] = (f"nodes on {place}", str(count))
    operators: defaultdict[str, float] = defaultdict(float)
    for _, operator, _, milliseconds in rows:
        operators[operator] += milliseconds
    cells = [[operator, place, str(count), f"{time:.3f}"] for place, operator, count, time in rows]
    passed = bool(metadata.verdict.get("passed"))
    made = [[name, version] for name, version in metadata.producer.items()]
    made += [["edited", note] for note in metadata.edits]
    made.append(["parity check", "passed" if passed else "not passed"])
    source = _source_rows(metadata)
    chart = bar_chart(operators, "Time by operator type, second run on the first image", "milliseconds")
    blocks: list[Block] = [
        Numbers("How the engine runs the graph", shown),
        Charts("Time by operator type", "Times of operators that run in parallel are added up.", [to_svg(chart)]),
        Table("Where each operator type runs", ["operator", "provider or device", "nodes", "milliseconds"], cells),
        Table("Source", ["field", "value"], source),
        Table("How it was exported", ["field", "value"], made),
    ]
    numbers = {
        "parity_check": passed,
        "source_check": (metadata.verdict.get("source") or {}).get("passed"),
        "device": placement.device,
        "nodes": {f"{place} {operator}": count for place, operator, count, _ in rows},
        "milliseconds": {f"{place} {operator}": time for place, operator, _, time in rows},
    }
    return blocks, numbers


def _source_rows(metadata: Metadata) -> list[list[str]]:
    """Return what the checkpoint was, and whether the artifact gives the detections of the package it comes from."""
    rows = [[f"checkpoint {name}", value] for name, value in metadata.checkpoint.items()]
    source = metadata.verdict.get("source")
    if isinstance(source, Mapping):
        rows.append(["package", str(source.get("package", "unknown"))])
        if not source.get("ran"):
            rows.append(["compared with the package", f"no: {source.get('reason', 'the reason is not recorded')}"])
        elif source.get("passed") is None:
            rows.append(["compared with the package", "there was no detection to compare"])
        else:
            pairs = sum(int(case.get("matched", 0)) for case in source.get("cases", []))
            outcome = "passed" if source["passed"] else "failed"
            found = f"{count_of(pairs, 'detection')} in {count_of(int(source.get('images') or 0), 'image')}"
            rows.append(["compared with the package", f"{outcome}: {found}"])
    return rows


def summary_blocks(figures: Mapping[str, Any]) -> tuple[list[Block], dict[str, Any]]:
    """Describe the whole inspection by the numbers of all images, a row for each image, and what to look at.

    Args:
        figures: All other numbers, see `report.Inspection`.
    """
    pictures = figures["pictures"]
    annotated = [each for each in pictures if "truth.objects" in each]
    numbers: dict[str, Any] = {"images": len(pictures), "detections": sum(each["final.final"] for each in pictures)}
    if annotated:
        numbers |= {name: sum(_outcomes(each)[name] for each in annotated) for name in _OUTCOMES}
        numbers |= {name: figures["result"][name] for name in ("ap50", "ap")}
    shown = {f"summary.{name}": (_SUMMARY_NAMES[name], _text(value)) for name, value in numbers.items()}
    compared = [*_OUTCOMES, "ap50", "ap"] if annotated else []
    rows = []
    for each in pictures:
        counts = _outcomes(each) | {name: each[f"truth.{name}"] for name in ("ap50", "ap")} if each in annotated else {}
        classes = ", ".join(f"{count} {name}" for name, count in each["final.per_class"].items())
        texts = [_text(counts[name]) if name in counts else "-" for name in compared]
        rows.append([each["name"], str(each["final.final"]), *texts, classes or "-"])
    columns = ["image", "detections", *(name.replace("ap", "AP") for name in compared), "classes"]
    return [Summary(shown, columns, rows, findings(figures))], numbers


def findings(figures: Mapping[str, Any]) -> list[Finding]:
    """Return what a reader should look at: errors, dead channels and weights, doubtful data, a failed check.

    Args:
        figures: All other numbers, see `report.Inspection`.
    """
    found = [finding for number, each in enumerate(figures["pictures"]) for finding in _picture_findings(each, number)]
    weights = figures.get("weights", ())
    for flag, what in (("dead", "dead"), ("overflow", "with values beyond 1000 or not finite")):
        names = [row["name"] for row in weights if row[flag]]
        if names:
            found.append(Finding("weights", f"{count_of(len(names), 'array')} {what}: {_few(names)}"))
    data = figures.get("data", {})
    for key, what in (("empty", "object"), ("pictures_without_objects", "image")):
        if data.get(key):
            without = "without a pixel" if key == "empty" else "without objects"
            found.append(Finding("data", f"{count_of(data[key], what)} of the dataset {without}"))
    share = data.get("boxes_differ", {}).get(str(_LARGE_DIFFERENCE))
    if share:
        found.append(
            Finding("data", f"{share:.1%} of the boxes differ from their mask by {_LARGE_DIFFERENCE} px or more")
        )
    artifact = figures.get("artifact", {})
    if artifact.get("parity_check") is False:
        found.append(Finding("artifact", "the artifact did not pass the parity check"))
    if artifact.get("source_check") is False:
        found.append(Finding("artifact", "the artifact differs from the package that its checkpoint comes from"))
    return found


def _picture_findings(each: Mapping[str, Any], number: int) -> list[Finding]:
    rows = []
    if not each["final.final"]:
        rows.append(("result", "no detections"))
    if "truth.objects" in each:
        counts = _outcomes(each)
        if counts["missed"]:
            rows.append(("result", f"{counts['missed']} of {count_of(counts['objects'], 'object')} missed"))
        for name, what in (("wrong", "wrong detection"), ("duplicates", "duplicate")):
            if counts[name]:
                rows.append(("result", count_of(counts[name], what)))
    recall = each.get("anchors.recall_proposals")
    if recall is not None and recall < 1:
        rows.append(("anchors", f"proposals reach only {recall:.0%} of the objects at IoU {RECALL_IOU}"))
    for kind in ("dead", "saturated"):
        layers = {
            key.removeprefix("activations."): len(values[kind])
            for key, values in each.items()
            if key.startswith("activations.") and values[kind]
        }
        if layers:
            listed = _few([f"{name} {count}" for name, count in layers.items()])
            rows.append(("activations", f"{count_of(sum(layers.values()), f'{kind} channel')}: {listed}"))
    return [Finding(section, text, number) for section, text in rows]


def _outcomes(figures: Mapping[str, Any]) -> dict[str, int]:
    """Return the counts of an annotated image by their names in the summary."""
    return {name: sum(figures[f"truth.{key}"] for key in keys) for name, keys in _OUTCOMES.items()}


def _text(value: float | None) -> str:
    return "-" if value is None else (f"{value:.3f}" if isinstance(value, float) else str(value))


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:_FEW]) + (f" and {len(names) - _FEW} more" if len(names) > _FEW else "")
