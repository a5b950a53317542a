"""Small files that would keep a decoder busy, or fill the memory, below the limit of pixels."""

import re
import struct
import time
import tracemalloc
import zlib

import numpy as np
import pytest
from bad_pictures import encode, good_picture, tiff
from PIL import Image

from runtime.errors import ImageError
from runtime.pictures.read import read_image

MANY = 3_000_000
JPEG, PNG, GIF, BMP = (good_picture(kind) for kind in ("JPEG", "PNG", "GIF", "BMP"))
NAMED = re.compile("padding|tiny|header|scans|memory|run lengths|tags")


def after_start(file, body, at=2):
    return file[:at] + body + file[at:]


def progressive(side, scans):
    """A JPEG whose last scan is there again and again."""
    file = encode(Image.new("RGB", (side, side)), "JPEG", progressive=True)
    last, end = file.rindex(b"\xff\xda"), file.rindex(b"\xff\xd9")
    return file[:end] + file[last:end] * (scans - file.count(b"\xff\xda")) + file[end:]


def chunk(name, body=b""):
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def webp(side):
    """A still WebP of one color, which is small however many pixels it has."""
    return encode(Image.new("RGB", (side, side)), "WEBP", lossless=True, method=0)


def animated_webp(side):
    """An animation of two small frames on a large canvas."""
    pages = [Image.new("RGB", (16, 16), (200 * page, 0, 0)) for page in range(2)]
    file = encode(pages[0], "WEBP", save_all=True, append_images=pages[1:])
    assert file[12:16] == b"VP8X"
    return file[:24] + 2 * (side - 1).to_bytes(3, "little") + file[30:]


def gif_colors():
    return 13 + 3 * 2 ** ((GIF[10] & 7) + 1) * (GIF[10] >> 7)


