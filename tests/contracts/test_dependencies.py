"""The dependencies of the package: bounds, floors above known vulnerabilities, audit, bill of materials."""

import json
import re
import sys
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from export.doctor.environment import read_environment
from export.doctor.packages import package_findings
from tools import audit, sbom
from tools.installed import PYPROJECT, closure, floor, requirements

# The first releases without the vulnerabilities named; a floor must never be lower.
FIRST_SAFE = {
    "filelock": "3.20.3",  # CVE-2025-68146, CVE-2026-22701
    "keras": "3.14",  # CVE-2026-1669, CVE-2026-0897, CVE-2025-9906, CVE-2025-9905, CVE-2025-1550 and later ones
    "onnx": "1.21",  # CVE-2026-27489, CVE-2026-34446, CVE-2026-34447
    "pillow": "12.3",  # eight advisories of 2026, some of them in decoders that are used here
}


@pytest.mark.parametrize("text", requirements())
def test_every_requirement_is_bounded_on_both_sides(text):
    operators = {one.operator for one in Requirement(text).specifier}
    assert "~=" in operators or {">=", "<"} <= operators


EXTRAS = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]["optional-dependencies"]


def brought(extra):
    """The names of the packages that an extra brings."""
    for requirement in map(Requirement, EXTRAS[extra]):
        if requirement.name == "maskrcnn-export":
            yield from (name for other in requirement.extras for name in brought(other))
        else:
            yield requirement.name


@pytest.mark.parametrize("extra", EXTRAS)
def test_no_extra_brings_two_wheels_of_one_engine(extra):
    assert len({name for name in brought(extra) if name.startswith("onnxruntime")}) <= 1


def test_what_extras_bring():
    whole = set(brought("all"))
    for extra in set(EXTRAS) - {"batch", "serve-ray", "tensorrt", "all"}:
        assert "gpu" in extra or set(brought(extra)) <= whole, extra
    assert set(brought("export")) < set(brought("train")) < whole
    gpu = {"onnxruntime-gpu"} | set(brought("train")) - {"onnxruntime"}
    assert set(brought("export-gpu")) == gpu
    assert set(brought("train-gpu")) == gpu - {"tf2onnx", "onnx"}
    for extra in ("tf-gpu", "inspect"):  # which go with any of the extras that bring ONNX Runtime
        assert not [name for name in brought(extra) if name.startswith("onnxruntime")]


def test_the_installation_page_names_every_extra_and_no_other():
    text = (PYPROJECT.parent / "docs" / "installation.md").read_text(encoding="utf-8")
    section = text.partition("## What it needs")[2]
    cells = [cell for row in section.splitlines() if row.startswith("| ") for cell in row.split(" | ")[1:]]
    named = {name for cell in cells for span in re.findall(r"`([a-z][\w,-]*)`", cell) for name in span.split(",")}
    assert set(EXTRAS) == named


def test_a_package_has_one_range_in_extras_and_dependency_groups():
    groups = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["dependency-groups"]
    listed = [Requirement(text) for group in groups.values() for text in group if isinstance(text, str)]
    ranges: dict[str, set[str]] = {}
    for requirement in map(Requirement, requirements()):
        ranges.setdefault(requirement.name, set()).add(str(requirement.specifier))
    shared = {requirement.name: str(requirement.specifier) for requirement in listed if requirement.name in ranges}
    assert {"onnx", "h5py", "pycocotools", "supervision"} <= set(shared)
    assert not {name: found for name, found in shared.items() if found not in ranges[name]}


@pytest.mark.parametrize(("package", "safe"), FIRST_SAFE.items())
def test_floors_are_above_known_vulnerabilities(package, safe):
    asked = [Requirement(text) for text in requirements() if Requirement(text).name == package]
    assert asked
    assert all(floor(requirement) >= Version(safe) for requirement in asked)


