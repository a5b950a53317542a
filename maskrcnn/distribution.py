"""The distribution that the three packages come in: its version, and the extras that bring optional packages."""

from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from platform import python_version

from runtime.errors import MissingPackageError

NAME = "maskrcnn-export"
_ENGINES = ("onnxruntime", "onnxruntime-gpu", "tensorflow", "tensorflow-cpu", "keras", "openvino")

_INSPECT = ("inspect", "all")
_TRAIN = ("train", *_INSPECT)
_EXPORT = ("export", "train", "all")
_TENSORFLOW = ("tf", "export", *_TRAIN)
_COMMAND_LINE = ("predict", "export", *_TRAIN)
_SERVER = ("serve", "serve-ray", "all")
# Import name of each optional package, with the extras that bring it, the smallest first; `inspect` after `train`.
EXTRAS = {
    "av": ("video", "all"),
    "filelock": _COMMAND_LINE,
    "h5py": _TENSORFLOW,
    "jinja2": _INSPECT,
    "keras": _TENSORFLOW,
    "matplotlib": _INSPECT,
    "onnx": _EXPORT,
    "onnxruntime": ("onnx", "predict", *_EXPORT),
    "openvino": ("openvino", "all"),
    "packaging": _COMMAND_LINE,
    "pandas": ("pandas", "all"),
    "pooch": _TENSORFLOW,
    "prometheus_client": _SERVER,
    "pyarrow": ("batch",),
    "pycocotools": _TRAIN,
    "pydantic": ("batch",),
    "ray": ("batch", "serve-ray"),
    "rich": _COMMAND_LINE,
    "safetensors": _TENSORFLOW,
    "starlette": _SERVER,
    "supervision": ("supervision", "all"),
    "tensorboard": _TRAIN,
    "tensorflow": _TENSORFLOW,
    "tf2onnx": _EXPORT,
    "trackers": ("track", "all"),
    "typer": _COMMAND_LINE,
    "uvicorn": _SERVER,
    "yaml": _TENSORFLOW,
}
# Every command of `maskrcnn`, with the extra that brings what it needs. `maskrcnn-export` leaves out the word `export`.
COMMANDS = {
    "data check": "train",
    "data split": "train",
    "data convert": "train",
    "data shapes": "train",
    "train": "train",
    "evaluate": "train",
    "inspect": "inspect",
    "predict": "predict",
    "results": "batch",
    "serve": "serve",
    "export onnx": "export",
    "export savedmodel": "export",
    "export triton": "export",
    "export tfserving": "export",
    "verify": "export",
    "show": "predict",
    "edit": "predict",
    "benchmark": "predict",
    "weights list": "train",
    "weights fetch": "train",
    "weights convert": "train",
    "config from": "train",
    "doctor": "predict",
    "demo": "export",
}


def command_extra(program: str, words: Sequence[str]) -> str:
    """Return the extra of the command that the arguments of a program begin with; if they name none, the usual one."""
    words, usual = ["".join(words[:1]), " ".join(words[:2])], "train"
    if program == NAME:
        words, usual = [words[0].replace("inspect", "show"), f"export {words[0]}"], "export"
    groups = {command.partition(" ")[0]: extra for command, extra in COMMANDS.items()}
    known = groups | COMMANDS
    return next((known[word] for word in words if word in known), usual)


def own_version() -> str:
    """Return the installed version; "unknown" in a checkout that is not installed."""
    return _version(NAME) or "unknown"


def engine_versions() -> str:
    """Return the versions of Python and of the installed engines, without importing one."""
    found = [(name, _version(name)) for name in _ENGINES]
    return ", ".join([f"Python {python_version()}", *(f"{name} {number}" for name, number in found if number)])


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def missing_package(error: Exception, extra: str, purpose: str) -> MissingPackageError | None:
    """Return the error for an optional package that is not installed; None for any other error.

    It names the extra of the command if that brings the package, else the smallest one that does, or the one that a
    `MissingPackageError` names.

    A module that no extra brings, or that is missing inside an installed package, is a bug and keeps its traceback.

    Args:
        error: Any error.
        extra: Extra of the command.
        purpose: What needs the package, for the message of an import that failed.
    """
    if isinstance(error, MissingPackageError):
        own = extra in EXTRAS.get(error.package, ())
        return MissingPackageError(error.package, extra, error.purpose) if own else error
    if not isinstance(error, ModuleNotFoundError) or error.name not in EXTRAS:
        return None
    brings = EXTRAS[error.name]
    return MissingPackageError(error.name, extra if extra in brings else brings[0], purpose)
