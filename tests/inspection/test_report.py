"""The page and its numbers against independent sources."""

import json
from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf

from maskrcnn.checkpoints.named_weights import get_arrays
from maskrcnn.evaluation.metrics import AveragePrecision, average_precision
from maskrcnn.inspection.final_steps import find_candidates
from maskrcnn.inspection.model_report import findings, history_blocks, mean_precision, summary_blocks
from maskrcnn.inspection.output import Inspection
from maskrcnn.inspection.result_report import result_blocks
from runtime.errors import OutputError
from runtime.masks.rle import decode
from runtime.one_line import printable_path

SECTIONS = ("anchors", "refinement", "masks", "activations", "weights", "tensorboard", "result")


def page_text(folder):
    return (folder / "index.html").read_text(encoding="utf-8")


def test_all_seven_sections_are_there(report_folder):
    text = page_text(report_folder)
    for key in (*SECTIONS, "data"):
        assert f'<section id="{key}">' in text
        assert f'<a href="#{key}">' in text
    assert '<section id="artifact">' not in text


def test_the_page_says_what_the_figures_say(report_folder, read_page, figures):
    found = read_page(report_folder / "index.html").found
    (numbers,) = figures["pictures"]
    compared = 0
    for (key, picture), text in found.items():
        if picture == "0":
            value = numbers[key]
            assert text == (f"{value:.3f}" if isinstance(value, float) else str(value)), key
            compared += 1
    assert compared > 25


def test_anchor_and_result_numbers_come_out_the_same_elsewhere(figures, demo, detect_at, run):
    (numbers,) = figures["pictures"]
    detection = demo.config.detection
    found = detect_at()
    probs, rpn = run.tensors["class_probs"], run.tensors["rpn_probs"]
    expected = {
        "anchors.total": len(rpn),
        "anchors.by_score": min(1000, len(rpn)),
        "anchors.after_nms": int(np.any(run.tensors["proposals"] != 0, axis=1).sum()),
        "refinement.candidates": int(np.sum(probs.argmax(axis=1) > 0)),
        "final.proposals": len(probs),
        "final.confident": int(np.sum((probs.argmax(axis=1) > 0) & (probs.max(axis=1) >= detection.min_score))),
        "final.final": len(found),
        "masks.shown": len(found),
        "refinement.kept": len(found),
        "rois.sampled": demo.config.training.rois_per_image,
        "rois.largest_ratio": demo.config.training.roi_positive_ratio,
    }
    assert {key: numbers[key] for key in expected} == expected
    assert sum(numbers["rois.per_class"].values()) == numbers["rois.sampled"]
    assert numbers["anchors.deltas"]["predictions"]["count"] == numbers["anchors.total"]
    assert numbers["anchors.deltas"]["targets"]["count"] == numbers["anchors.positive"]
    assert numbers["refinement.deltas"]["predictions"]["count"] == numbers["refinement.candidates"]
    assert numbers["refinement.deltas"]["targets"]["count"] == numbers["rois.positive"]


def test_the_average_precision_is_matterports(figures, detect_at, record):
    """Computed from the predictor and the record, by the measure that is tested against the goldens."""
    (numbers,) = figures["pictures"]
    found = detect_at()
    instances = record.load_instances()
    masks = np.stack([decode(each.mask) for each in instances], axis=-1)
    boxes = np.array([[1, 1, 2, 2]] * len(instances))  # only marks rows that are not padding
    expected = average_precision(
        boxes,
        np.array([each.class_id for each in instances]),
        masks,
        found.boxes,
        found.class_ids,
        found.scores,
        np.moveaxis(found.masks, 0, -1),
    )
    assert numbers["truth.ap50"] == pytest.approx(expected.ap)
    assert numbers["truth.matches"] + numbers["truth.misses"] == numbers["truth.objects"] == len(instances)
    assert figures["result"]["ap50"] == pytest.approx(expected.ap)


def test_every_array_is_in_the_weight_table(figures, report_folder, read_page, demo):
    arrays = get_arrays(demo)
    assert [row["name"] for row in figures["weights"]] == list(arrays)
    found = read_page(report_folder / "index.html").found
    assert found["weights.arrays", ""] == str(len(arrays))
    assert found["weights.parameters", ""] == f"{sum(array.size for array in arrays.values()):,}"


