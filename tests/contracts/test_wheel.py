"""The checks of `make wheel-check` and `make lowest` notice what they are for."""

import re
import shutil
import subprocess
import sys
import zipfile

import pytest
from packaging.requirements import Requirement

from tools.check_lowest import counts, lowest_versions
from tools.check_wheel import differences, intended_files, wheel_problems
from tools.environments import run
from tools.installed import floor, requirements

PYPROJECT = """
[project]
name = "a-b"
version = "1.0"
[project.scripts]
a = "runtime.__main__:main"
[tool.hatch.build.targets.wheel]
packages = ["runtime", "export"]
"""
FILES = {"runtime/__main__.py": b"main = print", "runtime/py.typed": b"", "export/data/a.json": b"{}"}
ABOUT = "a_b-1.0.dist-info"
METADATA = {
    f"{ABOUT}/METADATA": b"Name: a-b",
    f"{ABOUT}/WHEEL": b"",
    f"{ABOUT}/RECORD": b"",
    f"{ABOUT}/entry_points.txt": b"[console_scripts]\na = runtime.__main__:main\n",
    f"{ABOUT}/licenses/LICENSE": b"MIT",
}


@pytest.fixture
def checkout(tmp_path):
    root = tmp_path / "checkout"
    for name, content in {"pyproject.toml": PYPROJECT.encode(), **FILES}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


@pytest.fixture
def problems(checkout, tmp_path):
    """Function that returns the problems of a wheel with some entries changed, or left out where None."""

    def check(**changed):
        with zipfile.ZipFile(tmp_path / "a.whl", "w") as archive:
            for name, content in (FILES | METADATA | changed).items():
                if content is not None:
                    archive.writestr(name, content)
        return wheel_problems(tmp_path / "a.whl", checkout, set(FILES))

    return check


def test_a_good_wheel_has_no_problems(problems):
    assert problems() == []


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("runtime/py.typed", None, "runtime/py.typed is missing from the wheel"),
        ("export/data/a.json", None, "export/data/a.json is missing from the wheel"),
        (f"{ABOUT}/licenses/LICENSE", None, f"{ABOUT}/licenses/LICENSE is missing from the wheel"),
        (
            f"{ABOUT}/METADATA",
            b"[a](https://x/y)\n[b](docs/b.md)\n",
            "the long description has the relative link docs/b.md",
        ),
        (f"{ABOUT}/METADATA", b"![a\nb](a.jpg)\n", "the long description has the relative link a.jpg"),
        ("runtime/draft.py", b"", "runtime/draft.py is in the wheel, but is not tracked"),
        ("tests/test_a.py", b"", "tests/test_a.py is in the wheel, but is not tracked"),
        ("runtime/__pycache__/a.pyc", b"", "runtime/__pycache__/a.pyc is in the wheel, but is not tracked"),
        ("export/data/a.json", b"[]", "export/data/a.json differs from the checkout"),
        (
            f"{ABOUT}/entry_points.txt",
            b"[console_scripts]\n",
            "the entry points are {}, expected {'a': 'runtime.__main__:main'}",
        ),
    ],
)
def test_what_is_missing_or_too_much_is_named(problems, name, content, problem):
    assert problems(**{name: content}) == [problem]


def test_missing_entry_points_and_their_modules_are_named(problems):
    assert f"{ABOUT}/entry_points.txt is missing from the wheel" in problems(**{f"{ABOUT}/entry_points.txt": None})
    assert "a starts runtime/__main__.py, which is missing" in problems(**{"runtime/__main__.py": None})


def test_a_kind_of_file_that_packages_do_not_have_is_named(checkout, tmp_path):
    (checkout / "runtime" / "notes.txt").touch()
    with zipfile.ZipFile(tmp_path / "a.whl", "w") as archive:
        for name, content in (FILES | METADATA | {"runtime/notes.txt": b""}).items():
            archive.writestr(name, content)
    found = wheel_problems(tmp_path / "a.whl", checkout, {*FILES, "runtime/notes.txt"})
    assert found == ["runtime/notes.txt has an unexpected suffix"]


def test_intended_files_without_git_are_those_on_disk(checkout):
    (checkout / "runtime" / "__pycache__").mkdir()
    (checkout / "runtime" / "__pycache__" / "a.pyc").touch()
    assert intended_files(checkout) == set(FILES)


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_intended_files_with_git_are_those_tracked(checkout):
    subprocess.run(["git", "init", "--quiet"], cwd=checkout, check=True)
    subprocess.run(["git", "add", "."], cwd=checkout, check=True)
    (checkout / "runtime" / "draft.py").touch()
    assert intended_files(checkout) == set(FILES)


def test_the_packages_of_this_project_are_intended(pytestconfig):
    files = intended_files(pytestconfig.rootpath)
    assert {
        "runtime/py.typed",
        "maskrcnn/demo.jpg",
        "maskrcnn/demo.weights.h5",
        "export/convert/cuda_kernels.json",
    } <= files
    assert {name.partition("/")[0] for name in files} == {"runtime", "maskrcnn", "export"}


