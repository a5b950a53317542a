"""`maskrcnn predict --ray` without a cluster, and with one of its own: what it refuses, and how it ends."""

import os
import signal
import subprocess
import sys
import time

import pytest
from batches.runs import children
from typer.testing import CliRunner

from maskrcnn.batch.cluster import Need, workers_that_fit
from maskrcnn.cli import app
from maskrcnn.errors import ClusterError

USAGE, MISSING, UNUSABLE, PICTURE = 2, 3, 4, 5


def failed(code, *arguments):
    """Return the error message of a command that must fail with this exit code: one line, no traceback."""
    result = CliRunner().invoke(app, ["predict", *map(str, arguments)])
    assert isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code == code, result.output
    (line,) = (line for line in result.stderr.splitlines() if not line.startswith("... "))
    return line


@pytest.fixture
def quick(photos, tmp_path, monkeypatch):
    """Fails if Ray is started or asked."""
    monkeypatch.setitem(sys.modules, "ray", None)
    return ("demo", photos / "part0", "-o", tmp_path / "out")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--ray", "local", "--overlay"), "--overlay cannot be used with --ray"),
        (("--ray", "local", "--splash"), "--splash cannot be used with --ray"),
        (("--ray", "local", "--every", "2"), "--every cannot be used with --ray"),
        (("--ray", "local", "--format", "coco"), "--format coco cannot be used with --ray"),
        (("--ray", "local", "--config", "coco"), "--config cannot be used with --ray"),
        (("--workers", "2"), "--workers cannot be used without --ray"),
        (("--threads", "2"), "--threads cannot be used without --ray"),
        (("--ray", "local", "--device", "cuda:1"), "Ray gives each worker its GPU, so expected 'cuda'"),
    ],
)
def test_options_that_contradict(quick, options, said):
    assert said in failed(USAGE, *quick, *options)


def test_what_is_refused_before_ray_starts(quick, photos, tmp_path):
    ray = ("--ray", "local", "-o", tmp_path / "out")
    one = photos / "part0" / "000.jpg"
    assert "is named twice" in failed(USAGE, "demo", one, one, *ray)
    (tmp_path / "a.mp4").write_bytes(b"")
    assert "leave out --ray for videos" in failed(USAGE, "demo", tmp_path / "a.mp4", *ray)
    assert "does not exist" in failed(PICTURE, "demo", tmp_path / "nothing", *ray)
    assert "there is no artifact at" in failed(UNUSABLE, tmp_path / "no.onnx", one, *ray)
    (tmp_path / "broken.onnx").write_bytes(b"broken")
    assert "broken.onnx" in failed(UNUSABLE, tmp_path / "broken.onnx", one, *ray)
    assert "a checkpoint cannot be used with --ray" in failed(USAGE, tmp_path / "a.weights.h5", one, *ray)
    assert "maskrcnn-export[batch]" in failed(MISSING, *quick, "--ray", "local")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("address", ["elsewhere", "ray://head:10001", "head:port", ":6379", "http://head:80"])
def test_addresses_that_are_none(photos, tmp_path, address):
    message = failed(USAGE, "demo", photos, "-o", tmp_path / "out", "--ray", address)
    assert "expected auto, local, or HOST:PORT" in message


def test_a_cluster_that_is_not_there(photos, tmp_path):
    begin = time.monotonic()
    message = failed(MISSING, "demo", photos, "-o", tmp_path / "out", "--ray", "127.0.0.1:9")
    assert "there is no Ray cluster at 127.0.0.1:9 that can be used (" in message
    assert time.monotonic() - begin < 30  # of which most is the import of Ray


@pytest.mark.parametrize("options", [("--threads", 4096), ("--workers", 4096)])
def test_a_machine_that_is_too_small(photos, tmp_path, options):
    begin = time.monotonic()
    message = failed(MISSING, "demo", photos, "-o", tmp_path / "out", "--ray", "local", *options)
    assert "the cluster is too small: " in message
    assert time.monotonic() - begin < 10
    assert children() == {}


def test_importing_the_package_loads_no_ray():
    code = "import sys\nfrom maskrcnn.batch import PredictActor, predict_dataset\nassert 'ray' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


class Nodes:
    def __init__(self, *nodes):
        self._nodes = nodes

    def nodes(self):
        return [{"Alive": True, "Resources": node} for node in self._nodes] + [{"Alive": False, "Resources": {}}]


@pytest.mark.parametrize(
    ("nodes", "need", "most"),
    [
        ([{"CPU": 2.0}], Need(1, 0), 1),
        ([{"CPU": 40.0}], Need(1, 0), 36),
        ([{"CPU": 40.0}, {"CPU": 40.0}], Need(8, 0), 9),  # of 80, 8 are left over
        ([{"CPU": 7.0}, {"CPU": 7.0}], Need(4, 0), 2),  # one on each, since a worker is on one machine
        ([{"CPU": 16.0, "GPU": 2.0}, {"CPU": 16.0}], Need(1, 1), 2),
        ([{"CPU": 16.0, "memory": 3e9}, {"CPU": 16.0, "memory": 1e9}], Need(1, 0, 2**30), 2),
    ],
)
def test_the_number_of_workers(nodes, need, most):
    ray = Nodes(*nodes)
    assert workers_that_fit(ray, need, None) == workers_that_fit(ray, need, most) == most
    assert workers_that_fit(ray, need, 1) == 1
    with pytest.raises(ClusterError, match=f"use at most {most} workers"):
        workers_that_fit(ray, need, most + 1)


@pytest.mark.parametrize("node", [{"CPU": 1.0}, {"CPU": 64.0}, {"CPU": 64.0, "GPU": 1.0, "memory": 1e6}, {}])
def test_no_room_for_one_worker(node):
    with pytest.raises(
        ClusterError, match=r"the cluster is too small: .*; it has .* on 1 machines: use fewer --threads"
    ):
        workers_that_fit(Nodes(node), Need(1, 1, 2**30), None)


def test_a_signal_ends_a_cluster_of_its_own(photos, tmp_path, pytestconfig):
    """A cluster that the command starts ends with it, and the same command resumes."""
    output = tmp_path / "out"
    environment = os.environ | {"PYTHONPATH": str(pytestconfig.rootpath)}
    command = [sys.executable, "-m", "maskrcnn", "predict", "demo", str(photos), "-o", str(output), "--ray", "local"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as run:
        limit = time.monotonic() + 100
        while not list(output.glob("*.parquet")):
            assert run.poll() is None, run.communicate()
            assert time.monotonic() < limit
            time.sleep(0.05)
        assert children() != {}
        run.send_signal(signal.SIGTERM)
        printed, errors = run.communicate(timeout=60)
    assert run.returncode == 128 + signal.SIGTERM, errors
    assert printed == ""
    assert "interrupted: run the same command again to resume" in errors
    assert "Traceback" not in errors
    assert not (output / "_SUCCESS").exists()
    for _ in range(100):
        if not children():
            break
        time.sleep(0.1)
    assert children() == {}
