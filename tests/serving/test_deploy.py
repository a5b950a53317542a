"""The Dockerfile and the Kubernetes manifest, read where no container engine runs, and what would break them."""

import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import typer
import yaml
from packaging.specifiers import SpecifierSet

from maskrcnn.cli import app
from maskrcnn.serving.app import ServeOptions

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs" / "deploy"
DOCKERFILE = (FOLDER / "Dockerfile").read_text(encoding="utf-8")
MANIFEST = (FOLDER / "kubernetes.yaml").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
OPTIONS = {
    option
    for parameter in typer.main.get_command(app).commands["serve"].params
    for option in parameter.opts
    if option.startswith("--")
}
FINAL = ("cpu", "cuda")
LIMITS = ("max_waiting", "max_body", "max_pixels")
BYTES_PER_PIXEL = 20  # while a WebP file is decoded
HEALTH = {"/v2/health/live", "/v2/health/ready"}
BUILD_TOOLS = re.compile(
    r"\b(?:apt|apt-get|apk|dnf|gcc|g\+\+|make|cmake|build-essential|curl|wget|git|pip3? install)\b"
)
SECRET = re.compile(r"(?i)password|secret|token|credential|api_?key")


def stages(text):
    """Stages by name, in order: their base, and their instructions as (word, arguments)."""
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    found = {}
    for line in re.sub(r"\\\n", " ", "\n".join(lines)).splitlines():
        word, arguments = line.strip().split(maxsplit=1)
        if word == "FROM":
            base, _, name = arguments.partition(" AS ")
            found[name] = (base, [])
        else:
            found[list(found)[-1]][1].append((word, arguments))
    return found


def inherited(found, name):
    """The instructions of a stage, after those of the stages that it is built on."""
    base, own = found[name]
    return [*(inherited(found, base) if base in found else []), *own]


def last(instructions, word):
    return next((arguments for each, arguments in reversed(instructions) if each == word), "")


def dockerfile_problems(text):
    found = stages(text)
    problems = [f"{name}: {each}" for name in found for each in stage_problems(found, name)]
    problems += [f"{name}: {each}" for name in FINAL for each in final_problems(inherited(found, name), name)]
    return problems + ["cpu is not what is built without a target"] * (list(found)[-1] != "cpu")


def stage_problems(found, name):
    base, instructions = found[name]
    version = re.fullmatch(r"python:(\d+\.\d+)(?:\.\d+)?-slim-\w+", base)
    supported = SpecifierSet(PROJECT["project"]["requires-python"])
    if base not in found and (not version or version[1] not in supported):
        yield f"the base {base} is not pinned to a Python that is supported"
    for word, arguments in instructions:
        if SECRET.search(arguments):
            yield f"{word} may hold a secret"
        if word == "ADD":
            yield "ADD takes what COPY does not"
        if extras := re.search(r"pip .*install .*\.\[([\w,-]+)\]", arguments):
            if "--no-cache-dir" not in arguments:
                yield "pip keeps its cache"
            if set(extras[1].split(",")) - set(PROJECT["project"]["optional-dependencies"]):
                yield "there is no such extra"


def final_problems(instructions, name):
    words = [word for word, _ in instructions]
    entry, command = (last(instructions, word) for word in ("ENTRYPOINT", "CMD"))
    line = [*json.loads(entry), *json.loads(command)] if entry.startswith("[") and command.startswith("[") else []
    checks = {
        "the user is root, or has no number": not re.fullmatch(r"[1-9]\d{3,}:[1-9]\d{3,}", last(instructions, "USER")),
        "something runs after USER": "USER" in words and "RUN" in words[words.index("USER") :],
        "tools to build are in the final stage": any(
            BUILD_TOOLS.search(each) for word, each in instructions if word == "RUN"
        ),
        "an installer is in the final stage": not all(
            re.search(rf"RUN .*{each}", "\n".join(map(" ".join, instructions)))
            for each in ("pip uninstall --yes pip ", r"rm -r \S*/ensurepip ")
        ),
        "more than the environment is copied": [each for word, each in instructions if word == "COPY"]
        != [f"--from=build-{name} /opt/maskrcnn /opt/maskrcnn"],
        "the health check asks no path of the server": not any(
            path in last(instructions, "HEALTHCHECK") for path in HEALTH
        ),
        "a shell would not pass SIGTERM on": not line,
        "this is no command line of maskrcnn serve": line[:2] != ["maskrcnn", "serve"]
        or bool({each for each in line if each.startswith("--")} - OPTIONS),
        "another port is exposed than used": last(instructions, "EXPOSE") not in line,
    }
    return [problem for problem, wrong in checks.items() if wrong]


