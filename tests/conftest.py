"""What every test folder shares: the demo model, its two artifacts, its picture, Ctrl-C, and the GPU probe."""

import gc
import os
import shutil
import signal
from functools import cache
from importlib import import_module, metadata
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # read once, when TensorFlow is imported

import numpy as np
import pytest

_PACKAGES = ("tensorflow", "keras", "onnx", "onnxruntime", "onnxruntime-gpu", "openvino", "numpy", "pillow")
_CHECKPOINT = {"name": "demo model"}
# TensorFlow's graphs are many objects that stay: looking through them for garbage less often saves a tenth of the time.
gc.set_threshold(50_000, 20, 20)

# Files that take a minute or so each, the longest first.
_LONGEST = (
    "test_verify.py",
    "test_readme.py",
    "test_cli.py",
    "test_engines.py",
    "test_faults.py",
    "test_browser.py",
    "test_inspect_command.py",
    "test_to_lower_precision.py",
    "test_report.py",
    "test_target.py",
    "test_program.py",
    "test_initialize.py",
    "test_train.py",
    "test_saved_model.py",
    "test_predictor.py",
)
# Of Chromium, without what asks for addresses of its own.
_BROWSER_FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
# A demo artifact exported elsewhere, for an environment without TensorFlow.
_DEMO_ONNX = os.environ.get("MASKRCNN_DEMO_ONNX")


def pytest_report_header():
    """Versions of what the results depend on; nothing is imported for it."""
    found = []
    for name in _PACKAGES:
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            continue
    return "engines: " + ", ".join(found)


def pytest_addoption(parser):
    parser.addoption("--quick", action="store_true", help="only tests that start no TensorFlow")


def pytest_ignore_collect(collection_path, config):
    if config.getoption("--quick") and collection_path.name.startswith("test_"):
        from quick import file_starts_tensorflow

        return file_starts_tensorflow(collection_path) or None
    return None


def pytest_collection_modifyitems(config, items):
    places = {name: place for place, name in enumerate(_LONGEST)}
    items.sort(key=lambda item: places.get(item.path.name, len(places)))  # so that no worker starts one at the end
    if config.getoption("--quick"):
        from quick import is_slow

        config.hook.pytest_deselected(items=[item for item in items if is_slow(item)])
        items[:] = [item for item in items if not is_slow(item)]
    for name, why_not in (("gpu", _why_no_cuda), ("cuda_standin", _why_no_standin)):
        marked = [item for item in items if item.get_closest_marker(name)]
        reason = why_not() if marked else None
        if reason:
            for item in marked:
                item.add_marker(pytest.mark.skip(reason=f"{name}: {reason}"))


@cache
def _why_no_cuda():
    """None where ONNX Runtime really computes on a CUDA device, else what is missing."""
    try:
        import onnxruntime as ort
        from onnx import TensorProto, helper
    except ImportError as error:
        return str(error)
    provider = "CUDAExecutionProvider"
    if provider not in ort.get_available_providers():
        return f"onnxruntime {ort.__version__} is a build without CUDA"
    if hasattr(ort, "preload_dlls"):
        ort.preload_dlls(directory="")
    value, twice = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [3]) for name in ("x", "y"))
    graph = helper.make_graph([helper.make_node("Add", ["x", "x"], ["y"])], "probe", [value], [twice])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    try:
        session = ort.InferenceSession(model.SerializeToString(), providers=[provider])
        (result,) = session.run(None, {"x": np.ones(3, np.float32)})
    except Exception as error:  # noqa: BLE001 - whatever the drivers raise
        return f"CUDA cannot be used: {str(error).splitlines()[0]}"
    if session.get_providers()[0] != provider:
        return f"the CUDA libraries of onnxruntime {ort.__version__} cannot be loaded"
    return None if result.tolist() == [2, 2, 2] else "the CUDA device computes 1 + 1 wrongly"


def _why_no_standin():
    """None where the stand-in for CUDA's libraries can be built and used, else what is missing."""
    from cuda_standin import why_not

    return why_not()


@pytest.fixture
def interruptible():
    """Ctrl-C raises, also where a shell started the tests in the background and had it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def collect():
    """Function that collects the garbage of this test alone: that of a process full of models takes seconds."""
    gc.collect(0)
    gc.freeze()
    yield gc.collect
    gc.unfreeze()


@pytest.fixture(scope="session")
def chromium():
    """Path of Chromium: Debian's package `chromium`, or what MASKRCNN_CHROMIUM names."""
    found = os.environ.get("MASKRCNN_CHROMIUM") or shutil.which("chromium")
    if found is None:
        pytest.skip("no browser: install chromium, or name one in MASKRCNN_CHROMIUM")
    return found


