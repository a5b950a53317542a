"""Detections find the image that they are from: by path, or weakly, and never a wrong one."""

import copy
import gc
import os
import pickle
import tracemalloc
import weakref
from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from runtime import Predictor
from runtime.errors import ImageError, InputError, OutputError
from runtime.pictures.letterbox import ResizePolicy
from runtime.pictures.pixels import PixelPolicy
from runtime.steps import letterbox_picture, to_detections

NAMES = ("BG", "thing")
POLICY = ResizePolicy("square", 32, 64)


@pytest.fixture(scope="module")
def demo_predictor(pytestconfig):
    with Predictor(pytestconfig.rootpath / "maskrcnn" / "demo.onnx", "cpu") as opened:
        yield opened


@pytest.fixture
def street(tmp_path, picture, monkeypatch):
    """A file in the working folder, named by a relative path."""
    monkeypatch.chdir(tmp_path)
    Image.fromarray(picture).save("street.png")
    return "street.png"


def noise(height=40, width=50, channels=3, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), np.uint8)


def find(image, channels=3, pixels=None, resize=POLICY, **options):
    """Detect one thing in the middle, as a predictor does, without an engine."""
    letterbox, _ = letterbox_picture(
        image, channels, resize, pixels=pixels or PixelPolicy(), **{"remember": True, **options}
    )
    height, width = letterbox.input_size
    outputs = {
        "num_detections": np.int32(1),
        "boxes": np.float32([[width / 4, height / 4, width * 3 / 4, height * 3 / 4]]),
        "scores": np.float32([0.9]),
        "class_ids": np.int32([1]),
        "masks": np.ones((1, 4, 4), np.float32),
    }
    return to_detections(outputs, letterbox, NAMES, "matterport")


def same(found, image):
    np.testing.assert_array_equal(found.read_image(), image)
    np.testing.assert_array_equal(np.asarray(found.draw()), np.asarray(found.draw(image)))
    assert not np.array_equal(np.asarray(found.draw()), image)
    np.testing.assert_array_equal(np.asarray(found.splash()), np.asarray(found.splash(image)))


@pytest.mark.parametrize("how", ["call", "batch", "stream"])
@pytest.mark.parametrize("source", ["path", "Path", "array", "PIL image", "view"])
def test_a_predictor_s_detections_need_no_image(demo_predictor, picture, street, tmp_path, source, how):
    bgr = np.ascontiguousarray(picture[:, :, ::-1])
    image = {
        "path": street,
        "Path": tmp_path / street,
        "array": picture.copy(),
        "PIL image": Image.fromarray(picture),
        "view": bgr[:, :, ::-1],
    }[source]
    if how == "call":
        found = demo_predictor(image)
    elif how == "batch":
        found, _ = demo_predictor.predict_batch([image, picture[:200]])
    else:
        found, _ = demo_predictor.predict_stream([image, picture[:200]])
    if source == "view":
        del image  # only its memory's owner is left
    assert found.image_path == (str(tmp_path / street) if source in ("path", "Path") else None)
    same(found, picture)
    os.chdir("/")
    same(found, picture)


def test_it_is_the_same_for_every_part_and_copy(picture, street):
    array = picture.copy()
    for image in (street, array):
        found = find(image)
        for each in (found[0], found[:], found[[True]], *found, found.filter(0.5, "thing"), copy.copy(found)):
            same(each, picture)
        same(copy.deepcopy(found), picture)
        assert hash(found) == object.__hash__(found)
        assert found == found  # noqa: PLR0124
        assert found != find(image)


def test_what_travels_to_another_process(picture, street, tmp_path):
    array = picture.copy()
    for image in (array, Image.fromarray(array), array[::-1]):
        found = find(image)
        arrived = pickle.loads(pickle.dumps(found))
        assert len(pickle.dumps(found)) < 2000
        assert (arrived.scores.tolist(), arrived.image_path) == (found.scores.tolist(), None)
        with pytest.raises(ImageError, match=r"no longer exists here: pass the image, as in draw\(image\)"):
            arrived.draw()
        arrived.draw(array)
    same(pickle.loads(pickle.dumps(find(street))), picture)
    assert pickle.loads(pickle.dumps(find(street))).image_path == str(tmp_path / street)


