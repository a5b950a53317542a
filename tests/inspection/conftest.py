"""The run of the demo model on its image and the page made of it, shared by the tests of this folder."""

import copy
import json
import subprocess
import sys
from html.parser import HTMLParser

import numpy as np
import pytest


@pytest.fixture(scope="session")
def runner(demo):
    from maskrcnn.intermediates.stage_run import ModelStages

    return ModelStages(demo)


@pytest.fixture(scope="session")
def run(runner, picture):
    return runner.run(picture)


@pytest.fixture(scope="session")
def run_at(runner, picture):
    """Function that runs the demo image with other thresholds, without tracing the network again."""

    def run_at(score, nms=None):
        other = copy.copy(runner)
        other.score_threshold = score
        other.nms_threshold = runner.nms_threshold if nms is None else nms
        return other.run(picture)

    return run_at


@pytest.fixture(scope="session")
def detect_at(demo, picture):
    """Function that detects in the demo image as users do, at the model's thresholds or others, traced once."""
    from maskrcnn.checkpoint_predictor import CheckpointPredictor

    predictor = CheckpointPredictor(demo)

    def detect_at(score=demo.config.detection.min_score, nms=demo.config.detection.nms_threshold):
        predictor.score_threshold, predictor.nms_threshold = score, nms
        return predictor(picture)

    return detect_at


@pytest.fixture(scope="session")
def record():
    """The demo image and its seven objects."""
    from maskrcnn.demo import demo_dataset

    return demo_dataset().records[0]


@pytest.fixture(scope="session")
def sample(record, demo):
    from maskrcnn.data.sample import load_sample

    return load_sample(record, demo.config, np.random.default_rng(0), training=False)


@pytest.fixture(scope="session")
def truth(record, run):
    from maskrcnn.inspection.truth import truth_of

    return truth_of(record, run)


@pytest.fixture(scope="session")
def report_folder(artifact_store):
    """The folder that `maskrcnn inspect demo` writes."""
    from typer.testing import CliRunner

    from maskrcnn.cli import app

    def make(path):
        result = CliRunner().invoke(app, ["inspect", "demo", "-o", str(path)])
        assert result.exit_code == 0, result.output

    return artifact_store("report", make)


class _Figures(HTMLParser):
    """Collects the text of every element with `data-figure`, and all addresses that could load something."""

    def __init__(self):
        super().__init__()
        self.found, self.addresses, self.ids, self.scripts = {}, [], [], 0
        self._key = None

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.scripts += tag == "script"
        self.ids += [values["id"]] if "id" in values else []
        self.addresses += [values[name] for name in ("src", "href", "action", "data") if values.get(name)]
        if "data-figure" in values:
            self._key = values["data-figure"], values["data-of"]
            self.found[self._key] = ""

    def handle_data(self, data):
        if self._key:
            self.found[self._key] += data

    def handle_endtag(self, tag):
        if tag == "dd":
            self._key = None


@pytest.fixture(scope="session")
def read_page():
    """Parse a page; `found` has its figures by (key, picture)."""

    def read(path):
        parser = _Figures()
        parser.feed(path.read_text(encoding="utf-8"))
        return parser

    return read


@pytest.fixture(scope="session")
def figures(report_folder):
    """The numbers of the demo page."""
    return json.loads((report_folder / "figures.json").read_text(encoding="utf-8"))


NASTY_NAMES = (
    "<script>alert('x')</script>",
    "Straßenbahnhaltestellenüberdachungskonstruktion mit einem Namen, der nirgends ganz hineinpasst",
    "三角形",
    '$x$ & "quotes"',
)


@pytest.fixture(scope="session")
def crowded_folder(artifact_store):
    """The page of a model with 81 classes, hostile names, and 100 detections, none of them right."""
    from dataclasses import replace

    from benchmarks.seeded_weights import seed_weights
    from maskrcnn import MaskRCNN, sample_config
    from maskrcnn.data.records import Dataset, Record
    from maskrcnn.demo import demo_picture
    from maskrcnn.inspection.report import InspectedPicture, inspect_pictures
    from maskrcnn.intermediates.stage_run import ModelStages

    def make(path):
        demo = sample_config("demo")
        names = ["BG", *(f"class {number}" for number in range(1, 81))]
        for place, name in zip((22, 28, 12, 50), NASTY_NAMES, strict=True):  # these weights detect classes 22 and 28
            names[place] = name
        model = MaskRCNN(
            replace(
                demo,
                model=replace(demo.model, class_names=tuple(names)),
                detection=replace(demo.detection, max_detections=100, min_score=0.0, nms_threshold=0.8),
            )
        )
        seed_weights(model, 0)
        record = Record("x", demo_picture, ())
        pictures = [
            InspectedPicture("<img src=x onerror=alert(1)>.jpg", record, True),
            InspectedPicture("a second picture", record, False),
        ]
        dataset = Dataset("x", tuple(names), (record,))
        losses = ["loss", "l2_loss", "rpn_class_loss", "rpn_bbox_loss", "mrcnn_mask_loss"]
        names_of_curves = [*losses, *(f"val_{name}" for name in losses), "val_bbox_ap", "val_segm_ap50"]
        history = [{name: 0.0 if "l2" in name else 1 / epoch for name in names_of_curves} for epoch in (1, 2, 3)]
        given = {"title": "Inside <b>", "dataset": dataset, "history": history}
        inspect_pictures(ModelStages(model), pictures, **given).write(path)

    return artifact_store("crowded", make)


