"""Images for batches, and a cluster of this machine that a file of tests shares."""

import os
import secrets
import subprocess
import sys
import tempfile
import time

import pytest
from batches.runs import children, write_pictures


@pytest.fixture(scope="session")
def photos(tmp_path_factory):
    """A folder of 20 images and 4 files that are none."""
    return write_pictures(tmp_path_factory.mktemp("photos"), 20)


# Ray leaves its processes to the garbage collector, which warns of them; so another process starts them.
_HEAD = """
import sys, ray
ray.init(address="local", num_cpus=4, include_dashboard=False, log_to_driver=False, logging_level=50,
         _temp_dir=sys.argv[1])
print("address", ray.get_runtime_context().gcs_address, flush=True)
sys.stdin.read()
ray.shutdown()
"""


@pytest.fixture(scope="module")
def folder():
    """A folder with a short path: those of sockets in it may have 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True) as path:
        yield path


@pytest.fixture(scope="module")
def cluster(pytestconfig, folder):
    """A cluster of 4 logical processors, which this process is connected to; its address."""
    root = pytestconfig.rootpath
    paths = [str(root), str(root / "tests" / "support"), os.environ.get("PYTHONPATH", "")]
    changed = {"PYTHONPATH": os.pathsep.join(filter(None, paths)), "RAY_USAGE_STATS_ENABLED": "0"}
    changed |= {"MASKRCNN_PIDS": f"{folder}/pids", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
    changed |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(16)}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    command = [sys.executable, "-c", _HEAD, folder]
    with (
        pytest.MonkeyPatch.context() as patch,
        subprocess.Popen(command, text=True, env=os.environ | changed, **pipes) as head,
    ):
        for name, value in changed.items():
            patch.setenv(name, value)
        ray = pytest.importorskip("ray", reason="needs Ray, extra [batch]")
        # Another test may have imported Ray, which reads these when it is imported.
        from ray._raylet import AuthenticationTokenLoader, Config

        Config.initialize("")
        AuthenticationTokenLoader.instance().reset_cache()
        address = next(line.split()[1] for line in head.stdout if line.startswith("address "))
        ray.init(address=address, log_to_driver=False, logging_level=50)
        yield address
        ray.shutdown()
        head.communicate()
    for _ in range(100):
        if not children():
            break
        time.sleep(0.1)
    assert children() == {}
