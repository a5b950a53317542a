"""The error classes of each package: a tree that its module's docstring draws exactly."""

import builtins
import importlib
import inspect
import pickle
import re

import pytest

from runtime.errors import ToolkitError

PACKAGES = ("runtime", "maskrcnn", "export")
_LINE = re.compile(r"^ {4}(?P<rails>[│├└─ ]*)(?P<name>[A-Z]\w+)(?: \((?P<builtin>\w+)\))?(?:  .*)?$")


def drawn(package):
    """Class name to (parent's name, built-in's name), as the docstring draws the tree."""
    tree, path = {}, []
    for line in importlib.import_module(f"{package}.errors").__doc__.splitlines():
        match = _LINE.match(line)
        if match:
            depth = len(match["rails"]) // 4
            path[depth:] = [match["name"]]
            tree[match["name"]] = (path[depth - 1] if depth else None, match["builtin"])
    return tree


def classes(package):
    errors = importlib.import_module(f"{package}.errors")
    return {
        name: member
        for name, member in vars(errors).items()
        if inspect.isclass(member) and member.__module__ == errors.__name__
    }


ALL = [(package, name) for package in PACKAGES for name in classes(package)]


@pytest.mark.parametrize("package", PACKAGES)
def test_docstring_lists_every_class_in_their_order(package):
    tree = drawn(package)
    assert list(tree) == list(classes(package))
    assert sum(parent is None for parent, _ in tree.values()) == 1


@pytest.mark.parametrize(("package", "name"), ALL)
def test_class_has_the_bases_that_are_drawn(package, name):
    found = classes(package)[name]
    parent, builtin = drawn(package)[name]
    top = Exception if package == "runtime" else ToolkitError
    expected = [classes(package)[parent] if parent else top]
    if builtin:
        expected.append(getattr(builtins, builtin))
    assert list(found.__bases__) == expected


@pytest.mark.parametrize(("package", "name"), ALL)
def test_class_is_documented_and_an_ordinary_exception(package, name):
    found = classes(package)[name]
    assert vars(found).get("__doc__")
    assert issubclass(found, Exception)
    assert name.endswith("Error")


@pytest.mark.parametrize("package", PACKAGES)
def test_one_base_catches_them_all(package):
    (root,) = (name for name, (parent, _) in drawn(package).items() if parent is None)
    assert all(issubclass(found, classes(package)[root]) for found in classes(package).values())


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_share_the_root_alone(package):
    others = [c for other in PACKAGES if other != package for c in classes(other).values() if c is not ToolkitError]
    assert not any(issubclass(found, tuple(others)) for found in classes(package).values())


PLAIN = [(package, name) for package, name in ALL if "__init__" not in vars(classes(package)[name])]


@pytest.mark.parametrize(("package", "name"), PLAIN)
def test_message_is_what_was_given(package, name):
    assert str(classes(package)[name]("one line")) == "one line"


@pytest.mark.parametrize(("package", "name"), PLAIN)
def test_error_survives_the_way_between_processes(package, name):
    copy = pickle.loads(pickle.dumps(classes(package)[name]("one line")))
    assert type(copy) is classes(package)[name]
    assert str(copy) == "one line"


def test_missing_package_names_it_its_extra_and_the_command():
    error = classes("runtime")["MissingPackageError"]("onnxruntime", "onnx", "running a model")
    assert (error.package, error.extra) == ("onnxruntime", "onnx")
    message = str(error)
    assert message.startswith("running a model needs")
    assert "pip install 'maskrcnn-export[onnx]'" in message
    assert "\n" not in message
    copy = pickle.loads(pickle.dumps(error))
    assert (copy.package, copy.extra, copy.purpose, str(copy)) == ("onnxruntime", "onnx", "running a model", message)


@pytest.mark.parametrize(("package", "name"), [case for case in ALL if case[0] != "export"])
def test_a_message_is_one_printable_line_whatever_a_file_says(package, name):
    found = classes(package)[name]
    if "__init__" in vars(found) and found.__base__ is not Exception:
        pytest.skip("it makes its message itself")
    assert str(found("a\x1b[2J of\nb\u202e")) == r"a\x1b[2J of b\u202e"
    assert str(found("two  spaces of a path stay")) == "two  spaces of a path stay"


@pytest.mark.parametrize(("package", "name"), ALL)
def test_every_error_is_caught_by_the_root(package, name):
    assert issubclass(classes(package)[name], ToolkitError)
