"""Image files: sizes from headers equal those of decoded images, and names stay in their folder."""

import pytest
from annotation_files import write_picture
from PIL import Image

from maskrcnn.data.readers.findings import RowError
from maskrcnn.data.readers.picture_files import list_pictures, picture_size
from maskrcnn.data.readers.picture_folder import PictureFolder
from runtime.pictures.read import read_image


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_size_of_a_turned_picture(tmp_path, suffix, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = write_picture(tmp_path / f"a.{suffix}", 20, 30, exif=exif)
    assert picture_size(path) == read_image(path).shape[:2] == ((30, 20) if orientation > 4 else (20, 30))


def test_what_is_no_picture(tmp_path):
    (tmp_path / "a.png").write_bytes(b"text")
    with pytest.raises(RowError, match="not an image in a known format"):
        picture_size(tmp_path / "a.png")
    large = tmp_path / "b.ppm"
    large.write_bytes(b"P6 11000 11000 255\n")
    with pytest.raises(RowError, match="11000 x 11000 pixels; at most"):
        picture_size(large)


def test_names_do_not_lead_out_of_the_folder(tmp_path):
    outside = write_picture(tmp_path / "secret.png", 2, 2)
    inside = write_picture(tmp_path / "data" / "images" / "a.png", 2, 2)
    (inside.parent / "link.png").symlink_to(outside)
    folder = PictureFolder(tmp_path / "data" / "x.json", inside.parent, [])
    for name in (
        "../../secret.png",
        "..\\..\\secret.png",
        "x/../../../secret.png",
        str(outside),
        "/etc/hostname",
        "..",
        "a..b/a.png",
    ):
        assert folder.find(name) is None, name
    for name in (
        "a.png",
        "../images/a.png",
        "x/../a.png",
        str(inside),
        "/elsewhere/me/a.png",
        "C:\\me\\a.png",
    ):
        assert folder.find(name).samefile(inside), name
    assert folder.find("link.png").samefile(outside)  # who made the folder made the link
    (tmp_path / "data" / "y").mkdir()
    beside = PictureFolder(tmp_path / "data" / "x.json", tmp_path / "data" / "y", [], tmp_path / "data")
    assert beside.find("../images/a.png").samefile(inside)
    assert beside.find("../../secret.png") is None


def test_pictures_of_a_folder(tmp_path):
    for name in ("b.png", "a.JPG", ".hidden.png"):
        write_picture(tmp_path / name, 2, 2)
    (tmp_path / "notes.txt").touch()
    assert list(list_pictures(tmp_path)) == ["a", "b"]
    assert list_pictures(tmp_path / "nowhere") == {}
