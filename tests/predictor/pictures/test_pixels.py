"""Samples of more than 8 bits, and more than three bands: what becomes of them, and what is said."""

import itertools
import struct
import zlib

import numpy as np
import pytest
from bad_pictures import encode, tiff_of_samples
from PIL import Image

from runtime.errors import ImageError, InputError
from runtime.pictures.pixels import PixelPolicy
from runtime.pictures.read import read_image

TWELVE = PixelPolicy((0, 4095))
_DEEP = np.random.default_rng(0).integers(31, 4022, (45, 61, 3)).astype(np.uint16)


def scaled(samples, low=0, high=4095):
    return np.rint(np.clip((samples.astype(np.float64) - low) / (high - low), 0, 1) * 255).astype(np.uint8)


def png16(samples, color):
    """A PNG of 16-bit samples [H, W, C], written here because Pillow writes none in color."""
    height, width, _ = samples.shape
    rows = samples.astype(">u2").reshape(height, -1)
    raw = b"".join(b"\0" + row.tobytes() for row in rows)
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, color, 0, 0, 0)), (b"IDAT", zlib.compress(raw))]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in [*chunks, (b"IEND", b"")]
    )


GRAY = _DEEP[:, :, :1]
FILES = {
    "png-gray": (encode(Image.fromarray(GRAY[:, :, 0])), GRAY),
    "png-gray-alpha": (png16(_DEEP[:, :, :2], 4), GRAY),
    "png-rgb": (png16(_DEEP, 2), _DEEP),
    "png-rgba": (png16(np.concatenate([_DEEP, GRAY], 2), 6), _DEEP),
    "tiff-gray": (tiff_of_samples(GRAY), GRAY),
    "tiff-gray-big-endian": (tiff_of_samples(GRAY, order=">", rows=7), GRAY),
    "tiff-gray-packed": (tiff_of_samples(GRAY, packed=True, predictor=2), GRAY),
    "tiff-rgb": (tiff_of_samples(_DEEP, more={262: [2]}), _DEEP),
    "tiff-rgb-big-endian": (tiff_of_samples(_DEEP, order=">", more={262: [2]}), _DEEP),
    "tiff-rgb-packed": (tiff_of_samples(_DEEP, packed=True, rows=8, more={262: [2]}), _DEEP),
    "tiff-rgb-packed-big-endian": (tiff_of_samples(_DEEP, order=">", packed=True, predictor=2, more={262: [2]}), _DEEP),
    "pgm": (b"P5 61 45 65535\n" + GRAY.astype(">u2").tobytes(), GRAY),
    "ppm": (b"P6 # made\n61 45\n65535\n" + _DEEP.astype(">u2").tobytes(), _DEEP),
}


@pytest.mark.parametrize("name", FILES)
def test_a_value_range_scales_12_bits(name, caplog):
    file, samples = FILES[name]
    expected = np.broadcast_to(scaled(samples), (*samples.shape[:2], 3))
    np.testing.assert_array_equal(read_image(file, pixels=TWELVE), expected)
    np.testing.assert_array_equal(
        read_image(file, pixels=PixelPolicy((500, 3000.5))),
        np.broadcast_to(scaled(samples, 500, 3000.5), expected.shape),
    )
    gray = read_image(file, 1, pixels=TWELVE)
    assert gray.shape == (45, 61, 1)
    if samples is GRAY:
        np.testing.assert_array_equal(gray, scaled(samples))
    assert caplog.text == ""


@pytest.mark.parametrize("name", FILES)
def test_without_a_value_range_the_high_byte_stays_and_the_values_are_said(name, caplog):
    file, samples = FILES[name]
    found = read_image(file)
    high = np.broadcast_to(samples >> 8, found.shape)
    if name in ("pgm", "ppm"):  # these files declare their maximum
        high = np.broadcast_to(np.rint(samples / 257), found.shape)
    np.testing.assert_array_equal(found, high)
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "which become 0 to 1" in record.message
    assert "value_range=(0, 4095)" in record.message
    assert "--value-range 0 4095" in record.message