CASES = {
    "jpeg-fill": lambda: after_start(JPEG, b"\xff" * MANY),
    "jpeg-fill-later": lambda: after_start(JPEG, b"\xff" * MANY, JPEG.index(b"\xff\xdb")),
    "jpeg-junk": lambda: after_start(JPEG, b"\xff\xfe\0\2" + b"a" * MANY),
    "jpeg-escaped": lambda: after_start(JPEG, b"\xff\0" * (MANY // 2)),
    "jpeg-extensions": lambda: after_start(JPEG, b"\xff\xf0\xff\xff" + b"a" * MANY),
    "jpeg-comments": lambda: after_start(JPEG, b"\xff\xfe\0\2" * (MANY // 4)),
    "jpeg-app": lambda: after_start(JPEG, b"\xff\xe5\0\3a" * (MANY // 5)),
    "jpeg-scans": lambda: progressive(6000, 60),
    "jpeg-tiny-scans": lambda: progressive(8, 5000),
    "jpeg-segments-between-scans": lambda: progressive(8, 12)[:-2] + b"\xff\xfe\0\2" * 50_000 + b"\xff\xd9",
    "pgm-comment": lambda: b"P5\n#" + b"a" * MANY + b"\n2 2\n255\nabcd",
    "pgm-comments": lambda: b"P5\n" + b"#\n" * (MANY // 2) + b"2 2\n255\nabcd",
    "ppm-spaces": lambda: b"P6 2 2" + b" " * MANY + b"255\nabcdabcdabcd",
    "pbm-comments": lambda: b"P4 2 #" + b"a" * MANY + b"\n2\nab",
    "plain-comments": lambda: b"P2 #" + b"a" * MANY + b"\n2 2\n9\n1 2 3 4",
    "pfm-spaces": lambda: b"Pf" + b"\n" * MANY + b"2 2\n-1.0\n" + bytes(16),
    "png-texts": lambda: after_start(PNG, chunk(b"tEXt") * (MANY // 12), PNG.index(b"IDAT") - 4),
    "png-unknown": lambda: after_start(PNG, chunk(b"zzZz", b"a") * (MANY // 13), PNG.index(b"IDAT") - 4),
    "png-texts-behind": lambda: after_start(PNG, chunk(b"tEXt") * (MANY // 12), PNG.index(b"IEND") - 4),
    "png-parts": lambda: after_start(PNG, chunk(b"IDAT") * (MANY // 12), PNG.index(b"IDAT") - 4),
    "gif-comment": lambda: after_start(GIF, b"\x21\xfe" + b"\1a" * (MANY // 2) + b"\0", gif_colors()),
    "gif-extensions": lambda: after_start(GIF, b"\x21\xf9\1a\0" * (MANY // 5), gif_colors()),
    "gif-junk": lambda: after_start(GIF, b"a" * MANY, gif_colors()),
    "gif-behind": lambda: GIF[:-1] + b"\x21\xfe" + b"\1a" * (MANY // 2) + b"\0;",
    "bmp-run-lengths": lambda: BMP[:28] + struct.pack("<HI", 8, 1) + BMP[34:] + bytes(MANY),
    "tiff-tags": lambda: tiff(dict.fromkeys(range(300, 30000), 1)),
    "webp-still": lambda: webp(9990),
    "webp-animated": lambda: animated_webp(7000),
    "avif": lambda: encode(Image.new("RGB", (7100, 7100)), "AVIF", speed=10),
}


@pytest.mark.parametrize("name", CASES)
def test_a_small_file_that_would_take_long_is_refused_at_once(name, tmp_path):
    if name == "avif":
        pytest.importorskip("PIL._avif")
    file = CASES[name]()
    path = tmp_path / "file"
    path.write_bytes(file)
    for source in (file, path):
        tracemalloc.start()
        begin = time.process_time()
        with pytest.raises(ImageError) as caught:
            read_image(source)
        seconds = time.process_time() - begin
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert NAMED.search(str(caught.value)), caught.value
        assert seconds < 1
        assert peak < 2 * len(file) + 5_000_000


def test_limits_are_far_from_what_encoders_write():
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (600, 800, 3), np.uint8))
    profile = rng.bytes(1_000_000)  # in 16 segments of a JPEG, and one chunk of a PNG
    exif = Image.Exif()
    exif[0x010E] = "x" * 60_000
    for kind, options in {
        "JPEG": {"progressive": True, "icc_profile": profile, "exif": exif, "comment": "c" * 60_000},
        "PNG": {"icc_profile": rng.bytes(500_000), "exif": exif, "compress_level": 1},
        "WEBP": {"icc_profile": profile, "quality": 30, "method": 0},
        "TIFF": {"compression": "tiff_lzw"},
        "GIF": {"comment": "c" * 100_000},
        "BMP": {},
        "PPM": {},
    }.items():
        assert read_image(encode(image, kind, **options)).shape == (600, 800, 3)


def test_large_stills_are_read():
    assert read_image(webp(4000)).shape == (4000, 4000, 3)


def test_animations_of_ordinary_size_are_read():
    pages = [Image.new("RGB", (300, 200), (page, 0, 0)) for page in range(60)]
    for kind in ("WEBP", "GIF", "PNG"):
        file = encode(pages[0], kind, save_all=True, append_images=pages[1:])
        assert read_image(file).shape == (200, 300, 3)


def test_restarts_and_thumbnails_are_no_scans():
    rng = np.random.default_rng(1)
    image = Image.fromarray(rng.integers(0, 256, (600, 800, 3), np.uint8))
    with_restarts = encode(image, "JPEG", restart_marker_blocks=1)
    assert with_restarts.count(b"\xff\xd0") > 200
    assert read_image(with_restarts).shape == (600, 800, 3)
    thumbnail = encode(image.resize((160, 120)), "JPEG", progressive=True)
    file = after_start(encode(image, "JPEG"), b"\xff\xed" + struct.pack(">H", len(thumbnail) + 2) + thumbnail)
    assert read_image(file + thumbnail * 50).shape == (600, 800, 3)