@pytest.mark.parametrize("folder", ["report_folder", "crowded_folder", "empty_folder", "data_folder"])
def test_nothing_is_loaded_from_anywhere(folder, read_page, request):
    path = request.getfixturevalue(folder) / "index.html"
    parsed = read_page(path)
    assert all(address.startswith(("data:", "#")) for address in parsed.addresses)
    assert len(parsed.ids) == len(set(parsed.ids))
    assert "default-src 'none'" in path.read_text(encoding="utf-8")
    assert path.stat().st_size < 15e6


def test_names_are_only_text(crowded_folder, read_page):
    text = page_text(crowded_folder)
    parsed = read_page(crowded_folder / "index.html")
    assert parsed.scripts == 1 + 2  # the page's own, and the data of the two results
    assert "<script>alert" not in text
    assert "<img src=x" not in text
    assert "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;" in text
    assert "三角形" in text
    for number in ("0", "1"):
        assert parsed.found["final.final", number] == "100"


def test_the_data_of_the_sliders_is_whole(crowded_folder):
    text = page_text(crowded_folder)
    parts = text.split('<script type="application/json">')[1:]
    for part in parts:
        data = json.loads(part.split("</script>")[0])
        assert len(data["scores"]) == len(data["boxes"]) == len(data["classes"]) == len(data["hasArea"]) >= 100
        assert data["max"] == 100


def test_a_page_without_detections(empty_folder, read_page):
    found = read_page(empty_folder / "index.html").found
    assert (found["final.final", "0"], found["truth.misses", "0"], found["truth.ap50", "0"]) == ("0", "7", "0.000")


def test_events_for_tensorboard(report_folder, figures):
    (path,) = (report_folder / "tensorboard").iterdir()
    tags, images = {}, 0
    for event in tf.data.TFRecordDataset(str(path)):
        for value in tf.compat.v1.Event.FromString(event.numpy()).summary.value:
            kind = value.metadata.plugin_data.plugin_name
            tags.setdefault(kind, set()).add(value.tag)
            images += kind == "images"
            if value.tag == "anchors/positive" and kind == "scalars":
                assert tf.make_ndarray(value.tensor) == figures["pictures"][0]["anchors.positive"]
    assert {"anchors/positive", "refinement", "differences", "activations/C2", "activations/P5"} <= tags["images"]
    assert {"final_refinement", "rois/positive", "rois/negative"} <= tags["images"]
    assert {"activations/C5", "weights/conv1/kernel"} <= tags["histograms"]
    for part in ("anchors", "refinement"):
        for group in ("targets", "answers", "predictions"):
            assert {f"{part}/{group}/{name}" for name in ("dy", "dx", "dh", "dw")} <= tags["histograms"]
    assert "rois/positive_ratio" in tags["scalars"]
    assert "truth/ap50" in tags["scalars"]
    assert images > 20


def test_only_a_report_is_replaced_and_only_on_request(tmp_path):
    inspection = Inspection("x", [], [], [], {"pictures": []})
    inspection.write(tmp_path / "report")
    with pytest.raises(OutputError):
        inspection.write(tmp_path / "report")
    inspection.write(tmp_path / "report", overwrite=True)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(OutputError):
        inspection.write(tmp_path / "mine", overwrite=True)
    assert (tmp_path / "mine" / "thesis.txt").exists()


def test_data_in_a_script_cannot_end_it():
    from maskrcnn.inspection.html import _script

    text = _script({"name": "</script><script>alert(1)</script>"})
    assert "<" not in text
    assert json.loads(text) == {"name": "</script><script>alert(1)</script>"}


def test_the_result_shows_the_masks_of_the_detections(run, runner, truth):
    result, *rest = result_blocks(run, runner, find_candidates(run), truth)[0]
    detections = run.detections
    shown = [shape.mask for row, shape in enumerate(result.scene.shapes) if row in result.final]
    assert len(shown) == len(detections)
    for (pixels, place), (expected, where) in zip(shown, detections.mask_crops, strict=True):
        assert place == where
        np.testing.assert_array_equal(pixels, expected)
    overlaps = next(block for block in rest if block.title.startswith("IoU of masks"))
    for row, cells in enumerate(overlaps.rows):
        best = int(np.argmax([float(cell) for cell in cells[1:]]))
        assert overlaps.marks[row, best + 1] == "good"
        assert cells[0].split()[1] == overlaps.columns[best + 1].split()[1]