def mixed_dataset(folder):
    """Write a COCO dataset of 81 classes: a gray, an RGB and a tall image, one without objects, and three bad rows."""
    from PIL import Image

    drawn, images, annotations = np.random.default_rng(5), [], []
    for number, (size, mode) in enumerate(
        (((37, 53), "L"), ((120, 200), "RGB"), ((90, 31), "RGB"), ((64, 64), "RGB")), 1
    ):
        pixels = drawn.integers(0, 60 * number, (*size, 3) if mode == "RGB" else size).astype(np.uint8)
        Image.fromarray(pixels, mode).save(folder / f"image {number}.png")
        images.append({"id": number, "file_name": f"image {number}.png", "height": size[0], "width": size[1]})
    images.append({"id": 8, "file_name": "broken.png", "height": 10, "width": 10})
    (folder / "broken.png").write_bytes(b"not an image")
    images.append({"id": 9, "file_name": "nowhere.png", "height": 10, "width": 10})
    rows = [
        (1, 1, (2, 3, 20, 11), 0),  # image, class, x, y, width, height, crowd
        (1, 2, (30, 5, 9, 30), 0),
        (2, 2, (0, 0, 200, 120), 1),
        (2, 2, (10, 20, 150, 75), 0),
        (2, 3, (100, 60, 7, 7), 0),
        (3, 80, (1, 1, 1, 80), 0),
        (3, 99, (1, 1, 5, 5), 0),  # no such class
    ]
    for number, (image, category, (x, y, width, height), crowd) in enumerate(rows, 1):
        outline = [[x, y, x + width, y, x + width, y + height, x, y + height]]
        box = [x, y, width + (number == 2) * 6, height]  # the second box in the file is 6 pixels too wide
        row = {"id": number, "image_id": image, "category_id": category, "bbox": box, "iscrowd": crowd}
        if crowd:
            counts = [0, width * height]
            outline = {"size": [height, width], "counts": counts}
        annotations.append(row | {"segmentation": outline, "area": width * height})
    names = [f"class {number}" for number in range(1, 81)]
    names[1:5] = NASTY_NAMES
    categories = [{"id": number, "name": name} for number, name in enumerate(names, 1)]
    path = folder / "mixed.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return path


@pytest.fixture(scope="session")
def mixed(tmp_path_factory):
    """The path of `mixed_dataset`."""
    return mixed_dataset(tmp_path_factory.mktemp("mixed"))


@pytest.fixture(scope="session")
def data_folder(artifact_store, mixed):
    """The page of a dataset without a model, by the command, in a process that must not load TensorFlow."""
    code = (
        "import sys; from maskrcnn.cli import app; app(sys.argv[1:], standalone_mode=False); "
        "found = {'tensorflow', 'keras'} & set(sys.modules); assert not found, found"
    )

    def make(path):
        typed = ["inspect", "--dataset", str(mixed), "--config", "shapes", "-o", str(path)]
        subprocess.run([sys.executable, "-c", code, *typed], check=True)

    return artifact_store("data", make)


@pytest.fixture(scope="session")
def artifact_folder(artifact_store, request):
    """The page of an artifact, as if it came from PyTorch and had failed the comparison with it."""

    def make(path):
        from dataclasses import replace

        from maskrcnn.inspection.report import InspectedPicture, inspect_pictures
        from maskrcnn.intermediates.artifact_run import ArtifactStages
        from runtime import Predictor

        runner = ArtifactStages(Predictor(request.getfixturevalue("onnx_artifact"), device="cpu"))
        metadata = runner.predictor.metadata
        source = {"ran": True, "package": "torchvision 0.29.1", "images": 2, "passed": False}
        runner.predictor.metadata = replace(
            metadata,
            checkpoint={"name": "hats.pth", "sha256": "0123" * 16, "family": "torchvision"},
            verdict=dict(metadata.verdict) | {"source": source | {"cases": [{"matched": 4}, {"matched": 5}]}},
        )
        picture = InspectedPicture("demo.jpg", request.getfixturevalue("record"), False)
        inspect_pictures(runner, [picture], title="Inside hats.onnx").write(path)

    return artifact_store("artifact_page", make)


@pytest.fixture(scope="session")
def empty_folder(artifact_store, request):
    """The page of an image without detections."""

    def make(path):
        from maskrcnn.inspection.report import InspectedPicture, inspect_pictures
        from maskrcnn.intermediates.stage_run import ModelStages

        runner = ModelStages(request.getfixturevalue("demo"), score_threshold=1.0)
        picture = InspectedPicture("demo.jpg", request.getfixturevalue("record"), True)
        inspect_pictures(runner, [picture], title="Inside nothing").write(path)

    return artifact_store("empty", make)
