"""Mask images as people have them: binary, compressed, in color, with other names, empty."""

import numpy as np
import pytest
from annotation_files import rectangle, write_map, write_picture
from PIL import Image

from maskrcnn.data.readers.check import check_dataset
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


CLASS_MAP = np.uint8(2) * BOTH + np.uint8(1) * rectangle(30, 50, 20, 0, 25, 5)


def classes_of(folder, **options):
    """Names of the classes, and of each object of the first image."""
    dataset = open_dataset(folder, options=ReadOptions(**options))
    return dataset.class_names, [dataset.class_names[item.class_id] for item in dataset.records[0].load_instances()]


def semantic(folder, mask, where="SegmentationClass", stem="a"):
    write_picture(folder / "JPEGImages" / f"{stem}.jpg", 30, 50)
    path = folder / where / f"{stem}.png"
    path.parent.mkdir(exist_ok=True)
    (mask if isinstance(mask, Image.Image) else Image.fromarray(mask)).save(path)
    return folder


def test_classes_without_objects_have_an_object_in_each_region(tmp_path):
    semantic(tmp_path, CLASS_MAP)
    assert classes_of(tmp_path) == (("BG", "class 1", "class 2"), ["class 2", "class 2", "class 1"])
    assert classes_of(tmp_path) == classes_of(tmp_path, mask_values="classes")
    assert kinds(tmp_path) == ["class-masks"]
    assert classes_of(tmp_path, mask_values="parts")[1] == ["object"] * 3
    assert classes_of(tmp_path, mask_values="objects")[1] == ["object"] * 2
    semantic(tmp_path, np.uint8(1) * ONE + np.uint8(2) * TWO, "SegmentationObject")  # now the objects are known
    assert kinds(tmp_path) == []


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("classes.txt", "cat\ndog\n"),
        ("classes.txt", "background\r\ncat\r\n\r\ndog\r\n"),
        ("class_names.txt", "__ignore__\n_background_\ncat\ndog\n"),
        ("labelmap.txt", "# label:color_rgb:parts:actions\nbackground:0,0,0::\ncat:1,2,3::\ndog:9,9,9::\n"),
        ("labelmap.txt", "cat:1,2,3\ndog: 9, 9, 9:tail:run\n"),
    ],
)
@pytest.mark.parametrize("layout", ["SegmentationClass", "masks"])
def test_a_file_names_the_classes_of_values(tmp_path, name, content, layout):
    semantic(tmp_path, CLASS_MAP, layout)
    (tmp_path / name).write_text(content, encoding="utf-8")
    assert classes_of(tmp_path, mask_values="classes") == (("BG", "cat", "dog"), ["dog", "dog", "cat"])
    assert [note for note in kinds(tmp_path) if note == "class-names"] == ["class-names"] * (layout == "masks")
    assert open_dataset(tmp_path, class_names=["dog"], options=ReadOptions(mask_values="classes")).class_names[1:] == (
        "dog",
    )


def test_a_value_without_a_name_is_an_error(tmp_path):
    semantic(tmp_path, CLASS_MAP)
    (tmp_path / "classes.txt").write_text("cat", encoding="utf-8")
    with pytest.raises(DatasetFormatError, match=r"its class is 2, which classes.txt does not name"):
        open_dataset(tmp_path)


LABELMAP = "back ground:1,1,1::\nbackground:9,9,9::\ncar:128,128,128::\ncat:0,0,255::\ndog:64,0,0::\n"


@pytest.mark.parametrize("objects", [False, True])
def test_colors_of_classes_have_the_names_of_a_labelmap(tmp_path, objects):
    """As CVAT writes them: in color, with a background of its own, and gray and blue among the classes."""
    (tmp_path / "labelmap.txt").write_text(LABELMAP, encoding="utf-8")
    three = rectangle(30, 50, 20, 0, 25, 5)
    pixels = colored(
        (np.ones((30, 50), bool), (9, 9, 9)), (ONE, (0, 0, 255)), (TWO, (128, 128, 128)), (three, (64, 0, 0))
    )
    semantic(tmp_path, pixels)
    gray = colored((np.ones((30, 50), bool), (9, 9, 9)), (TWO, (128, 128, 128)))
    semantic(tmp_path, gray, stem="b")  # no pixel of it shows that it is an image of colors
    if objects:
        semantic(tmp_path, colored((ONE, (1, 0, 0)), (TWO, (0, 1, 0)), (three, (0, 0, 1))), "SegmentationObject")
        semantic(tmp_path, np.uint8(1) * TWO, "SegmentationObject", "b")
    names, found = classes_of(tmp_path)
    assert names == ("BG", "back ground", "car", "cat", "dog")
    assert sorted(found) == ["car", "cat", "dog"]
    (item,) = open_dataset(tmp_path).records[1].load_instances()
    assert names[item.class_id] == "car"
    np.testing.assert_array_equal(decode(item.mask), TWO)
    palette = Image.fromarray(pixels).convert("P", palette=Image.Palette.ADAPTIVE, colors=8)
    if not objects:
        semantic(tmp_path, palette)
        assert sorted(classes_of(tmp_path)[1]) == ["car", "cat", "dog"]
    semantic(tmp_path, colored((BOTH | three, (0, 7, 255))))
    with pytest.raises(DatasetFormatError, match=r"its color is 0, 7, 255, which labelmap.txt does not name"):
        open_dataset(tmp_path)


