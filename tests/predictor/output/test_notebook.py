"""What a notebook shows of detections."""

import base64
import re
from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from runtime import Predictor
from runtime.output.show import shrunk, small_png


@pytest.fixture(scope="module")
def predictor(pytestconfig):
    with Predictor(pytestconfig.rootpath / "maskrcnn" / "demo.onnx", "cpu") as opened:
        yield opened


def noise(height, width):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def decoded(content):
    with Image.open(BytesIO(content)) as image:
        assert image.format == "PNG"
        return np.asarray(image)


def test_a_cell_that_ends_in_detections_shows_the_image_and_a_table(tmp_path, pytestconfig, picture, monkeypatch):
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    from nbformat.v4 import new_code_cell, new_notebook

    root = pytestconfig.rootpath
    monkeypatch.setenv("PYTHONPATH", str(root))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    Image.fromarray(picture).save(tmp_path / "street.png")
    begin = f"from runtime import Predictor\npredictor = Predictor({str(root / 'maskrcnn' / 'demo.onnx')!r}, 'cpu')\n"
    cells = [
        f"{begin}detections = predictor('street.png')\ndetections",
        "detections.show(labels=False)",
        "predictor(open('street.png', 'rb').read())",
        "predictor",
    ]
    notebook = new_notebook(cells=[new_code_cell(cell) for cell in cells])
    kernel = {"kernel_name": "python3", "timeout": 120, "resources": {"metadata": {"path": str(tmp_path)}}}
    nbclient.NotebookClient(notebook, **kernel).execute()
    (cell,), (shown,), (bare,), (opened,) = (each.outputs for each in notebook.cells)
    drawn = decoded(base64.b64decode(cell.data["image/png"]))
    assert drawn.shape == picture.shape
    assert (drawn != picture).any(axis=2).mean() > 0.05
    assert "<td>square</td>" in cell.data["text/html"]
    assert cell.data["text/plain"].startswith("7 detections")
    assert decoded(base64.b64decode(shown.data["image/png"])).shape == picture.shape
    assert "image/png" not in bare.data
    assert "given as bytes" in bare.data["text/html"]
    assert opened.data["text/plain"].startswith("Predictor('demo.onnx', onnx on cpu, 3 classes")


def test_the_page_has_image_and_table(predictor, picture):
    found = predictor(picture)
    page = found._repr_html_()
    (encoded,) = re.findall(r'src="data:image/png;base64,([^"]+)"', page)
    np.testing.assert_array_equal(decoded(base64.b64decode(encoded)), np.asarray(found.draw()))
    assert found._repr_mimebundle_() == {"image/png": encoded, "text/html": page}
    assert page.count("<tr>") == 1 + len(found)
    for name, score in zip(found.names, found.scores, strict=True):
        assert f"<td>{name}</td><td>{score:.3f}</td>" in page


def test_a_notebook_draws_once_and_keeps_at_most_three_megabytes(predictor, monkeypatch):
    formatters = pytest.importorskip("IPython.core.formatters")
    array = noise(1100, 1100)
    found, drawn = predictor(array), []
    monkeypatch.setattr("runtime.output.notebook.draw_detections", lambda image, *_: drawn.append(image) or image)
    data, _ = formatters.DisplayFormatter().format(found)
    assert {"image/png", "text/html", "text/plain"} == set(data)
    assert len(drawn) == 1
    assert 2**21 < sum(map(len, data.values())) < 3 * 10**6


def test_large_images_are_shrunk_before_they_are_drawn(predictor, picture):
    large = np.asarray(Image.fromarray(picture).resize((4000, 3000)))
    found = predictor(large)
    assert len(found) >= 6
    small = decoded(base64.b64decode(found._repr_mimebundle_()["image/png"]))
    assert small.shape == (768, 1024, 3)
    lines = (small != np.asarray(shrunk(Image.fromarray(large)))).any(axis=2)
    # Each box of the small image is where it is in the large one.
    for x1, y1, x2, y2 in found.boxes * 0.256:
        middle = lines[int(y1) + 2 : int(y2) - 2, int(x1) + 2 : int(x2) - 2]
        assert middle.mean() > 0.3


def test_a_png_has_at_most_a_megabyte():
    content = small_png(Image.fromarray(noise(1024, 1024)))
    assert 2**19 < len(content) <= 2**20
    assert decoded(content).shape[0] > 500
    assert shrunk(Image.fromarray(noise(1, 5000))).size == (1024, 1)
    small = Image.fromarray(noise(30, 20))
    assert shrunk(small) is small
    assert shrunk(Image.fromarray(noise(768, 1025))).size == (1024, 767)


def test_many_detections_and_odd_names(predictor, picture):
    found = predictor(picture)
    names = ("BG", "<b>a</b>", "half \ud800", "two\nlines")
    many = replace(found[[0] * 30 + list(range(len(found)))], class_names=names)
    page = many._repr_html_()
    assert page.count("<tr>") == 1 + 10 + 1
    assert f"and {len(many) - 10} more" in page
    assert "<b>" not in page
    page.encode()
    assert len(page) < 2**21


def test_there_is_always_something_to_show(predictor, picture, tmp_path):
    path = tmp_path / "<street>.png"
    Image.fromarray(picture).save(path)
    gone = predictor(path)
    path.unlink()
    nothing = predictor(picture, score_threshold=1.0)
    for found in (gone, gone[:0], predictor(picture.copy()), predictor(picture * 0)):
        assert list(found._repr_mimebundle_()) == ["text/html"]
        page = found._repr_html_()
        assert "<img" not in page
        assert "No image: " in page
        assert "<street>" not in page
    assert "image/png" in nothing._repr_mimebundle_()
    assert "0 detections" in nothing._repr_html_()
    assert "<table" not in nothing._repr_html_()
