"""The commands and the Python of docs/serving.md, as they are there but for the port."""

import re
import shlex
import shutil
import subprocess

import pytest

from .conftest import DEMO, ROOT

PAGE = (ROOT / "docs" / "serving.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(bash|python)\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
START, CURL = (shlex.split(code) for kind, code in BLOCKS if kind == "bash")
CLIENT, APP = (code for kind, code in BLOCKS if kind == "python")


@pytest.fixture(scope="module")
def site(serve, images, tmp_path_factory):
    """A folder with the files of the page, and the port of the server that it starts there."""
    folder = tmp_path_factory.mktemp("site")
    shutil.copy(DEMO, folder / "mine.onnx")
    (folder / "photo.jpg").write_bytes(images[0])
    assert START == ["maskrcnn", "serve", "mine.onnx", "--port", "8000"]
    return folder, str(serve(model=folder / START[2]).port)


@pytest.fixture
def port(site, monkeypatch):
    monkeypatch.chdir(site[0])
    return site[1]


def test_the_curl_line(port, found):
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    command = [word.replace("8000", port) for word in CURL]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == found[0].filter(0.8).to_json()


def test_the_python_client(port, found, capsys):
    lines = [line for line in CLIENT.splitlines() if line]
    assert len(lines) == 6
    world = {}
    exec(compile(CLIENT.replace("8000", port), "serving.md", "exec"), world)
    assert world["found"].as_numpy("names").tolist() == [name.encode() for name in found[0].names]
    assert "square" in capsys.readouterr().out


def test_the_application(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copy(DEMO, "mine.onnx")
    world = {}
    exec(compile(APP, "serving.md", "exec"), world)
    service = world["app"].state.service
    assert (service.name, service.options.max_waiting) == ("mine", 16)
    service.predictor.close()


def test_the_tables_have_what_the_server_has(application):
    async def test(client):
        model = (await client.ask("/v2/models/demo")).json
        reply = await client.ask("/metrics")
        return model, reply.body.decode()

    model, metrics = application(test, partial=True)
    for key in ("inputs", "outputs"):
        for tensor in model[key]:
            assert f"| `{tensor['name']}` | {tensor['datatype']} [" in PAGE
    for name in re.findall(r"^# TYPE (\w+)", metrics, re.MULTILINE):
        assert f"`{name}`" in PAGE or name.endswith("_created")