def test_pixels_are_not_kept():
    """Three hundred images of a megabyte would take 300 MB."""
    tracemalloc.start()
    try:
        results, alive = [], []
        before = tracemalloc.get_traced_memory()[0]
        for seed in range(300):
            image = np.full((590, 592, 3), seed % 256, np.uint8)
            results.append(find(image))
            alive.append(weakref.ref(image))
        del image
        gc.collect()
        used = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert not any(each() is not None for each in alive)
    assert used < 4000 * len(results)  # bytes, mostly NumPy's
    with pytest.raises(ImageError, match="the array that was predicted no longer exists"):
        results[0].draw()


def test_what_was_decoded_from_a_file_or_bytes_is_not_kept_either(street, tmp_path):
    content = (tmp_path / street).read_bytes()
    tracemalloc.start()
    try:
        results = [find(source) for source in (street, content, BytesIO(content), Image.open(street)) * 3]
        gc.collect()
        assert tracemalloc.get_traced_memory()[0] < 100_000
    finally:
        tracemalloc.stop()
    assert len(results) == 12


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (find, "was given as bytes, which detections do not keep"),
        (lambda content: find(memoryview(content)), "was given as bytes, which detections do not keep"),
        (lambda content: find(BytesIO(content)), "was given as an open file, which detections do not keep"),
        (lambda content: find(Image.open(BytesIO(content))), "the PIL image that was predicted no longer exists here"),
        (lambda content: find(np.zeros((40, 50, 3), np.uint8)), "the array that was predicted no longer exists here"),
        (lambda content: find(content, remember=False), r"they were made by hand, or with remember_image=False"),
        (lambda content: find(noise(channels=5), channels=5), "5 channels, which are not colors"),
    ],
    ids=["bytes", "memoryview", "file", "PIL image", "array", "switched off", "no colors"],
)
def test_an_image_that_cannot_be_found(make, said, street, tmp_path):
    found = make((tmp_path / street).read_bytes())
    for use in (found.draw, found.splash, found.read_image, found.show, lambda: found.save(tmp_path / "out.png")):
        with pytest.raises(ImageError, match=said) as refused:
            use()
        assert "pass the image, as in draw(image)" in str(refused.value).replace(" it, ", " the image, ")
    assert not (tmp_path / "out.png").exists()
    assert found.image_path is None


def test_a_file_that_is_gone_or_another_one(picture, street, tmp_path):
    found = find(street)
    path = tmp_path / street
    content = path.read_bytes()
    Image.fromarray(255 - picture).save(path)  # of the same size
    with pytest.raises(ImageError, match=r"street\.png has changed since it was predicted"):
        found.draw()
    Image.fromarray(picture[:100]).save(path)
    with pytest.raises(ImageError, match=r"street\.png has changed since it was predicted"):
        found.draw()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(ImageError, match=r"street\.png.* it could be read when it was predicted"):
        found.draw()
    path.unlink()
    with pytest.raises(ImageError, match=r"street\.png.* does not exist.* it could be read when it was predicted"):
        found.draw()
    path.write_bytes(content)
    os.utime(path, (1, 1))
    same(found, picture)  # it is back; times do not matter


def test_a_pil_image_that_was_opened_for_one_call(picture, street, tmp_path):
    found = find(Image.open(street))
    gc.collect()
    assert found.image_path is None
    same(found, picture)
    same(pickle.loads(pickle.dumps(found)), picture)
    shrunk = Image.open(street)
    shrunk.thumbnail((100, 100))
    smaller = find(shrunk)
    same(smaller, np.asarray(shrunk))
    del shrunk
    with pytest.raises(ImageError, match="the PIL image has changed since it was predicted"):
        smaller.draw()
    (tmp_path / street).unlink()
    with pytest.raises(ImageError, match="it could be read when it was predicted"):
        found.draw()


