"""What the pages name is there: modules, names, settings, commands, options, files, links and headings."""

import ast
import importlib
import inspect
import json
import re
from dataclasses import fields
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pytest
import typer

import export
import maskrcnn
import runtime
from export.cli import app as export_app
from maskrcnn.cli import app as training_app
from maskrcnn.configuration.dataclass_json import to_dict
from maskrcnn.configuration.model import DetectionConfig, ModelConfig, ProposalConfig
from maskrcnn.configuration.training import AugmentationConfig, TrainingConfig
from maskrcnn.training.options import TrainOptions
from maskrcnn.training.plan import _SETTABLE
from runtime.artifact import Metadata

ROOT = Path(__file__).parents[2]
PAGES = {
    path.relative_to(ROOT).as_posix(): path
    for path in (
        *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")),
        *sorted((ROOT / "docs").glob("*.md")),
        ROOT / "benchmarks" / "README.md",
        ROOT / "tests" / "golden" / "README.md",
    )
}
PROGRAMS = {"maskrcnn-export": typer.main.get_command(export_app), "maskrcnn": typer.main.get_command(training_app)}
PUBLIC = {name: package for package in (runtime, maskrcnn, export) for name in package.__all__}
_OTHERS = ("albumentations",)  # of examples, and no dependency
INSTANCES = {"predictor": "Predictor", "detections": "Detections"}  # as examples call them

_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)
_SPAN = re.compile(r"`([^`]+)`")
_PACKAGES = "runtime|maskrcnn|export|benchmarks|tools"
_DOTTED = re.compile(rf"(?<![\w./-])(?:{_PACKAGES})(?:\.[A-Za-z_]\w*)+(?![\w/-])")
_FILE = re.compile(rf"(?<![\w./-])(?:{_PACKAGES}|tests|docs|\.ci)/[\w./-]*")
_MEMBER = re.compile(r"(?<![\w./])([A-Za-z]\w*)\.([A-Za-z_]\w*)")
_SUFFIXES = ("onnx", "weights", "h5", "json", "jsonl", "py", "md")  # what follows a dot in the name of a file
_COMMAND = re.compile(r"^(?:\.venv/bin/)?(maskrcnn(?:-export)?) (.+)$", re.MULTILINE)


def problems(text, page=ROOT / "page.md"):
    """One line for each thing that a page names and that is not there."""
    prose, blocks = _BLOCK.sub("", text), _BLOCK.findall(text)
    spans = [span.replace("\n", " ") for span in _SPAN.findall(prose)]
    shell = [code.replace("\\\n", " ") for kind, code in blocks if kind in ("bash", "console")]
    checks = (
        *(wrong_import(node) for kind, code in blocks if kind == "python" for node in ast.walk(ast.parse(code))),
        *(wrong_name(name) for span in spans for name in _DOTTED.findall(span)),
        *(wrong_file(path) for words in (*spans, *shell) for path in _FILE.findall(words)),
        *(wrong_target(target) for words in (*spans, *shell) for target in re.findall(r"\bmake ([a-z-]+)", words)),
        *(wrong_command(*command) for words in (*spans, *shell) for command in _COMMAND.findall(words)),
        *(wrong_option(span.split()[0]) for span in spans if span.startswith("--")),
        *(wrong_call(span) for span in spans),
        *(wrong_error(span) for span in spans),
        *wrong_members(spans),
        *wrong_lists(prose),
        *(wrong_link(target, page) for target in re.findall(r"\]\(([^)\s]+)\)", prose)),
    )
    return [check for check in checks if check]


def wrong_import(node):
    """Of a node of Python code that is an import."""
    if isinstance(node, ast.Import):
        return next(filter(None, (wrong_name(alias.name) for alias in node.names if alias.name not in _OTHERS)), None)
    if isinstance(node, ast.ImportFrom):
        return next(filter(None, (wrong_name(f"{node.module}.{alias.name}") for alias in node.names)), None)
    return None


def wrong_name(dotted):
    """Of the dotted name of a module, or of something in one."""
    try:
        find(dotted)
    except (ImportError, AttributeError) as error:
        return f"{dotted}: {error}"
    return None


def find(dotted):
    """Import the longest part that is a module, and take the rest from it."""
    parts = dotted.split(".")
    count = 1
    while count < len(parts) and find_spec(".".join(parts[:count])).submodule_search_locations:
        if find_spec(".".join(parts[: count + 1])) is None:
            break
        count += 1
    found = importlib.import_module(".".join(parts[:count]))
    for part in parts[count:]:
        found = member(found, part)
    return found


def member(owner, name):
    """An attribute, or the field of a dataclass."""
    if name in getattr(owner, "__dataclass_fields__", ()):
        return owner.__dataclass_fields__[name]
    return getattr(owner, name)


