"""`make quick`: the tests that start no TensorFlow, found by what their files import.

A test file counts as slow if it imports TensorFlow, Keras, or a module of ours that does, also inside functions. A test
counts as slow if it uses a fixture of a `conftest.py` that does, or that uses such a fixture.
"""

import ast
from functools import cache
from pathlib import Path

import grimp

HELPERS = (Path(__file__).parent, Path(__file__).parents[1] / "fuzz")
_ENGINES = ("tensorflow", "keras")


@cache
def _bound():
    """Modules that import TensorFlow, directly or not."""
    graph = grimp.build_graph(
        "maskrcnn", "export", "runtime", include_external_packages=True, exclude_type_checking_imports=True
    )
    graph.remove_module("runtime.engines.saved_model")  # opened only for SavedModels
    found = {"maskrcnn", "export"}  # their public names are loaded when they are used
    for engine in _ENGINES:
        found |= {engine, *graph.find_downstream_modules(engine)}
    return found - {"maskrcnn.errors", "export.errors"}


def _imports(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _starts_tensorflow(tree):
    for name in _imports(tree):
        first = name.split(".")[0]
        helpers = [path for folder in HELPERS if (path := folder / f"{first}.py").exists()]
        if name in _bound() or first in _ENGINES or any(map(file_starts_tensorflow, helpers)):
            return True
    return False


@cache
def file_starts_tensorflow(path):
    """Whether a test file or a helper of the tests imports TensorFlow, directly or not."""
    return _starts_tensorflow(ast.parse(path.read_text(encoding="utf-8")))


@cache
def _slow_fixtures(conftest):
    tree = ast.parse(conftest.read_text(encoding="utf-8"))
    return {
        node.name
        for node in tree.body
        if isinstance(node, ast.FunctionDef) and (_starts_tensorflow(node) or node.name.endswith("_artifact"))
    }


def is_slow(item):
    """Whether a test needs a fixture that starts TensorFlow; fixtures that it needs indirectly count too."""
    root = item.config.rootpath
    conftests = [folder / "conftest.py" for folder in item.path.parents if folder.is_relative_to(root / "tests")]
    return any(set(item.fixturenames) & _slow_fixtures(path) for path in conftests if path.exists())
