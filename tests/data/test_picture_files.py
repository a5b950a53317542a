"""Sizes of pictures from their headers: those that decoding gives."""

import pytest
from annotation_files import write_picture
from PIL import Image

from maskrcnn.data.findings import RowError
from maskrcnn.data.picture_files import FORMATS, list_pictures, picture_size
from runtime import images
from runtime.images import read_image


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_size_of_a_turned_picture(tmp_path, suffix, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = write_picture(tmp_path / f"a.{suffix}", 20, 30, exif=exif)
    assert picture_size(path) == read_image(path).shape[:2] == ((30, 20) if orientation > 4 else (20, 30))


def test_the_same_kinds_of_files_as_decoding():
    assert FORMATS == images._FORMATS


def test_what_is_no_picture(tmp_path):
    (tmp_path / "a.png").write_bytes(b"text")
    with pytest.raises(RowError, match="cannot be read"):
        picture_size(tmp_path / "a.png")
    large = tmp_path / "b.ppm"
    large.write_bytes(b"P6 11000 11000 255\n")
    with pytest.raises(RowError, match="11000 x 11000 pixels; at most"):
        picture_size(large)


def test_pictures_of_a_folder(tmp_path):
    for name in ("b.png", "a.JPG", ".hidden.png"):
        write_picture(tmp_path / name, 2, 2)
    (tmp_path / "notes.txt").touch()
    assert list(list_pictures(tmp_path)) == ["a", "b"]
    assert list_pictures(tmp_path / "nowhere") == {}