def manifest_problems(text):
    documents = {each["kind"]: each["spec"] for each in yaml.safe_load_all(text)}
    deployment, service = documents["Deployment"], documents["Service"]
    pod, labels = deployment["template"]["spec"], deployment["template"]["metadata"]["labels"]
    (container,) = pod["containers"]
    user, rights = pod["securityContext"], container["securityContext"]
    ports = {each["name"]: each["containerPort"] for each in container["ports"]}
    model, *arguments = container["args"]
    given = dict(each.split("=") for each in arguments)
    most = [int(given.get(f"--{name.replace('_', '-')}", getattr(ServeOptions(), name))) for name in LIMITS]
    wait = int(container["lifecycle"]["preStop"]["exec"]["command"][1])
    resources = container["resources"]
    mounts = {each["mountPath"]: each for each in container["volumeMounts"]}
    mount = mounts.get(str(Path(model).parent), {})
    probes = {name: container[f"{name}Probe"]["httpGet"] for name in ("startup", "readiness", "liveness")}
    selectors = (
        deployment["selector"]["matchLabels"],
        service["selector"],
        documents["PodDisruptionBudget"]["selector"]["matchLabels"],
    )
    image = stages(DOCKERFILE)["base"][1]
    checks = {
        "it may run as root": not user["runAsNonRoot"] or user["runAsUser"] == 0,
        "the user is not that of the image": last(image, "USER") != f"{user['runAsUser']}:{user['runAsGroup']}",
        "system calls are not limited": user["seccompProfile"] != {"type": "RuntimeDefault"},
        "the root file system can be written": not rights["readOnlyRootFilesystem"],
        "it keeps rights": rights["allowPrivilegeEscalation"] or rights["capabilities"] != {"drop": ["ALL"]},
        "it has an account of the cluster": pod["automountServiceAccountToken"],
        "the image has no version": not re.search(r":\d+\.\d+\.\d+", container["image"]),
        "a probe asks what the server does not answer": {each["path"] for each in probes.values()} != HEALTH
        or probes["liveness"]["path"] != "/v2/health/live"
        or any(each["port"] not in ports for each in probes.values()),
        "the port is not that of the image": str(ports["http"]) != last(image, "EXPOSE"),
        "there is no such option": bool(set(given) - OPTIONS),
        "requests in hand are cut off": pod["terminationGracePeriodSeconds"] < wait + float(given["--timeout"]) + 5,
        "threads and processors differ": resources["requests"]["cpu"] != given.get("--threads"),
        "memory has no bound": "memory" not in resources["requests"] or "memory" not in resources["limits"],
        "requests may take more than half of the memory": 2 * most[0] * most[1] + 2 * most[2] * BYTES_PER_PIXEL
        > int(resources["limits"].get("memory", "0Gi").removesuffix("Gi")) * 2**29,
        "the model is not in a volume that is only read": not mount.get("readOnly")
        or mount["name"] not in {each["name"] for each in pod["volumes"]},
        "a selector finds no pod": any(not selector.items() <= labels.items() for selector in selectors),
        "the service leads to no port": any(each["targetPort"] not in ports for each in service["ports"]),
        "it may hold a secret": bool(SECRET.search(text.replace("automountServiceAccountToken", ""))),
    }
    return [problem for problem, wrong in checks.items() if wrong]


