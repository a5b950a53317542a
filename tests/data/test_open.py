"""Opening datasets: which formats are recognized, and the errors if none is."""

import numpy as np
import pytest
from annotation_files import coco, rectangle, write_coco, write_json, write_map, write_picture

from maskrcnn.data.readers.open import open_dataset, open_datasets
from maskrcnn.errors import DatasetError, DatasetFormatError, DatasetNotFoundError

RECT = {"name": "rect", "x": 30, "y": 2, "width": 8, "height": 6}


def write_via(folder, **attributes):
    write_picture(folder / "v.png", 30, 50)
    region = {"shape_attributes": RECT, "region_attributes": attributes}
    return write_json(folder / "via_region_data.json", {"v": {"filename": "v.png", "regions": [region]}})


def write_labelme(folder, label="cat", name="l"):
    write_picture(folder / f"{name}.png", 30, 50)
    shape = {"label": label, "points": [[1, 1], [9, 1], [9, 9]]}
    return write_json(folder / f"{name}.json", {"imagePath": f"{name}.png", "shapes": [shape]})


def write_masks(folder):
    write_picture(folder / "images" / "m.png", 30, 50)
    write_map(folder / "masks" / "m.png", rectangle(30, 50, 2, 2, 9, 9).astype(np.uint8))


def write_single(folder):
    write_picture(folder / "n" / "images" / "n.png", 30, 50)
    write_map(folder / "n" / "masks" / "1.png", rectangle(30, 50, 2, 2, 9, 9).astype(np.uint8))


def image_ids(dataset):
    return [record.image_id for record in dataset.records]


@pytest.mark.parametrize("as_folder", [False, True])
def test_formats_are_recognized(tmp_path, as_folder):
    for name, write, expected, classes in (
        ("coco", write_coco, [1, 5], ("BG", "cat", "dog")),
        ("via", write_via, ["v.png"], ("BG", "object")),
        ("labelme", write_labelme, ["l"], ("BG", "cat")),
    ):
        file = write(tmp_path / name)
        dataset = open_dataset(file.parent if as_folder else str(file))
        assert image_ids(dataset) == expected
        assert dataset.class_names == classes
        assert image_ids(open_dataset(file, format=name)) == expected


def test_folders_of_masks_are_recognized(tmp_path):
    write_masks(tmp_path / "a")
    write_single(tmp_path / "b")
    assert image_ids(open_dataset(tmp_path / "a")) == ["m"]
    assert image_ids(open_dataset(tmp_path / "b")) == ["n"]
    assert open_dataset(tmp_path / "b", class_names=["nucleus"]).class_names == ("BG", "nucleus")
    assert open_dataset(tmp_path / "a", class_names=["BG", "cell"], format="masks").class_names == ("BG", "cell")


def test_a_folder_with_the_usual_annotations_folder(tmp_path):
    write_picture(tmp_path / "val2017" / "a.png", 40, 60)
    write_picture(tmp_path / "val2017" / "b.png", 30, 50)
    write_json(tmp_path / "annotations" / "instances_val2017.json", coco())
    assert image_ids(open_dataset(tmp_path)) == [1, 5]


def test_the_name_tells_folder_and_file(tmp_path):
    assert open_dataset(write_via(tmp_path / "train")).name == "train/via_region_data"
    write_labelme(tmp_path / "mine")
    assert open_dataset(tmp_path / "mine").name == "mine"


def test_options_reach_the_reader(tmp_path):
    via = write_via(tmp_path, kind="dog")
    assert open_dataset(via, class_names=["balloon"]).class_names == ("BG", "balloon")
    assert open_dataset(via, class_attribute="kind").class_names == ("BG", "dog")
    with pytest.raises(DatasetError, match=r"2 class names are given, but .* with class_attribute="):
        open_dataset(via, class_names=["a", "b"])
    moved = tmp_path / "elsewhere"
    write_picture(moved / "v.png", 30, 50)
    (tmp_path / "v.png").unlink()
    assert open_dataset(via, images=moved).records[0].image.parent == moved


