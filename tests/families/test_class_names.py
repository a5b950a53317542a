"""Class names of a PyTorch checkpoint: COCO's with torchvision's numbers, from a file, or from the command line."""

import pytest

from maskrcnn.checkpoints.families.class_names import chosen_names, coco_names, numbered_names
from maskrcnn.configuration.samples import COCO_CLASS_NAMES
from maskrcnn.errors import ArgumentError


def test_ids_of_torchvision_are_the_category_ids_of_coco():
    names = ("BG", *chosen_names("coco", 90, "x.pth"))
    assert len(names) == len(set(names)) == 91
    # Category ids in COCO's annotation files.
    known = {1: "person", 11: "fire hydrant", 13: "stop sign", 25: "giraffe", 27: "backpack", 28: "umbrella"}
    known |= {31: "handbag", 44: "bottle", 46: "wine glass", 65: "bed", 67: "dining table", 70: "toilet", 72: "tv"}
    known |= {82: "refrigerator", 84: "book", 90: "toothbrush"}
    assert {number: names[number] for number in known} == known
    gaps = [number for number, name in enumerate(names) if name.startswith("N/A")]
    assert gaps == [12, 26, 29, 30, 45, 66, 68, 69, 71, 83]
    assert [name for name in names if not name.startswith("N/A")] == list(COCO_CLASS_NAMES)


def test_the_eighty_classes_have_no_gaps():
    assert chosen_names("coco", 80, "x.pkl") == COCO_CLASS_NAMES[1:]
    assert coco_names(5) is coco_names(91) is None


@pytest.mark.parametrize("classes", [1, 79, 81, 91])
def test_coco_must_fit(classes):
    with pytest.raises(ArgumentError, match=rf"x\.pth has {classes} classes besides the background, and COCO has 80"):
        chosen_names("coco", classes, "x.pth")


def test_names_from_a_file(tmp_path):
    path = tmp_path / "names.txt"
    path.write_bytes("\ufeffsquare box\r\n  Kreis, groß \r\nstar\r\n\r\n".encode())
    assert chosen_names(str(path), 3, "x.pth") == ("square box", "Kreis, groß", "star")
    path.write_text("a\n\nb\n")
    with pytest.raises(ArgumentError, match="has no name for class 2"):
        chosen_names(str(path), 3, "x.pth")
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ArgumentError, match=r"cannot read the class names in .*names\.txt: it is not UTF-8 text"):
        chosen_names(str(path), 3, "x.pth")


def test_names_with_commas():
    assert chosen_names("a, b b,c", 3, "x.pth") == ("a", "b b", "c")
    assert chosen_names("droplet", 1, "x.pth") == ("droplet",)
    assert chosen_names(("a", "b"), 2, "x.pth") == ("a", "b")
    assert numbered_names(2) == ("class 1", "class 2")


@pytest.mark.parametrize(
    ("choice", "classes", "problem"),
    [
        ("a,b", 3, "has 3 classes besides the background, --classes has 2: give one for each"),
        ("BG,a,b", 2, "leave out the background, which comes first"),
        ("__background__,a", 1, "leave out the background, which comes first"),
        ("a,,b", 3, "has no name for class 2"),
        ("names.txt", 1, r"there is no file 'names\.txt'"),
        ("folder/names", 1, "there is no file 'folder/names'"),
        ("names", 2, "there is no file 'names'"),
        ("", 1, "has no name for class 1"),
    ],
)
def test_other_choices_are_wrong_usage(choice, classes, problem):
    with pytest.raises(ArgumentError, match=problem):
        chosen_names(choice, classes, "x.pth")