@pytest.mark.parametrize("most", [15, 200, 1023, 4095, 40000])
def test_a_maximum_that_a_file_declares_scales_it(most, caplog):
    samples = np.random.default_rng(1).integers(0, most + 1, (20, 30, 1))
    file = b"P5\n# depth\n30 20\n%d\n" % most + samples.astype(">u2" if most > 255 else "u1").tobytes()
    expected = np.broadcast_to(np.rint(samples / most * 255), (20, 30, 3))
    np.testing.assert_array_equal(read_image(file), expected)
    assert caplog.text == ""


def test_full_16_bits_say_nothing(caplog):
    samples = np.random.default_rng(2).integers(0, 2**16, (30, 40, 1)).astype(np.uint16)
    np.testing.assert_array_equal(read_image(encode(Image.fromarray(samples[:, :, 0])), 1), samples >> 8)
    assert caplog.text == ""


def test_8_bits_stay_as_they_are():
    samples = np.arange(60, dtype=np.uint8).reshape(4, 5, 3)
    for source in (samples, Image.fromarray(samples), encode(Image.fromarray(samples))):
        np.testing.assert_array_equal(read_image(source, pixels=TWELVE), samples)


@pytest.mark.parametrize("dtype", [np.uint16, ">u2", np.int16, np.int32, np.int64, np.uint64, np.float32, np.float64])
def test_arrays_of_all_numbers_with_a_value_range(dtype):
    array = _DEEP.astype(dtype)
    np.testing.assert_array_equal(read_image(array, pixels=TWELVE), scaled(_DEEP))
    np.testing.assert_array_equal(read_image(array[:, :, 0], 1, pixels=TWELVE), scaled(GRAY))
    with pytest.raises(ImageError, match="values run from 31 to 402"):
        read_image(array)


@pytest.mark.parametrize("kind", [np.int32, np.float32])
def test_32_bit_files_have_a_range_only_if_it_is_given(kind):
    file = encode(Image.fromarray(GRAY[:, :, 0].astype(kind)), "TIFF")
    with pytest.raises(ImageError, match="value_range"):
        read_image(file)
    np.testing.assert_array_equal(read_image(file, 1, pixels=TWELVE), scaled(GRAY))


