"""The parts of the page that belong to no image: the model, its training, the dataset, and the exported graph."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from maskrcnn.inspection.charts import bar_chart, curve_chart, distribution_chart, histogram_grid, to_svg
from maskrcnn.inspection.data_statistics import DIFFERENCES, DatasetStatistics
from maskrcnn.inspection.page_model import Block, Charts, Numbers, Table
from maskrcnn.inspection.weights import Arrays, kernels, kernels_by_part, weight_table
from maskrcnn.intermediates.artifact_run import placement_rows
from runtime.artifact import Metadata
from runtime.placement import Placement


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
    blocks: list[Block] = [Numbers("Summary", counts), *charts, Table("All arrays", columns, cells, marks, folded=True)]
    return blocks, [asdict(row) for row in rows]


def history_blocks(history: Sequence[Mapping[str, float]]) -> list[Block]:
    """Describe the training run of the checkpoint by its losses and scores."""
    if not history:
        return []
    curves: defaultdict[str, dict[str, list[float]]] = defaultdict(dict)
    for name in dict.fromkeys(name for epoch in history for name in epoch):  # not every epoch has scores
        values = [float(epoch.get(name, np.nan)) for epoch in history]
        kind = "loss" if "loss" in name else ("score" if "_ap" in name else "")
        if kind:
            curves[kind][name] = values
    charts = [to_svg(curve_chart(each, kind.capitalize() + " of each epoch", kind)) for kind, each in curves.items()]
    return [Charts("Training run of this checkpoint", f"{len(history)} epochs.", charts)]


def dataset_blocks(statistics: DatasetStatistics) -> tuple[list[Block], dict[str, Any]]:
    """Describe a dataset by counts and histograms, and by how well its boxes fit its masks."""
    numbers = statistics.numbers
    shown = {
        "dataset.pictures": ("images read", f"{statistics.pictures} of {statistics.total}"),
        "dataset.objects": ("objects", str(numbers["objects"])),
        "dataset.crowds": ("crowds", str(numbers["crowds"])),
        "dataset.empty": ("objects without a pixel", str(numbers["empty"])),
        "dataset.pictures_without_objects": ("images without objects", str(numbers["pictures_without_objects"])),
        "dataset.file_boxes": ("boxes in the file", str(numbers["file_boxes"])),
    }
    for limit in DIFFERENCES:
        share = numbers["boxes_differ"][str(limit)]
        value = "-" if share is None else f"{share:.2%}"
        shown[f"dataset.boxes_differ_{limit}"] = (f"boxes that differ from their mask by {limit} px or more", value)
    charts = [to_svg(bar_chart(statistics.per_class, "Objects per class", "objects"))]
    if len(statistics.sides):
        charts.append(
            to_svg(distribution_chart(statistics.sides, "Size of objects", "square root of the area (pixels)"))
        )
    charts.append(to_svg(distribution_chart(statistics.objects_per_picture, "Objects per image", "objects")))
    return [Numbers("The dataset", shown), Charts("Classes and sizes", "", charts)], numbers


def mean_precision(figures: Sequence[Mapping[str, Any]]) -> tuple[list[Block], dict[str, float]]:
    """Return the mean over the annotated images of their average precision."""
    annotated = [each for each in figures if "truth.ap50" in each]
    means = {name: float(np.mean([each[f"truth.{name}"] for each in annotated])) for name in ("ap50", "ap")}
    shown = {
        "result.ap50": (f"mean AP at IoU 0.5 (images: {len(annotated)})", f"{means['ap50']:.3f}"),
        "result.ap": ("mean AP over IoU 0.5 to 0.95", f"{means['ap']:.3f}"),
    }
    return [Numbers("All annotated images", shown)], means


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
    made = [[name, version] for name, version in metadata.producer.items()]
    made += [[f"checkpoint {name}", value] for name, value in metadata.checkpoint.items()]
    made.append(["parity check", "passed" if metadata.verdict.get("passed") else "not passed"])
    chart = bar_chart(operators, "Time by operator type, second run on the first image", "milliseconds")
    blocks: list[Block] = [
        Numbers("How the engine runs the graph", shown),
        Charts("Time by operator type", "Times of operators that run in parallel are added up.", [to_svg(chart)]),
        Table("Where each operator type runs", ["operator", "provider or device", "nodes", "milliseconds"], cells),
        Table("How it was exported", ["field", "value"], made),
    ]
    numbers = {
        "device": placement.device,
        "nodes": {f"{place} {operator}": count for place, operator, count, _ in rows},
        "milliseconds": {f"{place} {operator}": time for place, operator, _, time in rows},
    }
    return blocks, numbers
