"""Mask images as people have them: binary, compressed, in color, with other names, empty."""

import numpy as np
import pytest
from annotation_files import rectangle, write_map, write_picture
from PIL import Image

from maskrcnn.data.readers.check import check_dataset
from maskrcnn.data.readers.mask_components import components, label_regions
from maskrcnn.data.readers.open import open_dataset
from maskrcnn.data.readers.options import ReadOptions
from maskrcnn.errors import DatasetError, DatasetFormatError
from runtime.masks.rle import decode

ONE, TWO = rectangle(30, 50, 5, 10, 15, 20), rectangle(30, 50, 2, 30, 8, 38)
BOTH = ONE | TWO


def write(folder, mask, stem="a", name=None, **options):
    write_picture(folder / "images" / f"{stem}.jpg", 30, 50)
    path = folder / "masks" / (name or f"{stem}.png")
    path.parent.mkdir(exist_ok=True)
    (mask if isinstance(mask, Image.Image) else Image.fromarray(mask)).save(path, **options)
    return folder


def masks(folder, **options):
    dataset = open_dataset(folder, options=ReadOptions(**options))
    return [[decode(item.mask) for item in record.load_instances()] for record in dataset.records]


def crowds(folder):
    return [item.crowd for record in open_dataset(folder).records for item in record.load_instances()]


def kinds(folder):
    return [item.kind for item in check_dataset(folder) if item.kind not in ("class-count", "no-objects")]


BINARY = {
    "gray": np.uint8(255) * BOTH,
    "one bit": BOTH,
    "16 bits": np.uint16(65535) * BOTH,
    "white": np.repeat((np.uint8(255) * BOTH)[..., None], 3, axis=2),
    "white and opaque": np.dstack([np.uint8(255) * BOTH] * 3 + [np.full((30, 50), 255, np.uint8)]),
    "palette": Image.fromarray(np.uint8(255) * BOTH, "L").convert("P"),
}


@pytest.mark.filterwarnings("ignore:'mode' parameter is deprecated:DeprecationWarning")
@pytest.mark.parametrize("case", BINARY)
def test_binary_masks_have_an_object_in_each_region(tmp_path, case):
    write(tmp_path, BINARY[case])
    write(tmp_path, np.zeros((30, 50), np.uint8), "b")
    np.testing.assert_array_equal(masks(tmp_path)[0], [TWO, ONE])
    assert masks(tmp_path)[1] == []
    assert kinds(tmp_path) == ["binary-masks"]
    assert crowds(tmp_path) == [False, False]
    np.testing.assert_array_equal(masks(tmp_path, mask_values="objects")[0], [BOTH])


def test_void_stays_void_where_other_masks_have_objects(tmp_path):
    write(tmp_path, np.uint8(255) * BOTH)
    write(tmp_path, np.uint8(1) * ONE, "b")
    assert kinds(tmp_path) == ["crowds"]
    found = {record.image_id: record.load_instances() for record in open_dataset(tmp_path).records}
    assert [item.crowd for item in found["a"]] == [True]
    assert [item.crowd for item in found["b"]] == [False]


@pytest.mark.parametrize(("suffix", "options"), [("jpg", {"quality": 100}), ("webp", {"quality": 90})])
@pytest.mark.parametrize("single", [False, True])
def test_masks_compressed_with_loss_are_refused(tmp_path, suffix, options, single):
    if single:
        write_picture(tmp_path / "x" / "images" / "x.png", 30, 50)
        (tmp_path / "x" / "masks").mkdir()
        Image.fromarray(np.uint8(255) * ONE).save(tmp_path / "x" / "masks" / f"1.{suffix}", **options)
    else:
        write(tmp_path, np.uint8(255) * BOTH, name=f"a.{suffix}", **options)
    with pytest.raises(DatasetFormatError, match="compression changes values: masks need a lossless format"):
        open_dataset(tmp_path)


def test_a_lossless_webp_is_read_and_a_jpeg_is_known_by_its_content(tmp_path):
    write(tmp_path / "webp", np.uint8(255) * BOTH, name="a.webp", lossless=True)
    assert len(masks(tmp_path / "webp")[0]) == 2
    write(tmp_path / "jpeg", np.uint8(255) * BOTH, format="JPEG")
    with pytest.raises(DatasetFormatError, match="the mask is a JPEG file"):
        open_dataset(tmp_path / "jpeg")


def colored(*parts):
    pixels = np.zeros((30, 50, 3), np.uint8)
    for mask, color in parts:
        pixels[mask] = color
    return pixels


def test_colors_are_objects_where_each_has_one_region(tmp_path):
    write(tmp_path, colored((ONE, (255, 0, 0)), (TWO, (0, 255, 0))))
    np.testing.assert_array_equal(masks(tmp_path)[0], [TWO, ONE])  # in the order of 0x00ff00, 0xff0000
    assert kinds(tmp_path) == ["mask-colors"]