def test_values_that_are_not_finite_are_refused():
    array = np.full((3, 4), np.nan, np.float32)
    with pytest.raises(ImageError, match="not finite"):
        read_image(array, pixels=TWELVE)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_deep_images_are_turned(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    deep, plain = Image.fromarray(GRAY[:, :, 0]), Image.fromarray(scaled(GRAY)[:, :, 0])
    for kind in ("PNG", "TIFF"):
        found = read_image(encode(deep, kind, exif=exif), 1, pixels=TWELVE)
        np.testing.assert_array_equal(found, read_image(encode(plain, kind, exif=exif), 1))
    rgb = tiff_of_samples(_DEEP, more={262: [2], 274: [orientation]})
    bands = tiff_of_samples(np.concatenate([_DEEP, _DEEP], 2), more={274: [orientation]})
    chosen = PixelPolicy((0, 4095), (1, 2, 3))
    np.testing.assert_array_equal(read_image(bands, pixels=chosen), read_image(rgb, pixels=TWELVE))
    assert read_image(rgb, pixels=TWELVE).shape == ((61, 45, 3) if orientation > 4 else (45, 61, 3))


# Bands

SIX = np.random.default_rng(3).integers(0, 256, (37, 70, 6)).astype(np.uint8)
LAYOUTS = [
    {},
    {"rows": 5},
    {"tile": (16, 32)},
    {"packed": True, "rows": 10},
    {"packed": True, "predictor": 2, "rows": 10},
    {"packed": True, "predictor": 2, "tile": (32, 16)},
    {"separate": True, "rows": 8},
    {"separate": True, "tile": (16, 16), "packed": True, "predictor": 2},
    {"packed": "tiff_lzw", "rows": 10},
    {"packed": "tiff_lzw", "predictor": 2, "tile": (16, 32)},
    {"packed": "tiff_lzw", "separate": True, "predictor": 2, "rows": 9},
    {"packed": "packbits", "tile": (16, 32)},
]


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize(("count", "deep"), [(2, False), (4, True), (6, False), (6, True)])
def test_bands_are_chosen(order, layout, count, deep):
    samples = SIX[:, :, :count]
    if deep:
        samples = samples.astype(np.uint16) * 16 + 5
    file = tiff_of_samples(samples, order=order, **layout)
    for bands in ((2, 1, 2), (count,), tuple(range(1, count + 1))):
        expected = samples[:, :, [band - 1 for band in bands]]
        policy = PixelPolicy((0, 4095) if deep else None, bands)
        np.testing.assert_array_equal(
            read_image(file, len(bands), pixels=policy), scaled(expected) if deep else expected
        )


DEEP_LAYOUTS = [
    {"rows": 5},
    {"packed": True, "tile": (16, 32)},
    {"packed": "tiff_lzw", "rows": 10},
    {"packed": "tiff_lzw", "predictor": 2, "tile": (32, 16)},
    {"packed": "packbits", "separate": True},
    {"packed": "tiff_lzw", "predictor": 3, "rows": 10},
    {"packed": True, "predictor": 3, "tile": (16, 32), "separate": True},
    {"packed": "tiff_lzw", "predictor": 3, "tile": (32, 16)},
]


@pytest.mark.parametrize(
    ("layout", "kind"),
    [
        (layout, kind)
        for layout in DEEP_LAYOUTS
        for kind in ((np.float32,) if layout.get("predictor") == 3 else (np.int16, np.uint32, np.int32, np.float32))
    ],
    ids=str,
)
def test_samples_of_satellites(layout, kind):
    """Signed, 32 bits and floats, in both orders: libtiff swaps the bytes of compressed samples itself."""
    for order, count in itertools.product("<>", (1, 3)):
        samples = (SIX[:20, :35, :count].astype(np.int64) * 16 - (0 if kind is np.uint32 else 300)).astype(kind)
        samples = samples + kind(0.5) if kind is np.float32 else samples
        file = tiff_of_samples(samples, order=order, **layout)
        for bands in {(count,), tuple(range(count, 0, -1))}:
            found = read_image(file, len(bands), pixels=PixelPolicy((-200, 3000), bands))
            np.testing.assert_array_equal(found, scaled(samples[:, :, [band - 1 for band in bands]], -200, 3000))
        if count == 1:  # read as an ordinary image, mostly by Pillow alone
            found = read_image(file, 1, pixels=PixelPolicy((-200, 3000)))
            np.testing.assert_array_equal(found, scaled(samples, -200, 3000))


@pytest.mark.parametrize(("kind", "bits"), [(np.float64, 64), (np.float16, 16), (np.uint64, 64)])
@pytest.mark.parametrize("count", [1, 5])
def test_samples_that_cannot_be_read_are_named(kind, bits, count):
    for policy in (PixelPolicy(), PixelPolicy((0, 255), (1,))):
        with pytest.raises(ImageError, match=rf"{count} bands? of {bits} bits") as caught:
            read_image(tiff_of_samples(SIX[:, :, :count].astype(kind)), 1, pixels=policy)
        if count == 1 or policy.bands:
            assert "save it" in str(caught.value)


def test_more_samples_than_pillow_has_are_bands(caplog):
    eight = np.concatenate([SIX, SIX[:, :, :2]], axis=2)
    file = tiff_of_samples(eight)
    with pytest.raises(ImageError, match="8 bands of 8 bits"):
        read_image(file)
    np.testing.assert_array_equal(read_image(file, pixels=PixelPolicy(None, (8, 1, 7))), eight[:, :, [7, 0, 6]])
    assert caplog.text == ""


def test_a_predictor_without_a_compression_that_knows_it_is_none():
    for packed in (False, "packbits"):
        file = tiff_of_samples(SIX, packed=packed, more={317: [2]})
        np.testing.assert_array_equal(read_image(file, pixels=PixelPolicy(None, (1, 2, 3))), SIX[:, :, :3])


@pytest.mark.parametrize(
    ("samples", "named"),
    [
        (SIX, "6 bands of 8 bits"),
        (SIX[:, :, :4].astype(np.uint16), "4 bands of 16 bits"),
        (SIX[:, :, :2].astype(np.float32), "2 bands of 32 bits"),
        (SIX[:, :, :5].astype(np.int32), "5 bands of 32 bits"),
    ],
)
def test_a_file_with_many_bands_is_named_as_such(samples, named):
    with pytest.raises(ImageError, match=named) as caught:
        read_image(tiff_of_samples(samples))
    assert "bands=(3, 2, 1)" in str(caught.value)
    assert "--bands 3,2,1" in str(caught.value)


def test_a_network_with_as_many_channels_takes_all_bands():
    np.testing.assert_array_equal(read_image(tiff_of_samples(SIX), 6), SIX)


def test_bands_that_do_not_exist():
    policy = PixelPolicy(None, (1, 2, 7))
    for source in (tiff_of_samples(SIX), SIX, encode(Image.fromarray(SIX[:, :, :3]))):
        with pytest.raises(ImageError, match="band 7 was asked for: choose from 1 to"):
            read_image(source, pixels=policy)


def test_bands_of_arrays_and_of_ordinary_files():
    policy = PixelPolicy(None, (3, 2, 1))
    np.testing.assert_array_equal(read_image(SIX, pixels=policy), SIX[:, :, [2, 1, 0]])
    rgb = SIX[:, :, :3]
    np.testing.assert_array_equal(read_image(rgb, pixels=policy), rgb)  # the channels of the model already
    for kind in ("PNG", "TIFF"):
        np.testing.assert_array_equal(read_image(encode(Image.fromarray(rgb), kind), pixels=policy), rgb[:, :, ::-1])


@pytest.mark.parametrize("deep", [False, True])
def test_pages_as_bands(deep, caplog):
    stack = SIX.astype(np.uint16) * 16 if deep else SIX
    pages = [Image.fromarray(stack[:, :, band]) for band in range(6)]
    file = encode(pages[0], "TIFF", save_all=True, append_images=pages[1:])
    policy = PixelPolicy((0, 4095) if deep else None, (5, 1, 6))
    expected = stack[:, :, [4, 0, 5]]
    np.testing.assert_array_equal(read_image(file, pixels=policy), scaled(expected) if deep else expected)
    assert caplog.text == ""
    read_image(file, pixels=PixelPolicy((0, 4095)))
    assert "only the first is used" in caplog.text
    with pytest.raises(ImageError, match="6 pages; band 9"):
        read_image(file, pixels=PixelPolicy(None, (1, 2, 9)))


def test_too_many_bands_for_the_limit():
    with pytest.raises(ImageError, match="too large"):
        read_image(tiff_of_samples(SIX), pixels=PixelPolicy(None, (1, 2, 3)), max_pixels=37 * 70)
    with pytest.raises(ImageError, match="max_pixels"):
        read_image(tiff_of_samples(SIX), pixels=PixelPolicy(None, (1, 2, 3)), max_pixels=37 * 70 - 1)


# The policy


@pytest.mark.parametrize(
    "values",
    [
        {"value_range": (1, 1)},
        {"value_range": (2, 1)},
        {"value_range": (0,)},
        {"value_range": "12"},
        {"value_range": (0, np.nan)},
        {"value_range": (0, np.inf)},
        {"value_range": (0, 10**400)},
        {"value_range": (True, 2)},
        {"value_range": 4095},
        {"bands": ()},
        {"bands": (0, 1)},
        {"bands": (1.5,)},
        {"bands": 3},
        {"bands": (10**9,)},
    ],
    ids=str,
)
def test_policies_that_are_refused(values):
    with pytest.raises(InputError, match="expected"):
        PixelPolicy(**values)


def test_a_policy_travels_as_json():
    policy = PixelPolicy((np.int64(0), 4095.0), [3, np.int32(1)])
    assert policy.to_dict() == {"value_range": [0, 4095.0], "bands": [3, 1]}
    assert PixelPolicy.from_dict(policy.to_dict()) == policy
    with pytest.raises(InputError, match="unknown"):
        PixelPolicy.from_dict({"range": [0, 1]})
    assert PixelPolicy.from_dict({}) == PixelPolicy()
