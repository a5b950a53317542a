"""What people hand over instead of a path: uploads, open files, buffers, URLs, tensors, arrays of other types."""

import asyncio
from io import BytesIO, StringIO
from types import SimpleNamespace

import numpy as np
import pytest
from bad_pictures import encode
from PIL import Image, features

from runtime.errors import ImageError
from runtime.pictures.header import FORMATS, PICTURE_SUFFIXES
from runtime.pictures.read import read_image
from runtime.stream import check_pictures

RGB = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
FILE = encode(Image.fromarray(RGB))


class Upload:
    """As in Starlette and FastAPI: reading is asynchronous, `file` is the open file."""

    def __init__(self, content):
        self.file = BytesIO()
        self.file.write(content)
        self.filename = "a.png"

    async def read(self, size=-1):
        return self.file.read(size)


class FileStorage:
    """As in Flask: it passes calls on to its stream."""

    def __init__(self, content):
        self.stream = BytesIO(content)

    def read(self, *arguments):
        return self.stream.read(*arguments)

    def seek(self, *arguments):
        return self.stream.seek(*arguments)


class Pipe:
    """A stream that cannot go back."""

    def __init__(self, content):
        self.stream = BytesIO(content)

    def read(self, size):
        return self.stream.read(size)

    def seekable(self):
        return False

    def seek(self, place):
        raise OSError("it cannot go back")


def at_its_end(content):
    file = BytesIO()
    file.write(content)
    return file


@pytest.mark.parametrize(
    "kind",
    [
        bytes,
        bytearray,
        memoryview,
        BytesIO,
        at_its_end,
        Upload,
        FileStorage,
        Pipe,
        lambda c: memoryview(c + c)[: len(c)],
    ],
)
def test_buffers_and_open_files(kind):
    np.testing.assert_array_equal(read_image(kind(FILE)), RGB)


def test_an_open_file_and_what_is_read_twice(tmp_path):
    (tmp_path / "a.png").write_bytes(FILE)
    with (tmp_path / "a.png").open("rb") as file:
        for _ in range(2):
            np.testing.assert_array_equal(read_image(file), RGB)
    upload = SimpleNamespace(file=BytesIO(FILE))  # aiohttp's field
    np.testing.assert_array_equal(read_image(upload), RGB)


def test_a_view_of_an_array_is_the_array():
    np.testing.assert_array_equal(read_image(memoryview(RGB)), RGB)


def refusal(source, **options):
    with pytest.raises(ImageError) as caught:
        read_image(source, **options)
    assert len(str(caught.value)) < 400
    assert str(caught.value).isprintable()
    return str(caught.value)


def test_files_that_cannot_be_read(tmp_path):
    assert "'rb'" in refusal(StringIO("text"))
    (tmp_path / "a.png").write_bytes(FILE)
    with (tmp_path / "a.png").open(encoding="latin-1") as file:
        assert "binary" in refusal(file)
    closed = BytesIO(FILE)
    closed.close()
    assert "closed" in refusal(closed)
    assert "0 bytes" in refusal(BytesIO())

    class Awaited:
        async def read(self, size=-1):
            return FILE

    assert "await file.read()" in refusal(Awaited())
    assert asyncio.run(Awaited().read()) == FILE

    class Endless:
        def read(self, size):
            return bytes(size)

    assert "more than" in refusal(Endless(), max_pixels=1000)


@pytest.mark.parametrize(
    "url", ["http://example.org/a.png", "https://example.org/" + "a" * 200_000, "s3://bucket/a.png"]
)
def test_urls_say_how(url):
    message = refusal(url)
    assert "is a URL" in message
    assert "urlopen" in message


def test_data_urls_and_long_texts_are_not_repeated():
    message = refusal("data:image/png;base64," + "A" * 173_477)
    assert "data URL" in message
    assert "base64.b64decode" in message
    assert "(173477 characters)" in refusal("A" * 173_477)
    assert "A" * 100 not in refusal("A" * 173_477)


@pytest.mark.parametrize(
    ("source", "remedy"),
    [
        (
            np.full((4, 5, 3), 200, np.int64),
            "its values run from 200 to 200, so convert it with image.astype(np.uint8)",
        ),
        (np.full((4, 5, 3), 200, np.int32), "image.astype(np.uint8)"),
        (np.full((4, 5, 3), 3000, np.int64), "give the range that becomes 0..255, as in value_range=(0, 4095)"),
        (np.full((4, 5, 3), -3, np.int64), "its values run from -3 to -3"),
        (np.full((4, 5, 3), 0.5), "np.uint8(np.clip(255 * image, 0, 255))"),
        (np.full((4, 5, 3), 200.5, np.float32), "image.astype(np.uint8)"),
        (np.full((4, 5, 3), -1.5, np.float16), "np.uint8(np.clip(image, 0, 255))"),
        (np.full((3, 50, 60), 0.5, np.float32), "np.moveaxis(image, 0, -1)"),
        (np.zeros((3, 50, 60), np.uint8), "np.moveaxis(image, 0, -1)"),
        (np.zeros((4, 5), complex), "after scaling its values to 0..255"),
        (np.zeros((4, 5), "S3"), "after scaling its values to 0..255"),
        (None, "cv2.imread returns None"),
        ([RGB], "one image at a time"),
        ([[1, 2], [3, 4]], "np.array(image, np.uint8)"),
        (SimpleNamespace(permute=lambda *axes: None), "permute(1, 2, 0)"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_what_is_no_image_gets_a_sentence_that_helps(source, remedy):
    assert remedy in refusal(source)


def test_the_remedies_work():
    floats = (RGB / 255).astype(np.float32)
    for array in (RGB.astype(np.int64), floats, RGB.astype(np.uint16)):
        code = refusal(array).rpartition("convert it with ")[2].split(" if ")[0].split(", after")[0]
        image = eval(code, {"np": np, "image": array})
        assert read_image(image).shape == RGB.shape
        if array.dtype != np.uint16:
            assert np.abs(image.astype(int) - RGB).max() <= 1


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow has no AVIF")
def test_avif(tmp_path):
    assert "AVIF" in FORMATS
    assert ".avif" in PICTURE_SUFFIXES
    file = encode(Image.new("RGB", (40, 30), (200, 10, 10)), "AVIF")
    (tmp_path / "a.avif").write_bytes(file)
    found = read_image(tmp_path / "a.avif")
    assert found.shape == (30, 40, 3)
    assert np.abs(found[0, 0].astype(int) - (200, 10, 10)).max() < 8


@pytest.mark.parametrize("single", [FILE, memoryview(FILE), BytesIO(FILE), FileStorage(FILE), "a.png", RGB])
def test_one_image_is_no_list_of_images(single):
    with pytest.raises(ValueError, match="single image"):
        check_pictures(single, 1)