def test_gray_and_colored_classes_are_not_mixed_up(tmp_path):
    for stem, color in (("a", (128, 128, 128)), ("b", (255, 0, 0)), ("c", (255, 255, 255))):
        write(tmp_path, colored((ONE, color), (TWO, (128, 128, 128))), stem)
    dataset = open_dataset(tmp_path, options=ReadOptions(mask_values="classes"))
    assert dataset.class_names == ("BG", "#808080", "#ff0000", "#ffffff")
    found = {record.image_id: {item.class_id for item in record.load_instances()} for record in dataset.records}
    assert found == {"a": {1}, "b": {1, 2}, "c": {1, 3}}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("classes.txt", ""),
        ("classes.txt", "background"),
        ("classes.txt", "cat\ncat"),
        ("classes.txt", "BG\nbackground\ncat"),
        ("labelmap.txt", "cat"),
        ("labelmap.txt", "cat:1,2"),
        ("labelmap.txt", "cat:1,2,256"),
        ("labelmap.txt", ":1,2,3"),
        ("labelmap.txt", "cat:1,2,3\ndog:1,2,3"),
        ("labelmap.txt", "cat:0,0,0"),
        ("classes.txt", b"\xff\x00\x81"),
    ],
)
def test_names_that_cannot_be_read(tmp_path, name, content):
    semantic(tmp_path, CLASS_MAP)
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DatasetFormatError, match=name):
        open_dataset(tmp_path)


def test_void_of_classes_is_no_object_and_hides_what_is_there(tmp_path):
    """255 in 8 bits, or its color in the palette of VOC: outlines are background, wide areas crowds."""
    outline = rectangle(30, 50, 4, 9, 16, 21) & ~ONE
    wide = rectangle(30, 50, 20, 30, 29, 45)
    gray = np.where(outline | wide, 255, 3 * ONE + 1 * TWO).astype(np.uint8)
    color = colored((ONE, (0, 128, 0)), (TWO, (128, 0, 0)), (outline | wide, (224, 224, 192)))
    for folder, mask in ((tmp_path / "gray", gray), (tmp_path / "color", color)):
        folder.mkdir()
        semantic(folder, mask)
        found = open_dataset(folder).records[0].load_instances()
        assert [item.crowd for item in found] == [False, False, True]
        np.testing.assert_array_equal([decode(item.mask) for item in found], [TWO, ONE, wide])


@pytest.mark.parametrize("mode", ["gray", "16 bits", "palette"])
def test_values_in_several_regions_are_said(tmp_path, mode):
    """A mask of 0 and 1 may be binary, one of few values may have classes: the default reads objects, and says so."""
    values = np.uint8(1) * BOTH
    image = Image.fromarray(values.astype(np.uint16) if mode == "16 bits" else values)
    if mode == "palette":
        image.putpalette([0, 0, 0, 255, 0, 0])
    write(tmp_path, image)
    write(tmp_path, np.uint8(1) * ONE, "b")
    (note,) = [item for item in check_dataset(tmp_path) if item.kind == "split-objects"]
    assert (note.level, note.count) == ("warning", 1)
    assert "1 value in 2 separate regions" in note.message
    assert "--mask-values parts or classes" in note.message
    np.testing.assert_array_equal(masks(tmp_path)[0], [BOTH])
    np.testing.assert_array_equal(masks(tmp_path, mask_values="parts")[0], [TWO, ONE])


def test_specks_are_objects_and_are_said(tmp_path):
    mask = BOTH.copy()
    mask[0, 0], mask[29, 40:49] = True, True  # 1 and 9 pixels
    mask[20, 10:20] = True  # 10 pixels
    write(tmp_path, np.uint8(255) * mask)
    assert len(masks(tmp_path)[0]) == 5
    (note,) = [item for item in check_dataset(tmp_path) if item.kind == "tiny-regions"]
    assert note.level == "warning"
    assert "2 regions of fewer than 10 pixels" in note.message


def test_too_many_regions_are_refused(tmp_path):
    write_picture(tmp_path / "images" / "a.png", 300, 300)
    write_map(tmp_path / "masks" / "a.png", np.uint8(255) * (np.indices((300, 300)).sum(0) % 2 == 0))
    with pytest.raises(DatasetFormatError, match=r"has 45000 objects; expected at most 10000: .* many specks"):
        open_dataset(tmp_path)


def test_touching_objects_become_one_and_corners_do_not_touch(tmp_path):
    touching = rectangle(30, 50, 0, 0, 5, 5) | rectangle(30, 50, 2, 5, 9, 9)
    corner = rectangle(30, 50, 20, 20, 24, 24) | rectangle(30, 50, 24, 24, 28, 28)
    write(tmp_path, np.uint8(255) * (touching | corner))
    found = masks(tmp_path)[0]
    assert [int(mask.sum()) for mask in found] == [25 + 28, 16, 16]


def test_a_file_for_each_object_may_have_several(tmp_path):
    write_picture(tmp_path / "x" / "images" / "x.png", 30, 50)
    write_map(tmp_path / "x" / "masks" / "1.png", np.uint8(255) * BOTH)
    np.testing.assert_array_equal(masks(tmp_path)[0], [BOTH])
    np.testing.assert_array_equal(masks(tmp_path, mask_values="objects")[0], [BOTH])
    np.testing.assert_array_equal(masks(tmp_path, mask_values="parts")[0], [TWO, ONE])
    with pytest.raises(DatasetError, match="has one mask for each object"):
        masks(tmp_path, mask_values="classes")
