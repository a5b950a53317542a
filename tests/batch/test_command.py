"""`maskrcnn predict --ray` without a cluster, and with one of its own: what it refuses, and how it ends."""

import errno
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest
from batches.runs import children
from typer.testing import CliRunner

from maskrcnn.batch import BatchOptions, cluster, run
from maskrcnn.batch.cluster import Need, workers_that_fit
from maskrcnn.cli import app
from maskrcnn.errors import ClusterError
from maskrcnn.runs.folder_lock import locked
from runtime.errors import OutputError

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
        (
            ("--ray", "local", "--overlay"),
            "--overlay cannot be used with --ray, which writes rows for images with an artifact: remove one",
        ),
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


@pytest.mark.parametrize(
    ("nodes", "device", "expected"),
    [
        ([{"CPU": 8.0}], "auto", (0, "cpu")),
        ([{"CPU": 8.0, "GPU": 0.0}], "auto", (0, "cpu")),
        ([{"CPU": 8.0, "GPU": 2.0}], "auto", (1, "auto")),
        ([{"CPU": 8.0}, {"CPU": 8.0, "GPU": 1.0}], "auto", (1, "auto")),
        ([{"CPU": 8.0, "GPU": 2.0}], "cpu", (0, "cpu")),
        ([{"CPU": 8.0, "GPU": 2.0}], "openvino", (0, "openvino")),
        ([{"CPU": 8.0, "GPU": 2.0}], "tensorrt", (1, "tensorrt")),
        ([{"CPU": 8.0}], "cuda", (1, "cuda")),
    ],
)
def test_workers_have_a_gpu_of_their_own_or_none(nodes, device, expected):
    need, chosen = cluster.with_gpu(Nodes(*nodes), BatchOptions(device=device).need, device)
    assert (need.gpus, chosen) == expected


def test_too_few_gpus_for_the_device_auto():
    nodes = Nodes({"CPU": 8.0, "GPU": 2.0})
    with pytest.raises(ClusterError, match=r"use at most 2 workers, or --device cpu$"):
        workers_that_fit(nodes, cluster.with_gpu(nodes, Need(1, 0), "auto")[0], 4)


class Busy:
    """A cluster that has a place after some waits."""

    def __init__(self, waits, free):
        self.waits, self.free, self.asked, self.patience = waits, free, None, []

    def remote(self, **options):
        self.asked = options
        return lambda task: SimpleNamespace(remote=lambda: task)

    def wait(self, tasks, timeout):
        self.patience.append(timeout)
        return (tasks if len(self.patience) > self.waits else [], [])

    def available_resources(self):
        return self.free

    def get(self, task):
        return task()


@pytest.mark.parametrize(
    ("free", "used"),
    [
        ({"GPU": 1.0, "memory": 2e9}, "processors"),
        ({"CPU": 4.0, "GPU": 1.0, "memory": 1e8}, "memory"),
        ({"CPU": 4.0, "GPU": 0.5, "memory": 1e8}, "GPUs and memory"),
        ({"CPU": 4.0, "GPU": 4.0, "memory": 1e10}, "processors, GPUs or memory of each machine"),
    ],
)
def test_a_run_that_waits_for_the_cluster_says_for_what(free, used):
    ray, said = Busy(2, free), []
    cluster.wait_for_room(ray, Need(2, 1, 2**30), said.append)
    assert said == [f"waiting for the cluster, which is busy: others use its {used}"] * 2
    assert ray.asked == {"num_cpus": 2, "num_gpus": 1, "memory": 2**30}
    assert ray.patience[0] <= 10
    cluster.wait_for_room(Busy(0, free), Need(2, 1), pytest.fail)


class StoppedError(Exception):
    """Ends a test at the place where a run starts workers."""


@pytest.mark.parametrize("step", ["_predict_blocks", "_start_alone"])
def test_a_run_waits_for_room_for_its_workers_with_their_memory(monkeypatch, step):
    asked = []

    def wait(ray, need, say):
        asked.append((need, say))
        raise StoppedError

    need, folder = Need(1, 0, 2**30), SimpleNamespace(begin=set, add_names=lambda names: None)
    job = run._Job(None, folder, {}, need, 1, {"a.jpg": "a"}, None, print)
    monkeypatch.setattr(run, "wait_for_room", wait)
    monkeypatch.setattr(run, "_predict_blocks", lambda *arguments: pytest.fail("it did not wait"))
    with pytest.raises(StoppedError):
        run._run(job, None) if step == "_predict_blocks" else run._start_alone(job)
    assert asked == [(need, print)]