@pytest.fixture(scope="module")
def browser(chromium):
    """Chromium, started."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=chromium, args=_BROWSER_FLAGS)
        yield found
        found.close()


@pytest.fixture
def open_page(browser):
    """Function that opens a page; `complaints` has its console messages, `requests` the addresses that it asks for."""
    opened = []

    def open_page(address, size=(1400, 900), scheme="light"):
        context = browser.new_context(viewport={"width": size[0], "height": size[1]}, color_scheme=scheme)
        opened.append(context)
        page = context.new_page()
        page.complaints, page.requests = [], []
        page.on("console", lambda message: page.complaints.append(message.text))
        page.on("pageerror", lambda error: page.complaints.append(str(error)))
        page.on("dialog", lambda dialog: (page.complaints.append(dialog.message), dialog.dismiss()))
        page.on("request", lambda request: page.requests.append(request.url))
        page.goto(address)
        page.wait_for_load_state()
        return page

    yield open_page
    for context in opened:
        context.close()


@pytest.fixture(scope="session")
def demo():
    """The demo model; its weights are the same in every run."""
    from maskrcnn import demo_model

    return demo_model()


@pytest.fixture(scope="session")
def picture(pytestconfig):
    """The demo picture, uint8 [360, 480, 3]; read-only, because all tests share it."""
    from runtime.pictures.read import read_image

    pixels = read_image(pytestconfig.rootpath / "maskrcnn" / "demo.jpg")
    pixels.flags.writeable = False
    return pixels


@pytest.fixture(scope="session")
def one_picture(picture, tmp_path_factory):
    """Folder with the demo picture alone, which makes a verification short."""
    from PIL import Image

    folder = tmp_path_factory.mktemp("pictures")
    Image.fromarray(picture).save(folder / "picture.png")
    return folder


@pytest.fixture(scope="session")
def artifact_store(pytestconfig):
    """Function from a name and a function that writes it to the path of an artifact; see `store.stored`."""
    from store import stored

    folder = pytestconfig.cache.mkdir("artifacts")
    return lambda name, make: stored(folder, name, make)


@pytest.fixture(scope="session")
def onnx_artifact(request):
    """Path of the demo model as a verified `.onnx` file; copy it before you change it."""
    if _DEMO_ONNX:
        return Path(_DEMO_ONNX)
    return _stored_demo(request, "demo.onnx", "export_onnx")


@pytest.fixture(scope="session")
def savedmodel_artifact(request):
    """Path of the demo model as a verified SavedModel folder; copy it before you change it."""
    if _DEMO_ONNX:
        pytest.skip("needs TensorFlow")
    return _stored_demo(request, "demo", "export_savedmodel")


@pytest.fixture(scope="session")
def cuda_savedmodel_artifact(request):
    """Path of the demo model as a SavedModel for CUDA; copy it before you change it."""
    if _DEMO_ONNX:
        pytest.skip("needs TensorFlow")
    return _stored_demo(request, "demo_cuda", "export_savedmodel", target="cuda")


@pytest.fixture(scope="session")
def constant_artifact(request):
    """Path of the demo model as an `.onnx` file with constant thresholds."""
    return _constant_demo(request, "constant.onnx", "export_onnx")


@pytest.fixture(scope="session")
def constant_savedmodel_artifact(request):
    """The same as a SavedModel folder."""
    return _constant_demo(request, "constant", "export_savedmodel")


def _constant_demo(request, name, export):
    if _DEMO_ONNX:
        pytest.skip("needs TensorFlow")
    from export import Target

    kind = {"target": Target(thresholds="constants")} if export == "export_onnx" else {"thresholds": "constants"}
    return _stored_demo(request, name, export, **kind)


def _stored_demo(request, name, export, **options):
    """Verified on one image, which is enough for an artifact that the tests of the parity check examine."""
    if request.config.getoption("--quick"):
        pytest.skip("starts TensorFlow")

    def make(path):
        demo, pictures = (request.getfixturevalue(each) for each in ("demo", "one_picture"))
        getattr(import_module("export"), export)(demo, path, checkpoint=_CHECKPOINT, verify_images=pictures, **options)

    return request.getfixturevalue("artifact_store")(name, make)