def test_a_frame_that_was_overwritten():
    """A camera's buffer: the next frame must not be drawn with the detections of the last one."""
    buffer = noise()
    found, turned = find(buffer), find(buffer[:, :, ::-1])
    original = buffer.copy()
    buffer[20:24, 20:24] += 100  # a small thing that moves
    for each in (found, turned):
        with pytest.raises(ImageError, match="the array has changed since it was predicted"):
            each.draw()
    pil = Image.fromarray(original)
    drawn_on = find(pil)
    pil.putpixel((25, 20), (1, 2, 3))
    with pytest.raises(ImageError, match="the PIL image has changed since it was predicted"):
        drawn_on.draw()
    buffer[:] = original
    same(found, original)
    same(turned, original[:, :, ::-1])


@pytest.mark.parametrize(
    "view",
    [
        lambda array: array[::2, 1::3],
        lambda array: array[:, :, ::-1],
        lambda array: array[::-1, ::-1],
        lambda array: array.transpose(1, 0, 2),
        lambda array: array[5:, 7:][::-1],
        lambda array: array[None][0],
        lambda array: array.view(),
    ],
)
def test_views_are_found_through_their_owner(view):
    array = noise()
    found, expected = find(view(array)), view(array).copy()
    same(found, expected)
    owner = weakref.ref(array)
    del array
    assert owner() is None
    with pytest.raises(ImageError, match="no longer exists"):
        found.draw()


@pytest.mark.parametrize("resize", [ResizePolicy("none"), ResizePolicy("short_side", resampling="float")])
@pytest.mark.parametrize("row", [1, 500, 1022])
def test_small_changes_of_large_inputs_are_seen(resize, row):
    image = noise(1024, 704)
    found = find(image, resize=resize)
    np.testing.assert_array_equal(found.read_image(), image)
    before = image.copy()
    image[row, 40:44] = image[row, 44:48]  # a small thing that moves
    with pytest.raises(ImageError, match="has changed"):
        found.draw()
    image[:] = before
    np.testing.assert_array_equal(found.read_image(), image)


@pytest.mark.parametrize("order", ["C", "F"])
def test_what_is_read_cannot_be_written_to(order, street):
    array = np.asarray(noise(), order=order)
    for image in (array, array[:, :, ::-1], street):
        found = find(image)
        pixels = found.read_image()
        assert not pixels.flags.writeable
        found.draw()
    assert array.flags.writeable
    found = find(array[::-1, 3:])  # in the order of Fortran, found through its owner, too
    np.testing.assert_array_equal(found.read_image(), array[::-1, 3:])


def test_a_closed_pil_image_is_read_from_its_file(picture, street):
    opened = Image.open(street)
    found = find(opened)
    opened.close()
    same(found, picture)


@pytest.mark.parametrize("remember", [True, False])
def test_an_image_that_is_given_may_be_as_large_as_the_one_that_was_predicted(remember, monkeypatch):
    monkeypatch.setattr("runtime.output.splash.MAX_PIXELS", 1000)  # of 100 million
    array = noise()
    found = find(array, max_pixels=2000, remember=remember)
    for image in (array, Image.fromarray(array)):
        found.draw(image)
        found.splash(image)
    if remember:
        found.draw()
    with pytest.raises(ImageError, match="40 x 51 pixels; at most 2000 are allowed"):
        found.draw(noise(51, 40))


