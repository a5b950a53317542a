"""What paths mean: which files are taken, in which order, under which names."""

import os

import pytest

from maskrcnn.prediction.sources import Failure, Source, find_sources
from runtime.errors import ImageError, OutputError


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """Files in `pics` and elsewhere; the working folder is their parent."""
    names = (
        "pics/b.PNG", "pics/a.jpg", "pics/sub/a.jpg", "pics/sub/clip.mp4", "pics/x.png/inner.jpeg",
        "pics/notes.txt", "pics/data.json", "pics/.hidden.png", "pics/.cache/c.png", "other/a.jpg", "odd.xyz",
        "img[1].png", "out/overlay/a.png",
    )  # fmt: skip
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def names(paths, output="out"):
    sources, unreadable = find_sources(paths, output)
    assert unreadable == []
    assert all(source.path.is_absolute() for source in sources)
    return [source.name for source in sources]


def test_a_folder_is_walked_for_known_files(tree):
    # A folder that is called like a picture is a folder.
    assert names(["pics"]) == ["a.jpg", "b.PNG", "sub/a.jpg", "sub/clip.mp4", "x.png/inner.jpeg"]
    assert names(["./pics/../pics/"]) == names(["pics"]) == names([str(tree / "pics")])


def test_a_file_that_is_named_is_always_taken(tree):
    assert names(["odd.xyz", "pics/notes.txt", "pics/.hidden.png"]) == ["odd.xyz", "notes.txt", ".hidden.png"]


def test_patterns(tree):
    assert names(["pics/*"]) == ["a.jpg", "b.PNG", "sub/a.jpg", "sub/clip.mp4", "x.png/inner.jpeg"]
    assert names(["pics/**/a.jpg"]) == ["a.jpg", "sub/a.jpg"]
    assert names(["p?cs/s[tu]b/*.jpg"]) == ["pics/sub/a.jpg"]
    assert names(["*.xyz"]) == ["odd.xyz"]
    assert names(["pics/**"]) == ["a.jpg", "b.PNG", "sub/a.jpg", "sub/clip.mp4", "x.png/inner.jpeg"]
    assert names([str(tree / "*" / "a.jpg")]) == ["other/a.jpg", "pics/a.jpg"]
    assert names(["pics/*/../../other/*.jpg"])[0].split("/")[-1] == "a.jpg"
    assert not any(".." in name for name in names(["pics/*/../../other/*.jpg"]))


def test_a_file_with_the_signs_of_a_pattern_is_itself(tree):
    assert names(["img[1].png"]) == ["img[1].png"]


def test_a_file_is_taken_once(tree):
    assert names(["pics", "pics/a.jpg", "pics/sub", "pics/*.jpg"]) == names(["pics"])


def test_equal_names_of_different_files_are_told_apart(tree):
    found = names(["pics", "other", "pics/sub/a.jpg"])
    assert len({name.casefold() for name in found}) == len(found) == 6
    assert found[:5] == names(["pics"])
    assert found[5].startswith("a~")
    assert found[5].endswith(".jpg")
    assert names(["pics", "other"])[5] == found[5]


def test_names_that_share_an_overlay_are_told_apart(tree):
    (tree / "plain").write_bytes(b"")
    (tree / "plain.png").write_bytes(b"")
    (tree / "PLAIN.png").write_bytes(b"")
    sources, _ = find_sources(["plain", "plain.png", "PLAIN.png"], tree / "out")
    assert len({source.view_name.casefold() for source in sources}) == 3
    assert [Source(tree / name, name).view_name for name in ("a.jpg", "a.png", "a.mov", "a.mp4")] == [
        "a.jpg.png", "a.png", "a.mov.mp4", "a.mp4",
    ]  # fmt: skip


def test_the_output_is_no_input(tree):
    assert names(["."]) == names([str(tree)])
    assert not any("overlay" in name for name in names(["."]))
    assert not any("overlay" in name for name in names(["**/*.png"]))
    assert "out/overlay/a.png" in names(["."], "elsewhere")
    assert names(["out/overlay/a.png"]) == ["a.png"]  # somebody names it


def test_names_that_no_file_could_have_with_more_letters(tree):
    long = "x" * 240 + ".png"
    (tree / "pics" / "sub" / long).write_bytes(b"")
    (name,) = names(["pics/sub/" + "x*.png"])
    assert len(name) < 200
    assert name.endswith(".png")
    nested = next(name for name in names(["pics"]) if "xxx" in name)
    assert nested.startswith("sub/xxx")


def test_bytes_that_are_no_text(tree):
    try:
        (tree / os.fsdecode(b"bad\xff.png")).write_bytes(b"")
    except OSError:
        pytest.skip("this file system has names in Unicode only")
    (name,) = names(["bad*"])
    name.encode("utf-8")
    failure = Failure.of(find_sources(["bad*"], "out")[0][0], OutputError("x"))
    "".join(failure).encode("utf-8")


def test_videos_are_told_by_their_suffix(tree):
    sources, _ = find_sources(["pics/sub"], tree / "out")
    assert [source.is_video for source in sources] == [False, True]


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        (["nowhere.jpg"], "'nowhere.jpg' does not exist"),
        (["pics", "nowhere"], "'nowhere' does not exist"),
        (["pics/*.bmp"], "matches nothing"),
        (["empty"], "contains no image or video"),
        (["out"], "contains no image or video"),
        (["pics/*.txt*"], "contains no image or video"),
    ],
)
def test_nothing_to_predict_is_an_error(tree, paths, message):
    (tree / "empty").mkdir()
    with pytest.raises(ImageError, match=message):
        find_sources(paths, "out")


def test_a_link_that_leads_nowhere_is_a_file_that_fails(tree):
    (tree / "pics" / "gone.png").symlink_to("nowhere.png")
    assert "gone.png" in names(["pics"])
    assert names(["pics/gone.png"]) == ["gone.png"]


def test_a_circle_of_folders_ends(tree):
    (tree / "pics" / "sub" / "up").symlink_to(tree / "pics", target_is_directory=True)
    assert len(names(["pics"])) == 5


def test_a_folder_that_may_not_be_read_is_a_failure(tree, monkeypatch):
    real = os.scandir

    def scandir(path):
        if os.fspath(path).endswith("sub"):
            raise PermissionError(13, "Permission denied", os.fspath(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    sources, (failure,) = find_sources(["pics"], "out")
    assert [source.name for source in sources] == ["a.jpg", "b.PNG", "x.png/inner.jpeg"]
    assert failure == ("sub", str(tree / "pics" / "sub"), "PermissionError", "Permission denied")