def test_both_are_sound():
    assert dockerfile_problems(DOCKERFILE) == []
    assert manifest_problems(MANIFEST) == []


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("python:3.13-slim-bookworm AS base", "python:latest AS base", "is not pinned"),
        ("python:3.13-slim-bookworm AS base", "python AS base", "is not pinned"),
        ("python:3.13-slim-bookworm AS base", "python:3.9-slim-bookworm AS base", "is not pinned"),
        ("USER 10001:10001\n", "", "the user is root"),
        ("USER 10001:10001", "USER maskrcnn", "or has no number"),
        ("USER 10001:10001", "USER 0:0", "the user is root"),
        ("RUN python -m pip uninstall --yes pip", "RUN apt-get update", "tools to build"),
        ("RUN python -m pip uninstall --yes pip", "RUN true", "an installer"),
        ("    && rm -r /usr/local/lib/python3.*/ensurepip \\\n", "", "an installer"),
        ("WORKDIR /models", "RUN pip install --no-cache-dir '.[serve]'", "tools to build"),
        ("EXPOSE 8000", "RUN true", "after USER"),
        ("EXPOSE 8000", "EXPOSE 80", "another port"),
        (" --no-cache-dir", "", "keeps its cache"),
        ("predict-gpu,serve", "predict-gpu,server", "no such extra"),
        ("COPY --from=build-cuda /opt/maskrcnn", "COPY --from=build-cuda /opt", "more than the environment"),
        ("COPY --from=build-cuda /opt/maskrcnn", "COPY --from=build-cpu /opt/maskrcnn", "more than the environment"),
        ("v2/health/ready", "healthz", "asks no path"),
        (
            'ENTRYPOINT ["maskrcnn", "serve", "--host", "0.0.0.0", "--port", "8000"]',
            "ENTRYPOINT maskrcnn serve",
            "SIGTERM",
        ),
        ('"--host"', '"--hosts"', "no command line"),
        ("    PYTHONUNBUFFERED=1", "    API_KEY=1", "a secret"),
        ("COPY runtime runtime", "ADD runtime runtime", "ADD takes"),
        ("FROM base AS cpu\n", "FROM base AS cpu\nRUN true\nFROM base AS other\n", "without a target"),
    ],
)
def test_what_would_break_the_dockerfile_is_noticed(old, new, problem):
    assert old in DOCKERFILE
    assert any(problem in each for each in dockerfile_problems(DOCKERFILE.replace(old, new)))


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("runAsNonRoot: true", "runAsNonRoot: false", "as root"),
        ("runAsUser: 10001", "runAsUser: 0", "as root"),
        ("runAsUser: 10001", "runAsUser: 10002", "not that of the image"),
        ("type: RuntimeDefault", "type: Unconfined", "system calls are"),
        ("readOnlyRootFilesystem: true", "readOnlyRootFilesystem: false", "can be written"),
        ("allowPrivilegeEscalation: false", "allowPrivilegeEscalation: true", "keeps rights"),
        ('drop: ["ALL"]', 'drop: ["NET_RAW"]', "keeps rights"),
        ("automountServiceAccountToken: false", "automountServiceAccountToken: true", "an account"),
        (":0.1.0-cpu", ":latest", "no version"),
        (":0.1.0-cpu", "", "no version"),
        ("path: /v2/health/live", "path: /v2/health/ready", "does not answer"),
        ("port: http\n            periodSeconds: 2", "port: web\n            periodSeconds: 2", "does not answer"),
        ("containerPort: 8000", "containerPort: 80", "the port is not"),
        ("terminationGracePeriodSeconds: 45", "terminationGracePeriodSeconds: 30", "cut off"),
        ("--threads=2", "--thread=2", "no such option"),
        ("--threads=2", "--threads=4", "differ"),
        ("--timeout=30", "--timeout=60", "cut off"),
        ("            - --max-waiting=12\n", "", "of the memory"),
        ("            - --max-pixels=16000000\n", "", "of the memory"),
        ("--max-body=10000000", "--max-body=20000000", "of the memory"),
        ("memory: 2Gi", "memory: 1Gi", "of the memory"),
        ("              memory: 2Gi", "              cpu: 2", "no bound"),
        ("mountPath: /models", "mountPath: /model", "only read"),
        ("              readOnly: true", "              readOnly: false", "only read"),
        ("targetPort: http", "targetPort: web", "no port"),
        ("  selector:\n    app.kubernetes.io/name: maskrcnn-serve", "  selector:\n    app: maskrcnn", "finds no pod"),
        ("enableServiceLinks: false", "enableServiceLinks: false # password: x", "a secret"),
    ],
)
def test_what_would_break_the_manifest_is_noticed(old, new, problem):
    assert old in MANIFEST
    assert any(problem in each for each in manifest_problems(MANIFEST.replace(old, new)))


def test_what_is_copied_is_what_the_build_needs():
    copied = {
        name for word, arguments in stages(DOCKERFILE)["source"][1] if word == "COPY" for name in arguments.split()[:-1]
    }
    wheel = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    assert "custom" in PROJECT["tool"]["hatch"]["metadata"]["hooks"]  # hatch_build.py, which reads README.md
    read = {"pyproject.toml", "hatch_build.py", "README.md"}
    assert copied == {*read, *PROJECT["project"]["license-files"], *wheel}
    assert all((ROOT / name).exists() for name in copied)
    ignored = (FOLDER / "Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    assert {line[1:] for line in ignored if line.startswith("!")} == copied


def test_the_health_check_and_the_probes_ask_what_the_server_answers(server):
    (_, command) = last(stages(DOCKERFILE)["base"][1], "HEALTHCHECK").split("CMD ", 1)
    python, *arguments = json.loads(command)
    assert python == "python"
    for port, code in ((server.port, 0), (1, 1)):
        here = [each.replace("127.0.0.1:8000", f"127.0.0.1:{port}") for each in arguments]
        assert subprocess.run([sys.executable, *here], capture_output=True, check=False).returncode == code
    for path in HEALTH:
        assert server.ask(path)[0] == 200


def test_hadolint_finds_nothing():
    hadolint = shutil.which("hadolint", path=Path(sys.executable).parent)
    if hadolint is None:
        pytest.skip("hadolint is not installed: pip install --group dev")
    done = subprocess.run([hadolint, FOLDER / "Dockerfile"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_manifest_follows_kubernetes_schemas():
    validate = pytest.importorskip("kubernetes_validate", reason="needs kubernetes-validate: pip install --group dev")
    documents = list(yaml.safe_load_all(MANIFEST))
    for document in documents:
        for version in ("1.31", "1.37"):
            validate.validate(document, version, strict=True)
    documents[0]["spec"]["template"]["spec"]["terminationGraceSeconds"] = 3
    with pytest.raises(validate.ValidationError, match="terminationGraceSeconds"):
        validate.validate(documents[0], "1.31", strict=True)