@pytest.mark.parametrize("kind", [np.uint16, np.float32])
def test_an_image_that_is_given_is_read_as_the_predictor_reads_it(kind, tmp_path):
    deep = np.random.default_rng(0).integers(0, 4096, (40, 50, 3)).astype(kind)
    found = find(deep, pixels=PixelPolicy((0, 4095)))
    expected = np.asarray(found.draw())
    np.testing.assert_array_equal(np.asarray(found.draw(deep.copy())), expected)
    np.testing.assert_array_equal(np.asarray(found.draw(found.read_image())), expected)  # not scaled again
    np.testing.assert_array_equal(np.asarray(found.splash(deep)), np.asarray(found.splash()))
    found.save(tmp_path / "drawn.png", deep)
    bands = noise(channels=5)
    found = find(bands, pixels=PixelPolicy(bands=(4, 3, 2)))
    expected = np.asarray(found.draw())
    np.testing.assert_array_equal(np.asarray(found.draw(bands)), expected)
    rgb = np.ascontiguousarray(bands[:, :, 3:0:-1])
    for image in (rgb, Image.fromarray(rgb)):  # without a fourth band
        np.testing.assert_array_equal(np.asarray(found.draw(image)), expected)


def test_the_image_is_read_as_the_predictor_read_it(tmp_path):
    deep = np.linspace(0, 4095, 40 * 50).reshape(40, 50).astype(np.uint16)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    gray = find(tmp_path / "deep.png", channels=1, pixels=PixelPolicy((0, 4095))).read_image()
    assert gray.shape == (40, 50, 3)
    assert (int(gray.min()), int(gray.max())) == (0, 255)
    color = find(tmp_path / "deep.png", pixels=PixelPolicy((0, 4095))).read_image()
    np.testing.assert_array_equal(color, gray)
    turned = Image.fromarray(noise())
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.save(tmp_path / "turned.png", exif=exif)
    np.testing.assert_array_equal(find(tmp_path / "turned.png").read_image(), np.rot90(noise(), -1))


def test_a_table_holds_names_that_are_not_utf8(tmp_path):
    pytest.importorskip("pandas")
    path = tmp_path / os.fsdecode(b"stra\xdfe \xe7\x8a\xac.png")
    Image.fromarray(noise()).save(path)
    found = replace(find(path), class_names=("BG", "half \ud800 Gr\N{LATIN SMALL LETTER O WITH DIAERESIS}"))
    table = found.to_pandas()
    assert table["class_name"].tolist() == ["half \\ud800 Gr\N{LATIN SMALL LETTER O WITH DIAERESIS}"]
    assert table["image"].tolist() == [f"{tmp_path}{os.sep}stra\\udcdfe \u72ac.png"]


def test_it_can_be_switched_off(demo_predictor, pytestconfig, picture):
    with Predictor(pytestconfig.rootpath / "maskrcnn" / "demo.onnx", "cpu", remember_image=False) as plain:
        assert pickle.loads(pickle.dumps(plain)).remember_image is False
        for found in (plain(picture), *plain.predict_batch([picture]), *plain.predict_stream([picture])):
            assert found.remembered is None
        plain.remember_image = True
        same(plain(picture), picture)
    assert demo_predictor.remember_image is True
    for value in ("no", 0, None):
        with pytest.raises(InputError, match=r"remember_image is .*: expected True or False"):
            demo_predictor.remember_image = value
        with pytest.raises(InputError, match=r"remember_image is .*: expected True or False"):
            Predictor(demo_predictor.path, "cpu", remember_image=value)
    assert demo_predictor.remember_image is True


def test_what_is_remembered_is_made_by_a_predictor(street):
    found = find(street)
    with pytest.raises(InputError, match="remembered is a str; expected that of a predictor"):
        replace(found, remembered="street.png")


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".JPEG", ".webp", ".bmp", ".tif", ".tiff"])
def test_saving(suffix, picture, street, tmp_path):
    found = find(street)
    target = tmp_path / "made" / f"drawn{suffix}"
    found.save(target, labels=False)
    found.save(str(target), labels=False)  # replaced
    with Image.open(target) as saved:
        assert saved.size == (480, 360)
        difference = np.abs(np.asarray(saved, np.int16) - np.asarray(found.draw(labels=False), np.int16))
    assert difference.mean() < (0.1 if suffix in (".png", ".bmp", ".tif", ".tiff") else 6)
    assert [path.name for path in target.parent.iterdir()] == [target.name]
    found.save(target, image=255 - picture)


