"""Every kind of picture: converted with the right values, or refused by name."""

import os
import warnings
from io import BytesIO

import numpy as np
import pytest
from bad_pictures import png
from PIL import Image

from runtime.errors import ImageError, InputError
from runtime.pictures.read import MAX_PIXELS, open_picture, read_image

RGB = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
GRAY = np.random.default_rng(1).integers(0, 256, (5, 7), dtype=np.uint8)


def encoded(image, kind="PNG", **options):
    stream = BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def refusal(source, channels=3):
    with pytest.raises(ImageError) as refused:
        read_image(source, channels)
    message = str(refused.value)
    assert "\n" not in message
    return message


def test_path_bytes_pil_and_array_agree(tmp_path):
    path = tmp_path / "picture.png"
    Image.fromarray(RGB).save(path)
    for source in (
        path,
        str(path),
        path.read_bytes(),
        bytearray(path.read_bytes()),
        Image.open(BytesIO(path.read_bytes())),
        RGB,
    ):
        result = read_image(source)
        assert result.dtype == np.uint8
        assert result.flags.c_contiguous
        np.testing.assert_array_equal(result, RGB)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM"])
def test_lossless_formats(kind):
    np.testing.assert_array_equal(read_image(encoded(Image.fromarray(RGB), kind)), RGB)


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "MPO"])
def test_lossy_formats(kind):
    flat = Image.new("RGB", (16, 16), (200, 100, 50))
    assert np.abs(read_image(encoded(flat, kind, quality=95)).astype(int) - [200, 100, 50]).max() <= 3


def test_grayscale_is_repeated_and_colour_becomes_luminance():
    repeated = np.repeat(GRAY[:, :, None], 3, axis=2)
    png = encoded(Image.fromarray(GRAY))
    for source in (png, GRAY, GRAY[:, :, None], Image.fromarray(GRAY)):
        np.testing.assert_array_equal(read_image(source), repeated)
        np.testing.assert_array_equal(read_image(source, 1), GRAY[:, :, None])
    luminance = RGB @ np.array([0.299, 0.587, 0.114])
    result = read_image(encoded(Image.fromarray(RGB)), 1)
    assert result.shape == (5, 7, 1)
    assert np.abs(result[:, :, 0] - luminance).max() <= 0.51


def test_alpha_is_dropped_not_blended():
    clear = np.dstack([RGB, np.zeros((5, 7), np.uint8)])
    for source in (clear, encoded(Image.fromarray(clear)), Image.fromarray(clear)):
        np.testing.assert_array_equal(read_image(source), RGB)
    gray = Image.fromarray(np.dstack([GRAY, np.zeros((5, 7), np.uint8)]), "LA")
    np.testing.assert_array_equal(read_image(encoded(gray), 1)[:, :, 0], GRAY)


@pytest.mark.parametrize(
    ("kind", "transparency"),
    [("PNG", None), ("PNG", 1), ("PNG", bytes([255, 0, 128])), ("GIF", None), ("GIF", 1)],
)
def test_palettes_give_their_colours_also_where_transparent(kind, transparency):
    colors = np.array([[10, 20, 30], [200, 100, 0], [0, 255, 7]], np.uint8)
    indices = np.random.default_rng(2).integers(0, 3, (4, 6), dtype=np.uint8)
    image = Image.fromarray(indices, "P")
    image.putpalette(colors.tobytes())
    options = {} if transparency is None else {"transparency": transparency}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = read_image(encoded(image, kind, **options))
    np.testing.assert_array_equal(result, colors[indices])


def test_bilevel_is_black_and_white():
    bits = GRAY > 128
    np.testing.assert_array_equal(read_image(encoded(Image.fromarray(bits)), 1)[:, :, 0], bits * 255)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bit_gray_keeps_the_high_byte(kind):
    deep = np.array([[0, 255, 256], [32768, 65279, 65535]], np.uint16)
    result = read_image(encoded(Image.fromarray(deep), kind))
    np.testing.assert_array_equal(result[:, :, 0], [[0, 0, 1], [128, 254, 255]])
    assert (result == result[:, :, :1]).all()


def test_big_endian_16_bit_gray_is_the_same():
    image = Image.frombytes("I;16B", (2, 1), np.array([300, 65535], ">u2").tobytes())
    np.testing.assert_array_equal(read_image(image, 1)[0, :, 0], [1, 255])


def test_16_bit_rgb_keeps_the_high_byte_too():
    rows = b"\0" + np.array([[300, 65535, 255]], ">u2").tobytes()
    np.testing.assert_array_equal(read_image(png(1, 1, 16, 2, rows)), [[[1, 255, 0]]])