def test_names_that_are_not_utf8_and_numbers_that_are_not_finite(tmp_path):
    assert printable_path(b"caf\xe9.jpg".decode("utf-8", "surrogateescape")) == "caf\N{REPLACEMENT CHARACTER}.jpg"
    inspection = Inspection("x", [], [], [], {"pictures": [{"value": float("nan"), "list": [1.5, float("inf")]}]})
    inspection.write(tmp_path / "report")
    text = (tmp_path / "report" / "figures.json").read_text()
    assert json.loads(text, parse_constant=pytest.fail) == {"pictures": [{"value": None, "list": [1.5, None]}]}


def test_curves_of_an_unfinished_training_run():
    """The last epoch has no scores yet. A loss that is always zero has no curve, but its numbers are in the table."""
    history = [{"loss": 2.0, "l2_loss": 0.0, "val_mrcnn_mask_loss": 0.5, "val_segm_ap": 0.3}, {"loss": 1.0}]
    charts, table = history_blocks(history)
    assert len(charts.charts) == 2
    assert [name in charts.charts[0] for name in (">loss<", ">val mask<", "l2")] == [True, True, False]
    assert ">val mask AP<" in charts.charts[1]
    assert table.columns == ["epoch", "loss", "l2_loss", "val_mrcnn_mask_loss", "val_segm_ap"]
    assert table.rows == [["1", "2", "0", "0.5", "0.3"], ["2", "1", "-", "-", "-"]]
    assert history_blocks([]) == []


def test_the_legend_is_beside_the_curves_and_its_names_are_short():
    from maskrcnn.inspection.charts import curve_chart

    names = {"loss": "loss", "val_loss": "val loss", "mrcnn_bbox_loss": "box", "val_rpn_class_loss": "val RPN class"}
    figure = curve_chart({name: [1.0, 0.5] for name in names}, "Loss", "loss")
    figure.draw_without_rendering()
    (legend,), (axes,) = figure.legends, figure.axes
    assert axes.get_window_extent().x1 <= legend.get_window_extent().x0
    assert [each.get_text() for each in legend.get_texts()] == list(names.values())


def test_the_area_below_the_curve_is_the_average_precision():
    """Of three objects, the first and the third of three detections match two."""
    from maskrcnn.inspection.charts import precision_recall_chart

    recalls, precisions = np.array([0, 1 / 3, 1 / 3, 2 / 3, 1]), np.array([1, 1, 2 / 3, 2 / 3, 0])
    found = AveragePrecision(5 / 9, precisions, recalls, np.zeros((3, 3), np.float32))
    (axes,) = precision_recall_chart(found, "").axes
    (area,) = axes.collections
    x, y = area.get_paths()[0].vertices.T
    assert abs(np.sum(x * np.roll(y, -1) - y * np.roll(x, -1)) / 2) == pytest.approx(found.ap)
    (line,) = axes.lines
    assert line.get_drawstyle() == "steps-pre"


def test_the_summary_adds_up(figures, crowded_folder, artifact_folder, read_page):
    crowded = json.loads((crowded_folder / "figures.json").read_text(encoding="utf-8"))
    for found in (figures, crowded):
        summary, annotated = found["summary"], [each for each in found["pictures"] if "truth.objects" in each]
        assert summary["images"] == len(found["pictures"])
        assert summary["detections"] == sum(each["final.final"] for each in found["pictures"])
        assert summary["objects"] == summary["found"] + summary["missed"]
        assert summary["found"] == sum(each["truth.matches"] for each in annotated)
        assert summary["wrong"] == sum(each["truth.wrong_class"] + each["truth.false"] for each in annotated)
        scores = [each["truth.ap50"] for each in annotated if each["truth.objects"]]
        assert summary["ap50"] == (pytest.approx(np.mean(scores)) if scores else None)
        for each in found["pictures"]:
            assert sum(each["final.per_class"].values()) == each["final.final"]
    shown = read_page(crowded_folder / "index.html").found
    assert {key: shown[f"summary.{key}", ""] for key in ("images", "detections", "wrong", "ap")} == {
        "images": "2",
        "detections": "200",
        "wrong": "100",
        "ap": "-",  # the only annotated image has no objects
    }
    assert set(json.loads((artifact_folder / "figures.json").read_text())["summary"]) == {"images", "detections"}


