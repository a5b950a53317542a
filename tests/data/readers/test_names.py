"""Names of images: what another computer, a URL or a file system made of them is undone; the rest is asked for."""

import unicodedata

import pytest
from annotation_files import coco, write_json, write_picture

from maskrcnn.data.readers.check import check_dataset
from maskrcnn.data.readers.open import open_dataset
from maskrcnn.data.readers.options import ReadOptions
from maskrcnn.errors import DatasetError, DatasetFormatError

BY_NAME = ReadOptions(by_name=True)


def write(folder, *names, files):
    """A COCO file with one object in each image, and the image files."""
    content = coco()
    content["images"] = [
        {"id": index, "file_name": name, "height": 40, "width": 60} for index, name in enumerate(names, 1)
    ]
    content["annotations"] = [
        {"id": index, "image_id": index, "category_id": 3, "segmentation": [[1, 1, 9, 1, 9, 9]]}
        for index, _ in enumerate(names, 1)
    ]
    for file in files:
        write_picture(folder / file, 40, 60)
    return write_json(folder / "data.json", content)


def files_of(path, **options):
    dataset = open_dataset(path, **options)
    return [record.image.relative_to(path.resolve().parent).as_posix() for record in dataset.records]


DECOMPOSED = unicodedata.normalize("NFD", "größe é.png")
# The name in the annotations, the file, and the rules that are told.
FOUND = {
    "percent": ("my%20cat%C3%A9.png", "my cat\xe9.png", ["name-percent"]),
    "percent is in the name": ("my%20cat.png", "my%20cat.png", []),
    "decomposed name": (DECOMPOSED, "größe é.png", ["name-unicode"]),
    "decomposed file": ("größe é.png", DECOMPOSED, ["name-unicode"]),
    "extension in capitals": ("a.PNG", "a.png", ["name-letter-case"]),
    "file in capitals": ("images/a.png", "images/A.PNG", ["name-letter-case", "name-own-folder"]),
    "other extension": ("a.jpg", "a.png", ["name-extension"]),
    "no extension": ("frame.0001", "frame.0001.png", ["name-extension"]),
    "URL": ("https://example.org/x/a.png?token=1#top", "a.png", ["name-url", "name-path"]),
    "URL with percent": ("https://example.org/my%20cat.png", "my cat.png", ["name-url", "name-percent", "name-path"]),
    "bucket": ("s3://bucket/images/a.png", "images/a.png", ["name-url", "name-own-folder"]),
    "query": ("/data/local-files/?d=images/a.png", "images/a.png", ["name-own-folder", "name-query"]),
    "token": ("a.png?token=1", "a.png", ["name-query"]),
    "Windows": ("D:\\set\\me\\a.png", "a.png", ["name-backslashes", "name-path"]),
    "backslashes": ("sub\\a.png", "sub/a.png", ["name-backslashes"]),
    "path": ("/data/me/set/images/a.png", "images/a.png", ["name-path"]),
    "folder and all": ("images\\A.JPG", "images/a.jpg", ["name-backslashes", "name-letter-case", "name-own-folder"]),
}  # fmt: skip


@pytest.mark.parametrize("case", FOUND)
def test_a_name_is_found_and_the_rule_told(tmp_path, case):
    name, file, kinds = FOUND[case]
    path = write(tmp_path, name, files=[file])
    assert files_of(path) == [unicodedata.normalize("NFC", file)] or files_of(path) == [file]
    found = [item.kind for item in check_dataset(path) if item.kind.startswith("name-")]
    assert sorted(found) == sorted(kinds)


def test_the_name_of_the_folder_that_is_given(tmp_path):
    path = write(tmp_path / "set", "images/train/a.png", files=[])
    folder = write_picture(tmp_path / "moved" / "images" / "train" / "a.png", 40, 60).parent
    (record,) = open_dataset(path, folder).records
    assert record.image == folder / "a.png"
    with pytest.raises(DatasetError, match=r"first 'images/train/a\.png'"):
        open_dataset(path, write_picture(tmp_path / "other" / "a.png", 40, 60).parent)


# Names in the annotations, and files; the last name must not be taken for another file.
WRONG = {
    "other folder": (("a/1.png", "b/1.png"), ("images/1.png", "images/a/1.png")),
    "folder is missing": (("a/1.png", "b/2.png"), ("images/a/1.png", "images/2.png")),
    "paths with one end": (("x.png", "/data/a/1.png", "/data/b/1.png"), ("images/x.png", "images/1.png")),
    "extension of another's file": (("a.png", "a.jpg"), ("images/a.png",)),
    "case of another's file": (("a.png", "A.PNG"), ("images/a.png",)),
    "percent of another's file": (("my cat.png", "my%20cat.png"), ("images/my cat.png",)),
    "two that differ in case": (("x.png", "AB.png"), ("images/x.png", "images/Ab.png", "images/aB.png")),
    "two extensions": (("x.png", "a.bmp"), ("images/x.png", "images/a.png", "images/a.jpg")),
    "out of the folder": (("x.png", "../../1.png"), ("images/x.png", "1.png")),
}


@pytest.mark.parametrize("case", WRONG)
def test_another_image_is_not_taken(tmp_path, case):
    names, files = WRONG[case]
    path = write(tmp_path / "set", *names, files=files)
    errors = [item for item in check_dataset(path) if item.level == "error"]
    assert {item.kind for item in errors} == {"missing-file"}
    assert any("there is no image" in item.message for item in errors)
    with pytest.raises(DatasetFormatError, match="there is no image"):
        open_dataset(path)


def test_a_mapping_by_name_is_asked_for(tmp_path):
    path = write(tmp_path, "a/1.png", "b/1.png", files=["images/1.png", "images/a/1.png"])
    with pytest.raises(DatasetFormatError, match=r"by_name=True \(--by-name\) would take '1\.png' there"):
        open_dataset(path)
    assert files_of(path, options=BY_NAME) == ["images/a/1.png", "images/1.png"]
    assert [item.count for item in check_dataset(path, options=BY_NAME) if item.kind == "name-by-name"] == [1]


@pytest.mark.parametrize("names", [("a.png", "a.png"), ("a.png", "./a.png"), ("a.png", "../images/a.png")])
def test_two_rows_with_one_file_are_one_image_only_if_asked_for(tmp_path, names):
    path = write(tmp_path, *names, files=["images/a.png"])
    with pytest.raises(DatasetFormatError, match=r"also the image of id 1.*\(--by-name\) makes one image"):
        open_dataset(path)
    (record,) = open_dataset(path, options=BY_NAME).records
    assert [item.annotation_id for item in record.load_instances()] == [1, 2]


def test_labelme_images_are_not_taken_from_another_folder(tmp_path):
    write_picture(tmp_path / "a" / "1.png", 40, 60)
    shapes = [{"label": "cat", "points": [[1, 1], [9, 1], [9, 9]]}]
    write_json(tmp_path / "a" / "1.json", {"imagePath": "../b/1.png", "shapes": shapes})
    with pytest.raises(DatasetFormatError, match=r"no image '../b/1\.png'.*--by-name"):
        open_dataset(tmp_path / "a")
    assert open_dataset(tmp_path / "a", options=BY_NAME).records[0].image.name == "1.png"