@pytest.mark.parametrize(
    ("ink", "color"),
    [((0, 255, 255, 0), (255, 0, 0)), ((0, 0, 0, 255), (0, 0, 0)), ((0, 0, 0, 0), (255, 255, 255))],
)
def test_cmyk_jpeg(ink, color):
    result = read_image(encoded(Image.new("CMYK", (16, 16), ink), "JPEG", quality=95)).astype(int)
    assert np.abs(result - color).max() <= 3


def test_ycbcr():
    result = read_image(Image.new("YCbCr", (2, 2), (76, 85, 255))).astype(int)
    assert np.abs(result - [255, 0, 0]).max() <= 2


@pytest.mark.parametrize("mode", ["I", "F", "LAB", "HSV"])
def test_modes_without_an_honest_conversion_are_refused_by_name(mode):
    message = refusal(Image.new(mode, (4, 4)))
    assert repr(mode) in message
    assert "uint8 array" in message
    if mode in ("I", "F"):
        assert repr(mode) in refusal(encoded(Image.new(mode, (4, 4)), "TIFF"))


ORIENTATIONS = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),  # stored on its left side: turn clockwise
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a, 1),
}


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_exif_orientation_is_applied_once(orientation, kind):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(Image.fromarray(RGB), kind, exif=exif)
    np.testing.assert_array_equal(read_image(data), ORIENTATIONS[orientation](RGB))
    np.testing.assert_array_equal(read_image(Image.open(BytesIO(data))), ORIENTATIONS[orientation](RGB))


def test_exif_orientation_of_a_jpeg_and_of_16_bit():
    exif = Image.Exif()
    exif[0x0112] = 6
    wide = Image.new("RGB", (32, 16), (0, 0, 0))
    wide.paste((255, 255, 255), (0, 0, 16, 16))
    upright = read_image(encoded(wide, "JPEG", exif=exif))
    assert upright.shape == (32, 16, 3)
    assert upright[:12].min() > 200  # the left half comes to the top
    assert upright[20:].max() < 50
    deep = np.array([[256, 512, 768]], np.uint16)
    np.testing.assert_array_equal(read_image(encoded(Image.fromarray(deep), exif=exif), 1)[:, :, 0], [[1], [2], [3]])


@pytest.mark.parametrize("kind", ["GIF", "TIFF", "PNG", "WEBP"])
def test_of_several_frames_the_first_is_read_and_that_is_logged(kind, caplog):
    first, second = (Image.new("RGB", (8, 8), color) for color in ((255, 0, 0), (0, 0, 255)))
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(first, kind, save_all=True, append_images=[second], **options)
    with caplog.at_level("WARNING", "runtime"):
        result = read_image(data)
    (line,) = caplog.messages
    assert "several frames" in line
    assert (result == [255, 0, 0]).all()


def test_of_an_animation_in_gray_the_first_frame_is_read():
    ramp = np.arange(256, dtype=np.uint8).reshape(16, 16)  # with this palette Pillow has a GIF in mode "L"
    frames = [Image.fromarray(ramp), Image.fromarray(np.ascontiguousarray(ramp[::-1]))]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(read_image(data, 1)[:, :, 0], ramp)
    np.testing.assert_array_equal(read_image(data), np.repeat(ramp[:, :, None], 3, axis=2))


def test_an_mpo_photo_with_a_preview_is_not_told(caplog):
    first, second = (Image.new("RGB", (16, 16), color) for color in ((255, 0, 0), (0, 0, 255)))
    data = encoded(first, "MPO", save_all=True, append_images=[second])
    assert read_image(data)[0, 0, 0] > 200
    assert not caplog.messages