def test_chosen_classes(tmp_path):
    dataset = open_dataset(write_coco(tmp_path), class_names=["dog"])
    assert dataset.class_names == ("BG", "dog")
    assert dataset.category_ids == {1: 7}
    assert [item.class_id for item in dataset.records[0].load_instances()] == [1]
    assert len(dataset) == 2
    with pytest.raises(DatasetError, match="no class cow in the data: it has cat, dog"):
        open_dataset(tmp_path / "data.json", class_names=["dog", "cow"])
    for names, message in (("dog", "a list of names"), ([], "at least one"), (["dog", "dog"], "without duplicates")):
        with pytest.raises(DatasetError, match=message):
            open_dataset(tmp_path / "data.json", class_names=names)


def test_bad_rows_are_refused_or_left_out(tmp_path):
    content = coco()
    content["annotations"][0]["category_id"] = 99
    path = write_coco(tmp_path, content)
    with pytest.raises(DatasetFormatError, match="category_id is 99"):
        open_dataset(path)
    assert len(open_dataset(path, skip_bad=True).records[0].load_instances()) == 2


def test_several_at_once(tmp_path):
    write_labelme(tmp_path / "l", "emu")
    joined = open_datasets([write_coco(tmp_path / "a"), write_coco(tmp_path / "b"), tmp_path / "l"])
    assert joined.class_names == ("BG", "cat", "dog", "emu")
    assert image_ids(joined) == ["a/data:1", "a/data:5", "b/data:1", "b/data:5", "l:l"]
    assert [record.active_class_ids for record in joined.records] == [{1, 2}] * 4 + [{3}]
    chosen = open_datasets([tmp_path / "a", tmp_path / "l"], class_names=["emu", "cat"])
    assert [record.active_class_ids for record in chosen.records] == [{2}, {2}, {1}]
    with pytest.raises(DatasetError, match="no class cow"):
        open_datasets([tmp_path / "a", tmp_path / "l"], class_names=["emu", "cow"])


def test_several_of_one_name_keep_their_pictures_apart(tmp_path):
    paths = [write_coco(tmp_path / place / "train") for place in ("a", "b")]
    ids = image_ids(open_datasets(paths))
    assert len(set(ids)) == 4
    with pytest.raises(DatasetError, match="given twice"):
        open_datasets([paths[0], str(paths[0])])
    with pytest.raises(DatasetError, match="no dataset"):
        open_datasets([])


def test_what_is_not_recognized(tmp_path):
    with pytest.raises(DatasetNotFoundError, match="nowhere does not exist; expected a COCO JSON file, a VGG"):
        open_dataset(tmp_path / "nowhere")
    with pytest.raises(DatasetFormatError, match="contains no dataset in a known format; expected a COCO"):
        open_dataset(tmp_path)
    with pytest.raises(DatasetFormatError, match="is not a dataset in a known format"):
        open_dataset(write_picture(tmp_path / "a.png", 2, 2))
    for content in ({}, [], {"images": 1}, 5, {"a": {"b": 1}}):
        with pytest.raises(DatasetFormatError, match="JSON, but not in a known format; expected"):
            open_dataset(write_json(tmp_path / "x.json", content))
    with pytest.raises(DatasetFormatError, match="no list 'categories'"):
        open_dataset(write_json(tmp_path / "x.json", {"images": [], "annotations": []}))
    write_coco(tmp_path)
    with pytest.raises(DatasetFormatError, match=r"several datasets \(data\.json, x\.json\): give the path of one"):
        open_dataset(tmp_path)
    with pytest.raises(DatasetError, match="format is 'voc'; expected one of coco, via, labelme, masks, yolo"):
        open_dataset(tmp_path, format="voc")
    with pytest.raises(DatasetFormatError, match="is a file; expected a folder of mask"):
        open_dataset(tmp_path / "data.json", format="masks")