ANSWER = {"classes": ["circle", "square"], "boxes": [[0.0, 1, 2, 3], [4, 5, 6, 7]], "scores": [0.9, 0.8]}


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"boxes": [[0.0, 1, 2, 3.009], [4, 5, 6, 7]], "scores": [0.9, 0.8005]}, None),
        ({"boxes": [[0.0, 1, 2, 3.011], [4, 5, 6, 7]]}, "boxes differ by 0.01"),
        ({"scores": [0.9, 0.81]}, "scores differ by 0.01"),
        ({"classes": ["square", "circle"]}, "the wheel detects"),
        ({"classes": ["circle"], "boxes": [[0.0, 1, 2, 3]], "scores": [0.9]}, "the wheel detects"),
    ],
)
def test_differences(changes, problem):
    found = differences(ANSWER | changes, ANSWER)
    assert [line.startswith(problem or " ") for line in found] == ([True] if problem else [])


def test_nothing_detected_is_a_difference():
    empty = {"classes": [], "boxes": [], "scores": []}
    assert differences(empty, empty) == ["the checkout detects nothing in the demo image"]


def test_the_lowest_versions_are_those_of_the_project():
    assert [text.partition("==")[0] for text in lowest_versions()] == ["numpy", "pillow", "onnxruntime"]
    for pin, text in zip(lowest_versions(), requirements("onnx"), strict=True):
        version = pin.partition("==")[2]
        assert version in Requirement(text).specifier
        assert version == str(floor(Requirement(text)))


REPORT = """<testsuites><testsuite>
<testcase name="a" /><testcase name="b"><failure message="x" /></testcase>
<testcase name="c"><skipped message="gpu: none">c.py:1: gpu: none</skipped></testcase>
<testcase name="d"><skipped message="collection skipped">('d.py', 2, 'Skipped: needs TensorFlow')</skipped></testcase>
<testcase name="e"><skipped message="needs TensorFlow">e.py:3: needs TensorFlow</skipped></testcase>
</testsuite></testsuites>"""


def test_counts(tmp_path):
    (tmp_path / "report.xml").write_text(REPORT)
    assert counts(tmp_path / "report.xml") == (2, {"gpu: none": 1, "needs TensorFlow": 2})


def test_a_program_that_fails_ends_the_check(tmp_path, capsys):
    with pytest.raises(SystemExit, match="error: exit code 3 of "):
        run([sys.executable, "-c", "import sys; print('why'); sys.exit(3)"], tmp_path)
    assert "why" in capsys.readouterr().err


def test_programs_of_a_check_do_not_see_the_path_of_this_process(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "elsewhere")
    program = [sys.executable, "-c", "import os; print(os.environ.get('PYTHONPATH'))"]
    assert run(program, tmp_path) == "None\n"
    assert run(program, tmp_path, {"PYTHONPATH": "given"}) == "given\n"


PAGE = """[a
b](docs/a.md#b), `x`, [c](#c), [d](https://d/), | ![e](docs/e.jpg) |
```bash
echo [f](g)
```
[h](h.md)
"""


@pytest.mark.parametrize(
    ("repository", "shown"),
    [
        ("", "a\nb, `x`, c, [d](https://d/), | e |\n```bash\necho [f](g)\n```\nh\n"),
        (
            "https://x/y/z",
            (
                "[a\nb](https://x/y/z/blob/HEAD/docs/a.md#b), `x`, [c](https://x/y/z/blob/HEAD/README.md#c), "
                "[d](https://d/), | ![e](https://x/y/z/raw/HEAD/docs/e.jpg) |\n"
                "```bash\necho [f](g)\n```\n[h](https://x/y/z/blob/HEAD/h.md)\n"
            ),
        ),
    ],
)
def test_links_of_the_long_description(hook, tmp_path, repository, shown):
    (tmp_path / "README.md").write_text(PAGE, encoding="utf-8")
    metadata = {}
    hook.ProjectMetadata(str(tmp_path), {"repository": repository}).update(metadata)
    assert metadata["readme"] == {"content-type": "text/markdown", "text": shown}
    assert set(metadata["urls"]) == ({"Source", "Documentation", "Changelog", "Issues"} if repository else set())
    assert all(address.startswith(repository) for address in metadata["urls"].values())


@pytest.mark.parametrize("repository", ["https://x/y/", "http://x/y", "x/y", "https://x"])
def test_an_address_of_another_form_is_refused(hook, tmp_path, repository):
    with pytest.raises(ValueError, match="expected https://HOST/OWNER/NAME"):
        hook.ProjectMetadata(str(tmp_path), {"repository": repository}).update({})


@pytest.mark.parametrize("repository", ["", "https://x/y/z"])
def test_readme_has_no_relative_link_on_an_index(hook, pytestconfig, repository):
    text = (pytestconfig.rootpath / "README.md").read_text(encoding="utf-8")
    shown = hook.long_description(text, repository)
    assert not [link for link in re.findall(r"\]\(([^()\s]+)\)", shown) if not link.startswith("https://")]
    assert not re.search(
        r"<(?:a|img)\b|^\[[^\]]+\]:", shown, re.MULTILINE
    )  # kinds of links that the hook does not know


@pytest.fixture(scope="module")
def hook():
    pytest.importorskip("hatchling", reason="needs hatchling, which only building installs")
    import hatch_build

    return hatch_build