def test_damaged_and_missing_files(tmp_path):
    whole = encoded(Image.fromarray(np.resize(RGB, (64, 64, 3))), "JPEG")
    files = {
        "truncated.jpg": whole[: len(whole) // 2],
        "empty.jpg": b"",
        "page.jpg": b"<!DOCTYPE html><html><body>404</body></html>",
        "broken.png": encoded(Image.fromarray(RGB))[:60],
        "script.jpg": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
        assert name in refusal(tmp_path / name)
        assert f"{len(data)} bytes" in refusal(data)
    assert "does not exist" in refusal(tmp_path / "missing.jpg")
    assert "missing.jpg" in refusal(str(tmp_path / "missing.jpg"))
    assert "is a directory" in refusal(tmp_path)


def test_a_damaged_pil_image_and_what_is_no_file(tmp_path):
    whole = encoded(Image.fromarray(np.resize(RGB, (64, 64, 3))), "JPEG")
    assert "cannot be read as an image" in refusal(Image.open(BytesIO(whole[: len(whole) // 2])))
    closed = Image.fromarray(RGB)
    closed.close()
    assert "the PIL image cannot be read" in refusal(closed)
    os.mkfifo(tmp_path / "pipe.png")
    assert "is a pipe, a socket or a device" in refusal(tmp_path / "pipe.png")
    assert "is a pipe, a socket or a device" in refusal("/dev/zero")
    assert r"'a\nb\x1b.png' does not exist" in refusal("a\nb\x1b.png")


@pytest.mark.parametrize("limit", [None, 10, 10**9])
def test_the_limit_of_the_process_is_neither_asked_nor_changed(limit, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    filters = list(warnings.filters)
    tall = np.resize(RGB, (150, 7, 3))
    np.testing.assert_array_equal(read_image(encoded(Image.fromarray(tall))), tall)
    assert "10001 x 10000 pixels" in refusal(png(10_001, 10_000, 8, 0, b"\0"))
    assert limit == Image.MAX_IMAGE_PIXELS
    assert warnings.filters == filters


def test_an_array_has_the_same_cap():
    assert str(MAX_PIXELS) in refusal(np.broadcast_to(np.uint8(0), (10_001, 10_000, 3)))


def test_the_pixel_cap_is_checked_on_the_header():
    # Both files hold one row only; a decoder that started on them would fail in another way.
    assert str(MAX_PIXELS) in refusal(png(20_000, 20_000, 8, 2, b"\0"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # Pillow's own warning is for sizes like this one
        assert "10001 x 10000 pixels" in refusal(png(10_001, 10_000, 8, 0, b"\0"))
        assert "cannot be read" in refusal(png(9_900, 10_000, 1, 0, b"\0"))  # allowed, but truncated


@pytest.mark.parametrize(
    ("array", "named"),
    [
        (np.zeros((4, 4, 3), np.float32), ["float32", "np.clip"]),
        (np.full((4, 4, 3), np.nan), ["float64", "np.clip"]),
        (np.zeros((4, 4), bool), ["bool", "255"]),
        (np.zeros((4, 4), np.uint16), ["uint16", ">> 8"]),
        (np.zeros((4, 4), np.int64), ["int64", "uint8"]),
        (np.zeros(4, np.uint8), ["[4]", "[H, W]"]),
        (np.zeros((1, 4, 4, 3), np.uint8), ["[1, 4, 4, 3]"]),
        (np.zeros((0, 4, 3), np.uint8), ["[0, 4, 3]", "zero"]),
        (np.zeros((4, 4, 0), np.uint8), ["[4, 4, 0]"]),
        (np.zeros((4, 4, 2), np.uint8), ["2 channels", "3 (RGB)"]),
        (np.zeros((3, 8, 9), np.uint8), ["9 channels", "moveaxis"]),
    ],
)
def test_arrays_that_are_no_pictures(array, named):
    message = refusal(array)
    assert all(part in message for part in named), message


def test_arrays_keep_their_channels_and_memory():
    assert np.shares_memory(read_image(RGB), RGB)
    turned = read_image(RGB[::-1, :, ::-1])
    assert turned.flags.c_contiguous
    np.testing.assert_array_equal(turned, RGB[::-1, :, ::-1])
    for channels in (2, 4, 6):
        stack = np.random.default_rng(3).integers(0, 256, (3, 4, channels), dtype=np.uint8)
        np.testing.assert_array_equal(read_image(stack, channels), stack)
    assert "expected 6" in refusal(RGB, 6)
    assert "expected 1" in refusal(RGB, 1)
    assert "6 input channels" in refusal(encoded(Image.fromarray(RGB)), 6)


@pytest.mark.parametrize("source", [None, 5, [[1, 2], [3, 4]], {"a": 1}])
def test_other_sources_are_refused(source):
    assert type(source).__name__ in refusal(source)


@pytest.mark.parametrize("channels", [0, -1, 3.0, True, "3"])
def test_bad_channel_counts(channels):
    with pytest.raises(InputError, match="channels"):
        read_image(RGB, channels)


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P", "I;16"])
@pytest.mark.parametrize("channels", [1, 3])
def test_an_opened_picture_holds_the_pixels_that_are_read(mode, channels):
    tall = np.random.default_rng(2).integers(0, 256, (150, 9, 3), dtype=np.uint8)  # packed in several strips
    image = Image.fromarray(tall).convert("L" if mode == "I;16" else mode)
    if mode == "I;16":
        image = Image.fromarray(np.asarray(image).astype(np.uint16) * 256)
    read = read_image(image, channels)
    opened = open_picture(image, channels)
    assert isinstance(opened, Image.Image) == (mode != "I;16" and (mode, channels) != ("L", 3))
    np.testing.assert_array_equal(np.asarray(opened).reshape(read.shape), read)
    if mode == "RGB" and channels == 3:
        np.testing.assert_array_equal(read, tall)
        assert opened is image  # nothing to turn, nothing to convert


def test_one_pixel():
    assert read_image(encoded(Image.new("RGB", (1, 1), (1, 2, 3)))).tolist() == [[[1, 2, 3]]]
