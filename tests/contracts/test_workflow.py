"""The workflow of GitHub runs what CI runs everywhere, with no more rights than it needs.

`make check` compares it with the schema of workflows.
"""

import re
import tomllib

import pytest
import yaml


@pytest.fixture(scope="module")
def workflow(pytestconfig):
    return yaml.safe_load((pytestconfig.rootpath / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8"))


def test_it_runs_what_ci_runs_on_every_python(workflow, pytestconfig):
    (job,) = workflow["jobs"].values()
    assert [step["run"] for step in job["steps"] if "run" in step] == [".ci/run"]
    project = tomllib.loads((pytestconfig.rootpath / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    versions = [found[1] for text in project["classifiers"] if (found := re.search(r":: (3\.\d+)$", text))]
    assert job["strategy"]["matrix"]["python"] == versions


def test_it_may_only_read_and_ends(workflow):
    (job,) = workflow["jobs"].values()
    assert workflow["permissions"] == {"contents": "read"}
    assert "permissions" not in job
    assert job["timeout-minutes"] <= 90
    assert workflow["concurrency"]["group"]
    actions = [step["uses"] for step in job["steps"] if "uses" in step]
    assert [action for action in actions if not re.fullmatch(r"actions/[\w-]+@(v\d+|[0-9a-f]{40})", action)] == []
    assert job["steps"][0]["with"]["persist-credentials"] is False


def test_it_keeps_the_site_that_make_docs_builds(workflow, pytestconfig):
    (job,) = workflow["jobs"].values()
    (kept,) = (step["with"]["path"] for step in job["steps"] if "upload-artifact" in step.get("uses", ""))
    makefile = (pytestconfig.rootpath / "Makefile").read_text(encoding="utf-8")
    assert kept in makefile.partition("\ndocs:")[2].partition("\n\n")[0]
    assert " docs" in (pytestconfig.rootpath / ".ci" / "run").read_text(encoding="utf-8")