def test_nothing_installed_is_below_its_floor():
    """This can be checked without a service; the audit knows more."""
    asked = tuple(requirements())
    found = replace(read_environment(), requirements=asked)  # those in the file now, not those at installation
    checked = {canonicalize_name(Requirement(text).name) for text in asked} & set(found.packages)
    assert len(checked) > 10
    below = [each for each in package_findings(found) if each.state == "problem"]
    assert below == []
    for package, version in {"keras": "3.13.2", "pillow": "12.2.0"}.items():
        old = replace(found, packages=found.packages | {package: version})
        assert [each.subject for each in package_findings(old) if each.state == "problem"] == [package]


# The closure


@pytest.fixture
def site(tmp_path, monkeypatch):
    """Function that writes the metadata of an installed package."""
    monkeypatch.syspath_prepend(tmp_path)

    def install(name, version, *needs):
        folder = tmp_path / f"{name}-{version}.dist-info"
        folder.mkdir()
        lines = [f"Requires-Dist: {need}" for need in needs]
        (folder / "METADATA").write_text(
            "\n".join(["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}", *lines])
        )

    return install


def test_closure(site):
    site("zz_a", "1.0", "zz-b[more]>=1", "zz-never; python_version < '3'", "zz-extra; extra == 'x'")
    site("ZZ.B", "2.0", "zz-a", "zz-c; extra == 'more'", "zz-d; extra == 'less'")
    site("zz_c", "3.0", "zz-not-here")
    for name in ("zz_never", "zz_extra", "zz_d"):
        site(name, "9.0")
    assert closure(["zz-a", "zz-lost>=1"]) == ({"zz-a": "1.0", "zz-b": "2.0", "zz-c": "3.0"}, ["zz-lost"])
    assert list(closure(["zz-a[x]"])[0]) == ["zz-a", "zz-b", "zz-c", "zz-extra"]


def test_the_closure_of_the_package_has_engines_and_no_tools():
    packages, _ = closure(requirements())
    assert {"numpy", "pillow", "tensorflow", "keras", "onnxruntime", "protobuf"} <= set(packages)
    assert not {"pytest", "ruff", "mypy", "pip-audit", "maskrcnn-export"} & set(packages)


# The audit


GOOD = {"name": "a", "version": "1", "vulns": []}
SKIPPED = {"name": "a", "skip_reason": "Dependency not found on PyPI and could not be audited: a (1)"}
BAD = {"name": "a", "version": "1", "vulns": [{"id": "X-1", "aliases": ["Y-1"], "fix_versions": ["2"]}]}


@pytest.mark.parametrize(
    ("answers", "code", "said"),
    [
        ({"pypi": ([GOOD], "")}, 0, "0 known vulnerabilities in 1 packages, by pypi"),
        ({"pypi": ([BAD], "")}, 1, "a 1: X-1, Y-1; fixed in 2\n1 known"),
        ({"pypi": ([SKIPPED], ""), "osv": ([GOOD], "")}, 0, "by osv"),
        ({"pypi": ([], "no route"), "osv": ([BAD], "")}, 1, "by osv"),
        ({"pypi": ([SKIPPED], ""), "osv": ([], "no route")}, 2, ""),
        ({"pypi": ([], ""), "osv": ([], "")}, 2, ""),
    ],
)
def test_audit(monkeypatch, capsys, answers, code, said):
    monkeypatch.setattr(audit, "closure", lambda _: ({"a": "1"}, ["b"]))
    monkeypatch.setattr(audit, "ask", lambda service, _: answers[service])
    assert audit.main() == code
    out, err = capsys.readouterr()
    assert said in out
    assert "not audited: b" in err
    assert ("NOTHING was audited" in err) == (code == 2)
    assert "pypi: answers for 0 of 1 packages" in err or answers["pypi"][0] != [SKIPPED]


@pytest.mark.parametrize(
    ("program", "expected"),
    [
        ('print(\'{"dependencies": [{"name": "a"}]}\')', ([{"name": "a"}], "")),
        ("import sys; sys.exit('first\\nno route')", ([], "no route")),
        ("print('[]')", ([], "pip-audit printed nothing")),
        ("import time; time.sleep(60)", ([], "no answer within 1 s")),
    ],
)
def test_what_pip_audit_says(tmp_path, monkeypatch, program, expected):
    (tmp_path / "pip_audit.py").write_text(program)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(audit, "_SECONDS", 1)
    assert audit.ask("osv", {"a": "1"}) == expected