class TaskError(Exception):
    """As Ray raises for a task that failed elsewhere: the text has the traceback there."""


def words(monkeypatch, cause, where, output="out"):
    monkeypatch.setattr(
        cluster,
        "require_ray",
        lambda: SimpleNamespace(exceptions=SimpleNamespace(RayTaskError=TaskError, RayError=TaskError)),
    )
    error = TaskError(f'Traceback:\n  File "{where}", line 1, in write\n{cause}')
    error.cause = cause
    return cluster.in_our_words(error, output)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES, errno.EDQUOT])
@pytest.mark.parametrize("file", ["ray/data/_internal/datasource/parquet_datasink.py", "ray/data/checkpoint/writer.py"])
def test_errors_of_the_write_step_name_the_output(monkeypatch, number, file):
    found = words(monkeypatch, OSError(number, os.strerror(number)), f"/lib/{file}")
    assert isinstance(found, OutputError)
    assert str(found) == f"cannot write out: {os.strerror(number)}"


@pytest.mark.parametrize(
    "cause",
    [
        FileNotFoundError(errno.ENOENT, "No such file or directory", "/models/mine.onnx"),
        OSError(errno.EMFILE, "Too many open files"),
        ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"),
    ],
)
def test_other_errors_of_the_system_are_named(monkeypatch, cause):
    found = words(monkeypatch, cause, "/lib/maskrcnn/batch/actor.py")
    assert isinstance(found, ClusterError)
    assert "cannot write" not in str(found)
    assert f"{type(cause).__name__}: {cause}" in str(found)


def test_folders_of_killed_processes_are_removed(monkeypatch):
    with tempfile.TemporaryDirectory(prefix="t-", dir="/tmp") as parent:  # a short path
        monkeypatch.setattr(tempfile, "tempdir", parent)
        kept = [Path(parent, name) for name in ("mrcnn-running", "mrcnn-new", "mrcnn-file", "ray-other")]
        for each in (Path(parent, "mrcnn-old"), *kept):
            each.mkdir()
            if each.name != "mrcnn-new":  # not locked yet
                (each / (".lock" if each.name != "mrcnn-file" else "lock")).touch()
        if os.getuid() == 0:
            kept.append(Path(parent, "mrcnn-elses"))
            kept[-1].mkdir()
            (kept[-1] / ".lock").touch()
            os.chown(kept[-1], 12345, -1)
        with locked(kept[0], "batch"), cluster._short_folder() as folder:
            assert sorted(map(str, Path(parent).iterdir())) == sorted([folder, *map(str, kept)])
            with cluster._short_folder() as other:  # of a run at the same time
                assert Path(folder).exists()
                assert other != folder
        assert sorted(Path(parent).iterdir()) == sorted(kept)


def test_only_the_notice_of_ray_is_left_out(capfd):
    with suppress(ZeroDivisionError), cluster._without_notice():
        os.write(2, b"before\n[1 I] logging.cc:303: Set ray log level from environment variable X to 3\nafter\n")
        1 / 0  # noqa: B018
    os.write(2, b"end\n")
    assert capfd.readouterr().err == "before\nafter\nend\n"


@pytest.mark.filterwarnings("ignore:`use_[a-z0-9_]+` is deprecated:DeprecationWarning")  # of Ray, in its own code
@pytest.mark.parametrize(("images", "workers", "size"), [(1, 4, 1), (3, 2, 2), (200, 8, 8)])
def test_a_pool_has_no_more_workers_than_blocks(monkeypatch, images, workers, size):
    import ray.data

    class Rows:
        def map_batches(self, *_arguments, **options):
            sizes.append(options["compute"].min_size)
            return self

        def write_parquet(self, *_arguments, **_options):
            pass

    sizes = []
    monkeypatch.setattr(ray.data, "read_datasource", lambda *arguments, **options: Rows())
    folder = SimpleNamespace(path="/none", system=None, attempt="a")
    run._predict_blocks(run._Job(ray, folder, {}, Need(1, 0), workers, {}, None, print), ["a"] * images)
    assert sizes == [size]


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
