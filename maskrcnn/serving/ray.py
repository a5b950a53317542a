"""The server on many machines: the same application as a deployment of Ray Serve.

`serve run maskrcnn.serving.ray:app model=model.onnx replicas=4` starts it; replicas, queues between them, restarts and
graceful ends are Ray's.
"""

import types
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any, get_args, get_type_hints

from starlette.applications import Starlette

from maskrcnn.errors import ArgumentError
from maskrcnn.serving.app import ServeOptions, build_app
from runtime.artifact_files.read import read_metadata, recorded_digest
from runtime.errors import ArtifactError, EngineError, MissingPackageError

try:
    from ray import serve
    from ray.serve import Application
except ModuleNotFoundError as error:
    raise MissingPackageError("ray[serve]", "serve-ray", "serving on Ray") from error


@dataclass(frozen=True, kw_only=True)
class RayOptions(ServeOptions):
    """How an artifact is served on Ray; each replica has the limits of `ServeOptions`.

    Attributes:
        model: An `.onnx` file or SavedModel folder, at the same path on all machines.
        threads: Threads of a replica's engine, and the processors that Ray reserves for it.
        gpus: GPUs of a replica, or a share of one; None: 1 if `device` names one, else 0.
        replicas: Number of replicas, or the fewest with `max_replicas`.
        max_replicas: Most replicas; Ray starts and ends them as requests come. None: always `replicas`.
        max_ongoing_requests: Most requests that a replica has in hand.
        max_queued_requests: Most requests that wait for a replica; further ones are answered with status 503.
    """

    model: str
    threads: int = 1
    gpus: float | None = None
    replicas: int = 1
    max_replicas: int | None = None
    max_ongoing_requests: int = 16
    max_queued_requests: int = 64

    def __post_init__(self) -> None:
        super().__post_init__()
        least = {"gpus": 0, "replicas": 1, "max_replicas": self.replicas}
        for name, low in (least | {"max_ongoing_requests": 1, "max_queued_requests": 1}).items():
            value = getattr(self, name)
            if value is not None and not low <= value < float("inf"):
                raise ArgumentError(f"{name} is {value!r}: expected a number of at least {low}")


@serve.ingress()
class Replica:
    """One process of the deployment."""

    def __init__(self, options: RayOptions, digest: str) -> None:
        if recorded_digest(Path(options.model)) != digest:
            raise ArtifactError(f"{options.model} is another file here than where the deployment was started; copy it")
        self._app = build_app(options.model, options)

    def __serve_build_asgi_app__(self) -> Starlette:
        """Return the application, which Ray calls in this process."""
        return self._app

    def check_health(self) -> None:
        """Let Ray replace a replica with a broken engine.

        Raises:
            EngineError: The engine is broken.
        """
        if self._app.state.service.batcher.broken:
            raise EngineError("the engine is broken: see the log of the replica")


def app(arguments: Mapping[str, Any]) -> Application:
    """Return the deployment; `serve run maskrcnn.serving.ray:app NAME=VALUE ...` calls it.

    Args:
        arguments: Values of `RayOptions` by name, also as text; `model` is required.

    Raises:
        ArgumentError: There is no such option, or its value cannot be used.
        ArtifactError: There is no artifact, or it cannot be used.
    """
    options = read_options(arguments)
    gpus = float(options.device.startswith(("cuda", "tensorrt"))) if options.gpus is None else options.gpus
    fixed = options.max_replicas is None
    limits = {"min_replicas": options.replicas, "max_replicas": options.max_replicas}
    artifact = Path(options.model)
    read_metadata(artifact)
    deployment = serve.deployment(
        Replica,
        name=artifact.stem,
        num_replicas=options.replicas if fixed else None,
        autoscaling_config=None if fixed else limits,
        max_ongoing_requests=options.max_ongoing_requests,
        max_queued_requests=options.max_queued_requests,
        graceful_shutdown_timeout_s=options.timeout + 5,
        ray_actor_options={"num_cpus": options.threads, "num_gpus": gpus},
    )
    return deployment.bind(options, recorded_digest(artifact))


def read_options(arguments: Mapping[str, Any]) -> RayOptions:
    """Return the options that arguments name; text becomes what the option takes.

    Raises:
        ArgumentError: As for `app`.
    """
    kinds = get_type_hints(RayOptions)
    required = {each.name for each in fields(RayOptions) if each.default is MISSING}
    if unknown := sorted(set(arguments) - set(kinds)):
        raise ArgumentError(f"there is no option {unknown[0]!r}; expected one of {', '.join(sorted(kinds))}")
    if missing := sorted(required - set(arguments)):
        raise ArgumentError(f"{missing[0]} is missing: give {missing[0]}=...")
    values = {name: _value(name, given, kinds[name]) for name, given in arguments.items()}
    values["model"] = str(Path(values["model"]).resolve())  # replicas have other working folders
    return RayOptions(**values)


def _value(name: str, given: Any, kind: Any) -> Any:
    plain = next(each for each in (get_args(kind) or (kind,)) if each is not types.NoneType)
    if given is None and plain is not kind:
        return None
    if isinstance(given, str) and plain is not str:
        with suppress(ValueError, KeyError):
            return {"true": True, "false": False}[given.lower()] if plain is bool else plain(given)
    elif type(given) is plain or (plain is float and type(given) is int):
        return plain(given)
    expected = {bool: "true or false", int: "an integer", float: "a number", str: "text"}[plain]
    raise ArgumentError(f"{name} is {given!r}; expected {expected}")
