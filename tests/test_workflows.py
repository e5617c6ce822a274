"""GitHub's workflows call targets that exist."""

import configparser
import re
from datetime import date
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def commands(workflow: Path) -> list[str]:
    jobs = yaml.safe_load(workflow.read_text())["jobs"].values()
    return [step["run"] for job in jobs for step in job["steps"] if "run" in step]


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_every_called_target_is_in_the_makefile(workflow: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    called = [name for command in commands(workflow) for name in re.findall(r"\bmake ([a-z-]+)", command)]
    assert called
    assert set(called) <= targets


def test_the_versions_of_python_that_are_tested_are_those_of_the_classifiers() -> None:
    metadata = configparser.ConfigParser()
    metadata.read(ROOT / "setup.cfg")
    promised = re.findall(r"Python :: (3\.\d+)", metadata["metadata"]["classifiers"])
    checks = yaml.safe_load((ROOT / ".github" / "workflows" / "checks.yml").read_text())
    assert checks["jobs"]["test"]["strategy"]["matrix"]["python"] == promised


def test_a_release_needs_the_line_of_the_version_as_setup_cfg_has_it() -> None:
    (check,) = [command for command in commands(ROOT / ".github/workflows/release.yml") if "grep" in command]
    found = re.search(r'"(version = )\$\{GITHUB_REF_NAME#v\}"', check)
    assert found
    assert re.search(rf"^{found[1]}\d+\.\d+\.\d+$", (ROOT / "setup.cfg").read_text(), re.M)


def test_the_oldest_versions_that_are_tried_are_those_that_setup_cfg_promises() -> None:
    metadata = configparser.ConfigParser()
    metadata.read(ROOT / "setup.cfg")
    promised = dict(line.split(">=") for line in metadata["options"]["install_requires"].split())
    lines = (ROOT / "constraints-oldest.txt").read_text().splitlines()
    tried = dict(line.split("==") for line in lines if not line.startswith("#"))
    assert tried.keys() == promised.keys()
    for name, version in tried.items():
        assert re.fullmatch(rf"{re.escape(promised[name])}(\.0)*", version), name


def test_the_changelog_has_a_dated_section_for_the_version() -> None:
    metadata = configparser.ConfigParser()
    metadata.read(ROOT / "setup.cfg")
    first, latest, *_ = re.findall(r"^## (.*)$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.M)
    version, _, day = latest.partition(" - ")
    assert first == "Unreleased"
    assert version == metadata["metadata"]["version"]
    assert date.fromisoformat(day) >= date(2026, 11, 30)
