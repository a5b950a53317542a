"""What must not be in the project's files."""

import re
import subprocess

import pytest

LARGEST = 15 * 2**20  # bytes
# Paths that exist on one machine only; assembled from parts, so that this file does not contain one.
_OWN_PATH = re.compile(
    "|".join(rf"(?<![\w.:~/-])/{name}/[\w.]" for name in ("home", "Users", "root", "work", "workspace"))
)
_WINDOWS_PATH = re.compile(r"\b[A-Z]:\\+Users\\+\w")
_REMARK = re.compile(r"\b(?:TO" + r"DO|FIX" + r"ME|X" + r"XX)\b(?!\s*\(#\d+\))")


@pytest.fixture(scope="module")
def files(pytestconfig):
    """Every file that is tracked, or is new and not ignored."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    try:
        done = subprocess.run(command, cwd=pytestconfig.rootpath, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this is not a git checkout")
    found = [pytestconfig.rootpath / name for name in done.stdout.split("\0") if name]
    found = [path for path in found if path.is_file()]
    assert pytestconfig.rootpath / "pyproject.toml" in found
    return found


@pytest.fixture(scope="module")
def texts(files):
    """The lines of every text file, by path."""
    result = {}
    for path in files:
        content = path.read_bytes()
        if b"\0" not in content and "fuzz_corpus" not in path.parts:  # generated, arbitrary bytes
            result[path] = content.decode("utf-8").splitlines()
    return result


def hits(texts, pattern):
    return [
        f"{path}:{number}: {line.strip()[:100]}"
        for path, lines in texts.items()
        for number, line in enumerate(lines, 1)
        if pattern.search(line)
    ]


def test_patterns_find_what_they_are_for():
    home, user = "/ho" + "me/", "/Us" + "ers/"
    for line in (f"open('{home}ann/x')", f"see {user}ann", "cd /wo" + "rk/main", "(/ro" + "ot/.cache)"):
        assert _OWN_PATH.search(line)
    for line in ("https://example.org/ho" + "me/x", "a/ho" + "me/b", "/homes/x", "~/works/x", "/works"):
        assert not _OWN_PATH.search(line)
    assert _WINDOWS_PATH.search("C:\\Us" + "ers\\ann")
    for line in ("# TO" + "DO later", "FIX" + "ME", "TO" + "DO: (#3)"):
        assert _REMARK.search(line)
    for line in ("# TO" + "DO(#12) later", "FIX" + "ME (#3)", "mastodon"):
        assert not _REMARK.search(line)


def test_no_path_of_one_machine(texts):
    assert hits(texts, _OWN_PATH) == []
    assert hits(texts, _WINDOWS_PATH) == []


def test_every_open_remark_has_an_issue(texts):
    assert hits(texts, _REMARK) == []


def test_no_large_file(files):
    assert [f"{path}: {path.stat().st_size} bytes" for path in files if path.stat().st_size > LARGEST] == []


def test_no_merge_marks(texts):
    assert hits(texts, re.compile(r"^(<{7} |>{7} |={7}$)")) == []


def test_test_folders_are_not_packages(pytestconfig):
    # One with the name of our package would hide it.
    tests = pytestconfig.rootpath / "tests"
    assert (tests / "contracts").is_dir()
    assert list(tests.rglob("__init__.py")) == []
    assert not {"runtime", "export", "maskrcnn"} & {path.name for path in tests.rglob("*") if path.is_dir()}


def test_every_module_has_a_docstring(files, pytestconfig):
    import ast

    modules = [path for path in files if path.suffix == ".py"]
    bare = [path for path in modules if not ast.get_docstring(ast.parse(path.read_bytes()))]
    assert bare == []
