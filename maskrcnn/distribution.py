"""The distribution that the three packages come in: its version, and the extras that bring optional packages."""

from importlib.metadata import PackageNotFoundError, version

from runtime.errors import MissingPackageError

NAME = "maskrcnn-export"

_TENSORFLOW = ("tf", "train", "export", "inspect")
_COMMAND_LINE = ("predict", "train", "export", "inspect")
_SERVER = ("serve", "serve-ray")
# Import name of each optional package, with the extras that bring it, the smallest first.
EXTRAS = {
    "av": ("video",),
    "filelock": _COMMAND_LINE,
    "h5py": _TENSORFLOW,
    "jinja2": ("inspect",),
    "keras": _TENSORFLOW,
    "matplotlib": ("inspect",),
    "onnx": ("export",),
    "onnxruntime": ("onnx", "predict", "export"),
    "openvino": ("openvino",),
    "packaging": _COMMAND_LINE,
    "prometheus_client": _SERVER,
    "pyarrow": ("batch",),
    "pycocotools": ("train", "inspect"),
    "pydantic": ("batch",),
    "ray": ("batch", "serve-ray"),
    "rich": _COMMAND_LINE,
    "safetensors": _TENSORFLOW,
    "starlette": _SERVER,
    "supervision": ("supervision",),
    "tensorboard": ("train", "inspect"),
    "tensorflow": _TENSORFLOW,
    "tf2onnx": ("export",),
    "typer": _COMMAND_LINE,
    "uvicorn": _SERVER,
    "yaml": _TENSORFLOW,
}


def own_version() -> str:
    """Return the installed version; "unknown" in a checkout that is not installed."""
    try:
        return version(NAME)
    except PackageNotFoundError:
        return "unknown"


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
