"""The public names of the three packages: complete, sorted, importable, documented."""

import importlib
import inspect

import pytest

PACKAGES = ("runtime", "maskrcnn", "export")
NAMES = [(package, name) for package in PACKAGES for name in importlib.import_module(package).__all__]


@pytest.mark.parametrize("package", PACKAGES)
def test_names_are_sorted_and_unique(package):
    names = importlib.import_module(package).__all__
    assert names == sorted(set(names))
    assert not any(name.startswith("_") for name in names)


@pytest.mark.parametrize(("package", "name"), NAMES)
def test_name_is_there_and_documented(package, name):
    found = getattr(importlib.import_module(package), name)
    documentation = (vars(found) if inspect.isclass(found) else {"__doc__": found.__doc__}).get("__doc__")
    assert documentation
    first_line = documentation.strip().splitlines()[0]
    # The text that `dataclass` makes up is the signature.
    assert not first_line.startswith(f"{name}(")
    assert first_line.endswith(".")


@pytest.mark.parametrize(("package", "name"), NAMES)
def test_public_methods_are_documented(package, name):
    found = getattr(importlib.import_module(package), name)
    if not inspect.isclass(found):
        found = type(None)
    own = [
        n for n, member in vars(found).items() if not n.startswith("_") and (callable(member) or is_property(member))
    ]
    undocumented = [n for n in own if not inspect.getdoc(getattr(found, n))]
    assert undocumented == []


def is_property(member):
    return isinstance(member, property | classmethod | staticmethod)


@pytest.mark.parametrize("package", PACKAGES)
def test_every_error_class_is_public(package):
    errors = importlib.import_module(f"{package}.errors")
    classes = {
        name
        for name, member in vars(errors).items()
        if inspect.isclass(member) and member.__module__ == errors.__name__
    }
    assert classes
    assert classes <= set(importlib.import_module(package).__all__)


@pytest.mark.parametrize("package", PACKAGES)
def test_errors_are_raised_nowhere_but_in_their_module(package):
    for name in importlib.import_module(package).__all__:
        found = getattr(importlib.import_module(package), name)
        if inspect.isclass(found) and issubclass(found, Exception):
            assert found.__module__ == f"{package}.errors"


@pytest.mark.parametrize("package", PACKAGES)
def test_unknown_name_is_an_attribute_error(package):
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = importlib.import_module(package).no_such_name
    with pytest.raises(ImportError):
        exec(f"from {package} import no_such_name", {})


@pytest.mark.parametrize("package", PACKAGES)
def test_star_import_gives_the_public_names(package):
    scope = {}
    exec(f"from {package} import *", scope)
    assert set(importlib.import_module(package).__all__) <= set(scope)


@pytest.mark.parametrize("package", PACKAGES)
def test_package_is_typed(package):
    from importlib import resources

    assert resources.files(package).joinpath("py.typed").is_file()