# The bill of materials


def test_bill(tmp_path, monkeypatch, capsys):
    """The bill of this environment, with made-up digests, has every package and no other."""
    packages, _ = closure(requirements())
    monkeypatch.setattr(sbom, "_hashes", lambda _: {"numpy": "ab" * 32})
    assert sbom.main(tmp_path / "bill.json") == 0
    bill = json.loads((tmp_path / "bill.json").read_text(encoding="utf-8"))
    assert bill["metadata"]["component"]["name"] == "maskrcnn-export"
    listed = {canonicalize_name(each["name"]): each for each in bill["components"]}
    assert {name: each["version"] for name, each in listed.items()} == packages
    assert [name for name, each in listed.items() if "hashes" in each] == ["numpy"]
    assert listed["pillow"]["licenses"][0]["license"]["id"] == "MIT-CMU"
    graph = {each["ref"]: each.get("dependsOn", []) for each in bill["dependencies"]}
    assert listed["numpy"]["bom-ref"] in graph[listed["onnxruntime"]["bom-ref"]]
    assert "no hash found: " in capsys.readouterr().err


def test_bill_that_would_lack_something_or_is_not_valid(tmp_path, monkeypatch, capsys):
    root = {"type": "library", "name": "root", "bom-ref": "root"}
    bill = {"bomFormat": "CycloneDX", "specVersion": "1.6", "metadata": {"component": root}, "components": []}
    monkeypatch.setattr(sbom, "_of_environment", lambda: dict(bill))
    monkeypatch.setattr(sbom, "_hashes", lambda _: {})
    monkeypatch.setattr(sbom, "closure", lambda _: ({"zz-a": "1"}, []))
    assert sbom.main(tmp_path / "bill.json") == 1
    assert "it lacks zz-a" in capsys.readouterr().err
    monkeypatch.setattr(sbom, "closure", lambda _: ({}, []))
    bill["serialNumber"] = "none"
    assert sbom.main(tmp_path / "bill.json") == 1
    del bill["serialNumber"]
    assert sbom.main(tmp_path / "bill.json") == 0
    assert list(tmp_path.iterdir()) == [tmp_path / "bill.json"]


def test_narrowing_keeps_the_graph_closed():
    bill = {
        "metadata": {"component": {"bom-ref": "root"}},
        "components": [{"name": name, "bom-ref": name} for name in ("a", "B_b", "tool")],
        "dependencies": [
            {"ref": "root", "dependsOn": ["a", "tool"]},
            {"ref": "a", "dependsOn": ["tool"]},
            {"ref": "tool", "dependsOn": ["a"]},
            {"ref": "B_b"},
        ],
    }
    found = sbom.narrowed(bill, {"a": "1", "b-b": "2"})
    assert [each["name"] for each in found["components"]] == ["a", "B_b"]
    assert found["dependencies"] == [{"ref": "root", "dependsOn": ["a"]}, {"ref": "a"}, {"ref": "B_b"}]


def test_digests_of_what_an_installer_would_take(monkeypatch):
    def run(command, **_):
        items = [item("A_a", hashes={"sha256": "x"}), item("b", hashes={"md5": "y"}), item("c")]
        report = Path(command[command.index("--report") + 1])
        report.write_text(json.dumps({"install": items}), encoding="utf-8")
        assert command[0] == sys.executable
        assert {"--dry-run", "--no-deps"} <= set(command)
        return type("Done", (), {"returncode": 0})

    def item(name, **archive):
        return {"metadata": {"name": name}, "download_info": {"archive_info": archive}}

    monkeypatch.setattr(sbom.subprocess, "run", run)
    assert sbom._hashes({"a-a": "1"}) == {"a-a": "x"}