def test_saving_where_it_cannot_be(street, tmp_path):
    found = find(street)
    before = (tmp_path / street).read_bytes()
    for path, said in (
        ("drawn", r"has the suffix '': expected that of an image format, \.png, \.jpg"),
        ("drawn.xyz", r"drawn\.xyz has the suffix '\.xyz'"),
        (street, r"street\.png is the image itself, which would be lost"),
        (tmp_path / "made" / ".." / street, "is the image itself"),
        (street + "/drawn.png", "is a file, not a folder"),
    ):
        (tmp_path / "made").mkdir(exist_ok=True)
        with pytest.raises(OutputError, match=said):
            found.save(path)
    long = noise(1, 16_400)
    with pytest.raises(OutputError, match=r"WEBP holds at most 16383 pixels on a side.*use \.png"):
        find(long).save("long.webp")
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == [street]
    assert (tmp_path / street).read_bytes() == before


@pytest.mark.parametrize(
    "way", ["PIL image", "path, array given", "path given", "PIL given", "file", "file given", "map"]
)
def test_no_known_file_of_the_image_is_overwritten(way, picture, street, tmp_path):
    path = tmp_path / street
    other = noise(360, 480)
    target, image = street, None
    if way == "PIL image":
        found = find(Image.open(street))
    elif way == "path, array given":
        found, image = find(street), other
    elif way == "path given":
        found, image = find(other), os.fsdecode(path)
    elif way == "PIL given":
        found, image = find(other), Image.open(path)
    elif way == "file":
        with path.open("rb") as opened:
            found, image = find(opened), other
    elif way == "file given":
        found, image = find(other), path.open("rb")
    else:
        picture.tofile("street.tif")
        found, target = find(np.memmap("street.tif", np.uint8, "r", shape=picture.shape)), "street.tif"
    before = (tmp_path / target).read_bytes()
    (tmp_path / "link").symlink_to(tmp_path, target_is_directory=True)
    os.link(target, f"hard{path.suffix}")
    for name in (target, tmp_path / "link" / target, f"hard{path.suffix}"):
        with pytest.raises(OutputError, match="is the image itself, which would be lost"):
            found.save(name, image)
    assert (tmp_path / target).read_bytes() == before
    found.save("drawn.png", image=other)
    found.save("drawn.png", image=other)
    if way in ("PIL given", "file given"):
        image.close()


@pytest.mark.parametrize(
    ("path", "said"),
    [("x" * 300 + ".png", "cannot write x.*: File name too long"), ("a\0.png", "is not the name of a file")],
)
def test_names_that_no_file_can_have(path, said, street):
    array = noise()
    for found in (find(street), find(array)):
        with pytest.raises(OutputError, match=said):
            found.save(path)


@pytest.mark.parametrize("path", [5, None, b"a.png", ["a.png"]])
def test_what_is_no_path_is_refused(path, street):
    with pytest.raises(InputError, match=r"path is .*: expected a path, as str or pathlib\.Path"):
        find(street).save(path)


def test_showing(picture, street, monkeypatch):
    from PIL import ImageShow

    seen = []
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr(ImageShow, "_viewers", [])
    found = find(street)
    with pytest.raises(OutputError, match=r"no program that shows images.*detections\.save\('detections\.png'\)"):
        found.show()

    class Viewer(ImageShow.Viewer):
        def show_image(self, image, **_options):
            seen.append(np.asarray(image))
            return True

    ImageShow.register(Viewer())
    found.show(boxes=False)
    np.testing.assert_array_equal(seen[0], np.asarray(found.draw(boxes=False)))
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("sys.platform", "linux")
    with pytest.raises(OutputError, match="no display to show the image on"):
        found.show()
    assert len(seen) == 1
