"""The public names of the three packages: complete, sorted, importable, documented."""

import ast
import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

PACKAGES = ("runtime", "maskrcnn", "export")
NAMES = [(package, name) for package in PACKAGES for name in importlib.import_module(package).__all__]


@pytest.mark.parametrize("package", PACKAGES)
def test_names_are_sorted_and_unique(package):
    names = importlib.import_module(package).__all__
    assert names == sorted(set(names))
    assert not any(name.startswith("_") for name in names)


@pytest.mark.parametrize("package", PACKAGES)
def test_dir_has_public_names_and_their_modules_alone(package):
    """Not what the package imports for itself."""
    found = importlib.import_module(package)
    rest = [name for name in dir(found) if not name.startswith("__") and name not in found.__all__]
    assert "errors" in rest
    assert all(inspect.ismodule(getattr(found, name)) for name in rest)
    assert not {"TYPE_CHECKING", "os", "lazy_names", "one_line"} & set(dir(found))
    assert set(found.__all__) <= set(dir(found))


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


LAZY = sorted(
    ".".join(path.parent.relative_to(ROOT).parts)
    for package in PACKAGES
    for path in (ROOT / package).rglob("__init__.py")
    if "__getattr__" in path.read_text(encoding="utf-8")
)


def test_there_are_lazy_packages():
    assert set(LAZY) >= {*PACKAGES, "maskrcnn.batch"}


@pytest.mark.parametrize("package", LAZY)
def test_names_are_listed_before_they_are_loaded(package):
    """As an interactive shell completes them, in a process that has used none; listing loads nothing."""
    code = f"import sys, {package} as p; before = set(sys.modules); print(*dir(p)); assert set(sys.modules) == before"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    listed = done.stdout.split()
    assert listed == sorted(set(listed))
    assert set(listed) >= {*importlib.import_module(package).__all__, "__all__", "__doc__", "__name__"}


@pytest.mark.parametrize("package", LAZY)
def test_editors_see_the_names(package):
    """They read `if TYPE_CHECKING`, which imports each name as itself, so that it counts as public."""
    tree = ast.parse((ROOT.joinpath(*package.split(".")) / "__init__.py").read_text(encoding="utf-8"))
    (block,) = (node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    imports = [(each.module, alias.name, alias.asname) for each in block.body for alias in each.names]
    assert all(name == public for _, name, public in imports)
    assert sorted(name for _, name, _ in imports) == importlib.import_module(package).__all__
    for module, name, _ in imports:
        assert getattr(importlib.import_module(module), name) is getattr(importlib.import_module(package), name)


@pytest.mark.parametrize("package", LAZY)
def test_a_completer_offers_the_names(package):
    """That of IPython, notebooks and several editors, which reads the source."""
    jedi = pytest.importorskip("jedi")
    project = jedi.Project(ROOT)
    found = {each.name for each in jedi.Script(f"import {package} as p\np.", project=project).complete()}
    assert found >= set(importlib.import_module(package).__all__)


@pytest.mark.parametrize("package", PACKAGES)
def test_star_import_gives_the_public_names(package):
    scope = {}
    exec(f"from {package} import *", scope)
    assert set(importlib.import_module(package).__all__) <= set(scope)


@pytest.mark.parametrize("package", PACKAGES)
def test_package_is_typed(package):
    from importlib import resources

    assert resources.files(package).joinpath("py.typed").is_file()
