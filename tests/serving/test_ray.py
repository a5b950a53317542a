"""The server as a deployment of Ray Serve: what Ray is told, and what a replica does."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import fields
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import yaml

from maskrcnn.errors import ArgumentError
from runtime import Predictor
from runtime.errors import ArtifactError, EngineError, MissingPackageError

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "maskrcnn" / "demo.onnx"
NAME = "maskrcnn.serving.ray"
HAS_RAY_SERVE = all(find_spec(name) for name in ("ray", "fastapi", "grpc_reflection"))


@pytest.fixture
def served(monkeypatch):
    """The module with a stand-in for `ray.serve`, which keeps what it is told."""

    def deployment(replica, **told):
        return SimpleNamespace(bind=lambda *arguments: SimpleNamespace(replica=replica, arguments=arguments, told=told))

    ray = ModuleType("ray")
    ray.serve = ModuleType("ray.serve")
    ray.serve.ingress = lambda: lambda replica: replica
    ray.serve.deployment = deployment
    ray.serve.Application = object
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.setitem(sys.modules, "ray.serve", ray.serve)
    monkeypatch.delitem(sys.modules, NAME, raising=False)
    yield import_module(NAME)
    sys.modules.pop(NAME, None)


def test_what_ray_is_told(served, monkeypatch):
    monkeypatch.chdir(DEMO.parent)
    bound = served.app({"model": "demo.onnx"})
    assert bound.told == {
        "name": "demo",
        "num_replicas": 1,
        "autoscaling_config": None,
        "max_ongoing_requests": 16,
        "max_queued_requests": 64,
        "graceful_shutdown_timeout_s": 35.0,
        "ray_actor_options": {"num_cpus": 1, "num_gpus": 0.0},
    }
    assert bound.arguments[0].model == str(DEMO)  # a replica has another working folder
    assert bound.arguments[0].threads == 1  # not all processors for each of several replicas


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"threads": "4"}, {"ray_actor_options": {"num_cpus": 4, "num_gpus": 0}}),
        ({"device": "cuda"}, {"ray_actor_options": {"num_cpus": 1, "num_gpus": 1}}),
        ({"device": "tensorrt:0"}, {"ray_actor_options": {"num_cpus": 1, "num_gpus": 1}}),
        ({"device": "cuda", "gpus": "0.25"}, {"ray_actor_options": {"num_cpus": 1, "num_gpus": 0.25}}),
        ({"device": "auto", "gpus": 1}, {"ray_actor_options": {"num_cpus": 1, "num_gpus": 1}}),
        ({"replicas": 3}, {"num_replicas": 3, "autoscaling_config": None}),
        (
            {"replicas": "2", "max_replicas": "8"},
            {"num_replicas": None, "autoscaling_config": {"min_replicas": 2, "max_replicas": 8}},
        ),
        (
            {"max_ongoing_requests": "5", "max_queued_requests": 9},
            {"max_ongoing_requests": 5, "max_queued_requests": 9},
        ),
        ({"timeout": "0.5"}, {"graceful_shutdown_timeout_s": 5.5}),
    ],
)
def test_options_reach_ray(served, arguments, told):
    found = served.app({"model": str(DEMO), **arguments}).told
    assert {name: found[name] for name in told} == told


def test_options_reach_the_replica(served):
    options = served.read_options(
        {"model": str(DEMO), "partial": "True", "max_body": "9", "timeout": 7, "batch_size": None, "max_delay": "2.5"}
    )
    assert (options.partial, options.max_body, options.timeout) == (True, 9, 7)
    assert (options.batch_size, options.max_delay) == (None, 2.5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "model is missing"),
        ({"model": DEMO, "thread": 1}, "there is no option 'thread'; expected one of batch_size, device, gpus, "),
        ({"model": 3}, "model is 3; expected text"),
        ({"model": "demo.onnx", "threads": "two"}, "threads is 'two'; expected an integer"),
        ({"model": "demo.onnx", "threads": 1.5}, "threads is 1.5; expected an integer"),
        ({"model": "demo.onnx", "threads": True}, "threads is True; expected an integer"),
        ({"model": "demo.onnx", "threads": "0"}, "threads is 0: expected a number from 1 to 4096"),
        ({"model": "demo.onnx", "threads": "100000"}, "threads is 100000: expected a number from 1 to 4096"),
        ({"model": "demo.onnx", "batch_size": 20_000}, "batch_size is 20000: expected a number from 1 to 64"),
        ({"model": "demo.onnx", "threads": None}, "threads is None; expected an integer"),
        ({"model": "demo.onnx", "timeout": "nan"}, "timeout is nan: expected a number from 0.001 to 86400"),
        ({"model": "demo.onnx", "gpus": "-1"}, "gpus is -1.0: expected a number of at least 0"),
        ({"model": "demo.onnx", "partial": "yes"}, "partial is 'yes'; expected true or false"),
        ({"model": "demo.onnx", "partial": 1}, "partial is 1; expected true or false"),
        (
            {"model": "demo.onnx", "replicas": 4, "max_replicas": 3},
            "max_replicas is 3: expected a number of at least 4",
        ),
        ({"model": "demo.onnx", "max_ongoing_requests": 0}, "max_ongoing_requests is 0: "),
    ],
)
def test_wrong_options_are_named(served, arguments, message):
    with pytest.raises(ArgumentError, match=f"^{message}".replace(".", r"\.").replace("(", r"\(")):
        served.app(arguments)


def test_what_is_no_artifact_is_refused_before_anything_starts(served, tmp_path):
    with pytest.raises(ArtifactError, match=r"gone\.onnx"):
        served.app({"model": str(tmp_path / "gone.onnx")})
    (tmp_path / "text.onnx").write_text("no artifact")
    with pytest.raises(ArtifactError, match=r"text\.onnx"):
        served.app({"model": str(tmp_path / "text.onnx")})


def test_a_replica_has_the_same_file_or_refuses(served, tmp_path, monkeypatch):
    copy = str(shutil.copy(DEMO, tmp_path / "model.onnx"))
    options, digest = served.app({"model": copy}).arguments
    replica = served.Replica(options, digest)
    assert replica.__serve_build_asgi_app__().state.service.name == "model"
    replica.check_health()
    replica.__serve_build_asgi_app__().state.service.batcher.broken = True
    with pytest.raises(EngineError, match="broken"):
        replica.check_health()
    replica.__serve_build_asgi_app__().state.service.predictor.close()
    monkeypatch.setattr(served, "build_app", lambda *_: pytest.fail("the engine is started"))
    with pytest.raises(ArtifactError, match=r"model\.onnx is another file here"):
        served.Replica(options, "0" * 64)


def test_without_ray_serve_its_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray.serve", None)
    monkeypatch.setitem(sys.modules, "ray", ModuleType("ray"))
    monkeypatch.delitem(sys.modules, NAME, raising=False)
    with pytest.raises((MissingPackageError, ImportError)) as found:
        import_module(NAME)
    assert isinstance(found.value, MissingPackageError)
    assert "pip install 'maskrcnn-export[serve-ray]'" in str(found.value)


def test_the_page_about_deployment_has_the_options(served):
    page = (ROOT / "docs" / "deployment.md").read_text(encoding="utf-8")
    table = page[page.index("| `model` | | the artifact") : page.index("Paths, tensors and the page")]
    rows = [line.split(" | ")[:2] for line in table.splitlines() if line]
    named = {name for first, _ in rows for name in re.findall(r"`(\w+)`", first)}
    assert named == {each.name for each in fields(served.RayOptions)}
    (application,) = yaml.safe_load(re.search(r"```yaml\n(.*?)```", page, re.DOTALL)[1])["applications"]
    assert application["import_path"] == f"{NAME}:app"
    assert served.read_options(application["args"]).max_replicas == 16
    command = re.search(rf"serve run {NAME}:app (.*)", page)[1]
    assert served.read_options(dict(word.split("=") for word in command.split())).threads == 2


def ask(port, content, path="/predict"):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", content, timeout=60) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()
    except OSError:
        return 0, b""


@pytest.mark.slow
@pytest.mark.skipif(not HAS_RAY_SERVE, reason="needs ray[serve]: pip install 'maskrcnn-export[serve-ray]'")
def test_serve_run_answers_as_the_predictor_does(tmp_path, picture):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (tmp_path / "serve.yaml").write_text(
        json.dumps(
            {
                "http_options": {"host": "127.0.0.1", "port": port},
                "applications": [
                    {
                        "name": "shapes",
                        "route_prefix": "/shapes",
                        "import_path": f"{NAME}:app",
                        "args": {"model": str(DEMO), "replicas": 2, "threads": 1},
                    }
                ],
            }
        )
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "RAY_USAGE_STATS_ENABLED": "0"}
    command = [sys.executable, "-m", "ray.serve.scripts", "run", "serve.yaml", "--address", "local"]
    with (tmp_path / "log").open("wb") as log:
        running = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=log, stderr=log)
    try:
        content = (ROOT / "maskrcnn" / "demo.jpg").read_bytes()
        until = time.monotonic() + 120
        while ask(port, None, "/shapes/v2/health/ready")[0] != 200 and time.monotonic() < until:
            assert running.poll() is None, (tmp_path / "log").read_text()
            time.sleep(0.5)
        with Predictor(DEMO, device="cpu") as predictor:
            expected = json.loads(predictor(content).to_json())
        for _ in range(20):
            status, text = ask(port, content, "/shapes/predict")
            assert (status, json.loads(text)) == (200, expected)
        assert ask(port, b"text", "/shapes/predict")[0] == 400
        assert b"<title>Mask R-CNN</title>" in ask(port, None, "/shapes/")[1]
    finally:
        running.send_signal(signal.SIGTERM)
        running.wait(60)