def test_colors_with_several_regions_need_an_option(tmp_path):
    write(tmp_path, colored((BOTH, (255, 0, 0))))
    with pytest.raises(DatasetFormatError, match=r"objects or classes: give mask_values= \(--mask-values\)"):
        open_dataset(tmp_path)
    np.testing.assert_array_equal(masks(tmp_path, mask_values="objects")[0], [BOTH])
    np.testing.assert_array_equal(masks(tmp_path, mask_values="parts")[0], [TWO, ONE])
    dataset = open_dataset(tmp_path, options=ReadOptions(mask_values="classes"))
    assert dataset.class_names == ("BG", "#ff0000")
    assert len(dataset.records[0].load_instances()) == 2


def test_values_as_classes(tmp_path):
    write(tmp_path, np.uint8(2) * BOTH + np.uint8(1) * rectangle(30, 50, 20, 0, 25, 5))
    dataset = open_dataset(tmp_path, options=ReadOptions(mask_values="classes"))
    assert dataset.class_names == ("BG", "class 1", "class 2")
    assert [item.class_id for item in dataset.records[0].load_instances()] == [2, 2, 1]
    named = open_dataset(tmp_path, class_names=["cat", "dog"], options=ReadOptions(mask_values="classes"))
    assert named.class_names == ("BG", "cat", "dog")
    write_map(tmp_path / "SegmentationClass" / "a.png", np.uint8(1) * ONE)
    with pytest.raises(DatasetError, match="says what the values mean"):
        open_dataset(tmp_path, options=ReadOptions(mask_values="classes"))


@pytest.mark.parametrize(
    "mask",
    [
        np.random.default_rng(0).integers(0, 256, (30, 50, 3)).astype(np.uint8),
        np.dstack([np.full((30, 50, 3), 9, np.uint8), np.uint8(128) * ONE]),
    ],
    ids=["photo", "transparent"],
)
def test_what_is_no_mask_is_refused(tmp_path, mask):
    with pytest.raises(DatasetFormatError, match=r"is it a photo|save it without alpha"):
        open_dataset(write(tmp_path, mask))


@pytest.mark.parametrize(
    ("pictures", "names"),
    [
        (["a", "ab"], ["a_mask.png", "ab_mask.png"]),
        (["a", "b"], ["mask-a.tif", "mask-b.tif"]),
        (["x_1", "x_2"], ["x_1_cp_masks.png", "x_2_cp_masks.png"]),
        (["img_1", "img_2"], ["mask_1.png", "mask_2.png"]),
        (["1_image", "2_image", "3_image"], ["1_label.png", "3_label.png"]),
        (["a"], ["a.mask.png"]),
    ],
)
def test_masks_with_other_names(tmp_path, pictures, names):
    for stem in pictures:
        write_picture(tmp_path / "images" / f"{stem}.jpg", 30, 50)
    for index, name in enumerate(names):
        write_map(tmp_path / "masks" / name, np.uint8(1) * (TWO if index else ONE))
    assert "mask-name" in kinds(tmp_path)
    found = {record.image_id: decode(record.load_instances()[0].mask) for record in open_dataset(tmp_path).records}
    assert list(found) == [pictures[0], pictures[-1]][: len(names)]
    np.testing.assert_array_equal(list(found.values()), [ONE, TWO][: len(names)])


@pytest.mark.parametrize(
    ("pictures", "names"),
    [(["a", "b"], ["a_mask.png", "b_seg.png"]), (["1", "11"], ["111.png"]), (["img_1"], ["mask_2.png"])],
)
def test_masks_whose_names_do_not_tell_the_image(tmp_path, pictures, names):
    for stem in pictures:
        write_picture(tmp_path / "images" / f"{stem}.jpg", 30, 50)
    for name in names:
        write_map(tmp_path / "masks" / name, np.uint8(1) * ONE)
    with pytest.raises(DatasetFormatError, match="expected the name of the image, or the same addition to all"):
        open_dataset(tmp_path)


def test_an_empty_mask_of_an_object_is_left_out(tmp_path):
    write_picture(tmp_path / "x" / "images" / "x.png", 30, 50)
    write_map(tmp_path / "x" / "masks" / "0.png", np.zeros((30, 50), np.uint8))
    write_map(tmp_path / "x" / "masks" / "1.png", np.uint8(255) * ONE)
    np.testing.assert_array_equal(masks(tmp_path)[0], [ONE])
    assert kinds(tmp_path) == ["empty-mask"]


def test_regions_are_those_of_a_flood_fill():
    rng = np.random.default_rng(3)
    values = rng.integers(0, 3, (17, 23)).astype(np.int32)
    labels = label_regions(values)
    assert ((labels == 0) == (values == 0)).all()
    for number in range(1, labels.max() + 1):
        assert len(np.unique(values[labels == number])) == 1
        assert len(components(labels == number)) == 1
    for a, b in ((np.s_[1:], np.s_[:-1]), (np.s_[:, 1:], np.s_[:, :-1])):
        touching = (values[a] == values[b]) & (values[a] != 0)
        assert (labels[a][touching] == labels[b][touching]).all()