def test_the_mean_precision_is_that_of_images_with_objects():
    """Matterport's AP of an image without objects is 1 or 0, whatever the model is worth."""
    pictures = [{"truth.ap50": score, "truth.ap": score} for score in (None, 0.5, 1.0)] + [{}]
    assert mean_precision(pictures) == {"ap50": 0.75, "ap": 0.75}
    assert mean_precision(pictures[:1]) == {"ap50": None, "ap": None}
    counts = dict.fromkeys(("objects", "matches", "misses", "wrong_class", "false", "duplicates"), 0)
    bare = {"name": "bare", "final.final": 0, "final.per_class": {}, "truth.ap50": None, "truth.ap": None}
    bare |= {f"truth.{name}": value for name, value in counts.items()}
    (block,), numbers = summary_blocks({"pictures": [bare], "result": mean_precision([bare])})
    assert (numbers["ap50"], block.numbers["summary.ap50"][1]) == (None, "-")
    assert block.rows[0][block.columns.index("AP50")] == "-"


def test_an_image_without_objects_has_no_precision(run, runner, truth):
    none = replace(truth, class_ids=truth.class_ids[:0], masks=truth.masks[..., :0], boxes=truth.boxes[:0])
    blocks, numbers = result_blocks(run, runner, find_candidates(run), none)
    assert (numbers["truth.objects"], numbers["truth.ap50"], numbers["truth.ap"]) == (0, None, None)
    assert "Precision and recall" not in [getattr(block, "title", "") for block in blocks]


def test_what_is_worth_a_look():
    quiet = {"final.final": 3, "truth.objects": 3, "truth.matches": 3, "anchors.recall_proposals": 1.0}
    quiet |= {f"truth.{key}": 0 for key in ("misses", "wrong_class", "false", "duplicates")}
    quiet["activations.P2"] = {"dead": [], "saturated": []}
    sound = {"name": "a/kernel", "dead": False, "overflow": False}
    figures = {"pictures": [quiet], "weights": [sound], "data": {"empty": 0, "boxes_differ": {"5": None}}}
    assert findings(figures | {"artifact": {"parity_check": True, "source_check": None}}) == []
    loud = quiet | {"final.final": 0, "truth.misses": 1, "truth.false": 2, "truth.duplicates": 1}
    loud |= {"activations.P2": {"dead": [1, 7], "saturated": [3]}, "anchors.recall_proposals": 0.5}
    weights = [sound | {"name": f"{flag}/kernel", flag: True} for flag in ("dead", "overflow")]
    data = {"empty": 1, "pictures_without_objects": 2, "boxes_differ": {"5": 0.125}}
    artifact = {"parity_check": False, "source_check": False}
    found = findings({"pictures": [quiet, loud], "weights": weights, "data": data, "artifact": artifact})
    assert [(each.section, each.picture) for each in found] == [
        *[("result", 1)] * 4,
        ("anchors", 1),
        *[("activations", 1)] * 2,
        *[("weights", None)] * 2,
        *[("data", None)] * 3,
        *[("artifact", None)] * 2,
    ]
    texts = [each.text for each in found]
    for text in (
        "no detections",
        "1 of 3 objects missed",
        "2 wrong detections",
        "1 duplicate",
        "2 dead channels: P2 2",
    ):
        assert text in texts
    assert "1 array dead: dead/kernel" in texts
    assert "12.5% of the boxes differ from their mask by 5 px or more" in texts


def test_the_page_of_an_artifact_tells_its_source(artifact_folder):
    text = page_text(artifact_folder)
    for part in ("hats.pth", "torchvision 0.29.1", "failed: 9 detections in 2 images"):
        assert f"<td>{part}</td>" in text
    assert "the artifact differs from the package that its checkpoint comes from" in text