def wrong_file(path):
    if re.search(r"[A-Z]{3}", path.replace("README", "")):  # a placeholder, such as TARGET
        return None
    return None if (ROOT / path.rstrip(".")).exists() else f"there is no file {path}"


def wrong_target(name):
    found = re.search(rf"^{re.escape(name)}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    return None if found else f"the Makefile has no target {name}"


def wrong_command(program, arguments):
    """Of a command line: its command, and each option."""
    command, words = PROGRAMS[program], arguments.split(" #")[0].split()
    while hasattr(command, "commands") and words and not words[0].startswith("-"):
        name = words.pop(0)
        if name not in command.commands:
            return f"{program} has no command {name}"
        command = command.commands[name]
    known = {"--help"} | {option for parameter in command.params for option in parameter.opts}
    unknown = [word for word in words if re.match(r"--?[a-z]", word) and word.split("=")[0] not in known]
    return f"{program} {command.name} has no {', '.join(unknown)}" if unknown else None


def wrong_option(option):
    """Of an option without its command."""
    return None if option in {*options(PROGRAMS.values()), *script_options()} else f"no command has {option}"


@cache
def script_options():
    """Of the scripts in `benchmarks`."""
    texts = [path.read_text(encoding="utf-8") for path in (ROOT / "benchmarks").glob("*.py")]
    return {option for text in texts for option in re.findall(r'add_argument\("(--[\w-]+)"', text)}


def options(commands):
    for command in commands:
        yield from (option for parameter in command.params for option in parameter.opts)
        yield from options(getattr(command, "commands", {}).values())


def wrong_call(span):
    """Of a call of something public: the names of its arguments."""
    try:
        call = ast.parse(span, mode="eval").body
    except SyntaxError:
        return None
    if not isinstance(call, ast.Call):
        return None
    name = ast.unparse(call.func).rpartition(".")[2]
    if name not in PUBLIC:
        return None
    known = inspect.signature(getattr(PUBLIC[name], name)).parameters
    unknown = [keyword.arg for keyword in call.keywords if keyword.arg not in known]
    return f"{name} has no argument {', '.join(unknown)}" if unknown else None


def wrong_error(span):
    name = span.split("(")[0]
    return f"there is no public {name}" if re.fullmatch(r"[A-Z]\w*Error", name) and name not in PUBLIC else None


def wrong_members(spans):
    """Of names after a dot: settings and what public classes have; `.name` belongs to the owner before it."""
    last = None
    for span in spans:
        names = _MEMBER.findall(span)
        shorthand = re.fullmatch(r"\.([a-z_]\w*)(?:\(\))?", span)
        if shorthand and last:
            names = [(last, shorthand[1])]
        for owner, name in names:
            found = owner_of(owner)
            if found is None or name in _SUFFIXES:
                continue
            last = owner
            try:
                member(found, name)
            except AttributeError:
                yield f"{owner} has no {name}"


def owner_of(name):
    """A section of the configuration, or a public class; None for any other name."""
    name = INSTANCES.get(name, name)
    if name == "run":
        return TrainOptions
    if name in maskrcnn.Config.__dataclass_fields__ and name != "name":
        return type(getattr(maskrcnn.Config(), name))
    found = getattr(PUBLIC[name], name) if name in PUBLIC else None
    return found if inspect.isclass(found) else None


def wrong_lists(prose):
    """Of tables whose first column is a module: what the second column names."""
    for table in re.findall(r"^\| module \|.*\n\|[-| ]+\|\n((?:\|.*\n?)+)", prose, re.MULTILINE):
        for row in table.splitlines():
            module, *names = _SPAN.findall(row)
            yield from (wrong_name(f"{module}.{name}") for name in names)


def wrong_link(target, page):
    """Of a link: its file, and the heading that it leads to."""
    if re.match(r"https?://", target):
        return None
    path, _, heading = target.partition("#")
    found = page.parent / path if path else page
    if not found.exists():
        return f"the link {target} leads nowhere"
    if heading and heading not in headings(found):
        return f"the link {target} leads to no heading"
    return None


def headings(path):
    """The names that GitHub gives to the headings of a page."""
    lines = re.findall(r"^#+ (.+)$", _BLOCK.sub("", path.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", line.lower()).replace(" ", "-") for line in lines}


@pytest.mark.parametrize("name", PAGES)
def test_what_a_page_names_is_there(name):
    assert problems(PAGES[name].read_text(encoding="utf-8"), PAGES[name]) == []


def sentences(path):
    """The texts of a module; values in them are X."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield "".join(part.value if isinstance(part, ast.Constant) else "X" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def test_every_command_that_a_message_suggests_is_there():
    files = [path for package in ("runtime", "maskrcnn", "export") for path in (ROOT / package).rglob("*.py")]
    quoted = re.compile(r"'(maskrcnn(?:-export)?) ([^']+)'")
    found = {command for path in files for text in sentences(path) for command in quoted.findall(text)}
    assert len(found) > 10
    assert [wrong for command in found if (wrong := wrong_command(*command))] == []


@pytest.mark.parametrize(
    "wrong",
    [
        "```python\nfrom runtime import Predictors\n```\n",
        "```python\nfrom maskrcnn.evaluation.metric import recall\n```\n",
        "```python\nimport runtime.picture\n```\n",
        "`maskrcnn.evaluation.match_detections`",
        "`export.export_tflite(model)`",
        "`python -m benchmarks.reports`",
        "`runtime/engines/tvm.py`",
        "`python tests/support/fuzzer.py picture`",
        "```console\npytest benchmarks/test_none.py\n```\n",
        "`make everything`",
        "`maskrcnn-export tflite demo`",
        "`maskrcnn data check mine.json --colour`",
        "```bash\n.venv/bin/maskrcnn train mine.json \\\n    --turbo -o runs\n```\n",
        "`--turbo`",
        "`EngineOptions(caches=None)`",
        "`EngineTooHotError`",
        "`Predictor.predict_later`",
        "`detections.rle`",
        "`training.optimiser`",
        "`training.optimizer`, `.schedules`",
        "| module | functions |\n|---|---|\n| `maskrcnn.evaluation.metrics` | `recall`, `precision` |\n",
        "[gone](docs/gone.md)",
        "[no heading](README.md#nowhere)",
    ],
)
def test_a_wrong_name_is_found(wrong):
    assert len(problems(wrong)) == 1


def test_right_names_and_those_of_others_are_no_problem():
    page = (
        "```python\nimport numpy as np\nfrom runtime import Predictor\n```\n"
        "`maskrcnn.evaluation.metrics.recall`, `runtime/masks/`, `tests/fuzz_corpus/TARGET`, `make demo`\n"
        "`maskrcnn train ... --val mine/val.json`, `--overlay`, `EngineOptions(cache=...)`, `OutOfMemoryError`\n"
        "`Detections.device`, `detections.rles`, `.to_coco()`, `training.optimizer`, `.schedule`, `.h5`, `run.json`\n"
        "`cv2.VideoCapture.read(buffer)`, `ModelProto`, `model.onnx`, `best.weights.h5`\n"
        "| module | functions |\n|---|---|\n| `maskrcnn.evaluation.metrics` | `recall` |\n"
        "[conventions](docs/conventions.md#words), [elsewhere](https://example.org/x)\n"
    )
    assert problems(page) == []


def test_the_index_leads_to_every_page():
    linked = set(re.findall(r"\]\(([\w-]+\.md)", PAGES["docs/index.md"].read_text(encoding="utf-8")))
    assert linked == {path.name for path in (ROOT / "docs").glob("*.md")} - {"index.md"}


@pytest.mark.parametrize(("name", "described"), [("artifact", Metadata), ("runtime", runtime.EngineOptions)])
def test_every_field_is_described(name, described):
    cells = re.findall(r"^\| ([^|]+) \|", PAGES[f"docs/{name}.md"].read_text(encoding="utf-8"), re.MULTILINE)
    rows = {span for cell in cells for span in _SPAN.findall(cell)}
    assert {field.name for field in fields(described)} <= rows


_SECTIONS = {
    "model": ModelConfig(),
    "proposals": ProposalConfig(),
    "detection": DetectionConfig(),
    "resize": maskrcnn.Config().resize,
    "training": TrainingConfig(),
    "training.augmentation": AugmentationConfig(),
    "run": TrainOptions(),
}


@pytest.mark.parametrize("section", _SECTIONS)
def test_every_setting_has_its_default(section):
    """Each row names settings and, in the same order, their defaults as JSON."""
    settings = _SECTIONS[section]
    page = PAGES["docs/configuration.md"].read_text(encoding="utf-8")
    (table,) = re.findall(rf"^### {re.escape(section)}\n(.*?)(?=^##)", page, re.MULTILINE | re.DOTALL)
    shown = {}
    for names, defaults in re.findall(r"^\| (`[^|]+) \| ([^|]+) \|", table, re.MULTILINE):
        keys, values = _SPAN.findall(names), [json.loads(text) for text in _SPAN.findall(defaults)]
        shown |= dict(zip(keys, values * len(keys) if len(values) == 1 else values, strict=True)) if values else {}
    defaults = to_dict(settings) if section != "run" else {name: getattr(settings, name) for name in _SETTABLE}
    assert shown == {name: value for name, value in defaults.items() if name != "augmentation"}
