"""The run of the demo model on its image and the page made of it, shared by the tests of this folder."""

import json
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
def report_folder(tmp_path_factory):
    """The folder that `maskrcnn inspect demo` writes."""
    from typer.testing import CliRunner

    from maskrcnn.cli import app

    folder = tmp_path_factory.mktemp("inspected") / "report"
    result = CliRunner().invoke(app, ["inspect", "demo", "-o", str(folder)])
    assert result.exit_code == 0, result.output
    return folder


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
def crowded_folder(tmp_path_factory):
    """The page of a model with 81 classes, hostile names, and 100 detections, none of them right."""
    from dataclasses import replace

    from benchmarks.seeded_weights import seed_weights
    from maskrcnn import MaskRCNN, sample_config
    from maskrcnn.data.records import Dataset, Record
    from maskrcnn.demo import demo_picture
    from maskrcnn.inspection.report import InspectedPicture, inspect_pictures
    from maskrcnn.intermediates.stage_run import ModelStages

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
    found = inspect_pictures(
        ModelStages(model), pictures, title="Inside <b>", dataset=Dataset("x", tuple(names), (record,))
    )
    folder = tmp_path_factory.mktemp("crowded") / "report"
    found.write(folder)
    return folder


@pytest.fixture(scope="session")
def empty_folder(tmp_path_factory, demo, record):
    """The page of an image without detections."""
    from maskrcnn.inspection.report import InspectedPicture, inspect_pictures
    from maskrcnn.intermediates.stage_run import ModelStages

    folder = tmp_path_factory.mktemp("empty") / "report"
    runner = ModelStages(demo, score_threshold=1.0)
    inspect_pictures(runner, [InspectedPicture("demo.jpg", record, True)], title="Inside nothing").write(folder)
    return folder
