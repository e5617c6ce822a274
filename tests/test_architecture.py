"""The packages depend on each other in one direction: envs and maml_rl know neither each other nor experiments."""

import ast
from collections.abc import Iterable, Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FORBIDDEN = {
    "envs": {"torch", "stable_baselines3", "maml_rl", "experiments", "tests"},
    "maml_rl": {"mujoco", "stable_baselines3", "PIL", "envs", "experiments", "tests"},
    "experiments": {"mujoco", "tests"},
    "benchmarks": {"tests"},
    "tests": {"tests"},
}
EXCEPTIONS = {
    ("maml_rl/sb3.py", "stable_baselines3"),
    ("maml_rl/supervised/images.py", "PIL"),
    ("experiments/panel.py", "mujoco"),  # Studio, which shows and serves the live view
    ("experiments/studio.py", "mujoco"),
}
SOURCES = sorted(path for package in FORBIDDEN for path in (ROOT / package).rglob("*.py"))


def imported_modules(source: str, package: str) -> Iterator[str]:
    """Full names of what a module of `package` imports, anywhere in it; `from a import b` gives a.b."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*parents, *([node.module] if node.module else [])])
            yield from (f"{base}.{alias.name}" for alias in node.names)


def forbidden_imports(source: str, path: str) -> set[str]:
    """Packages that the file at `path`, relative to the root, imports although it must not."""
    package = ".".join(Path(path).parent.parts)
    roots = {name.partition(".")[0] for name in imported_modules(source, package)}
    return {root for root in roots & FORBIDDEN[Path(path).parts[0]] if (path, root) not in EXCEPTIONS}


def import_cycle(sources: dict[str, str]) -> list[str]:
    """A cycle among modules given as name: source, or an empty list."""
    graph: dict[str, Iterable[str]] = {}
    for module, source in sources.items():
        names = set(imported_modules(source, module.rpartition(".")[0]))
        names |= {name.rpartition(".")[0] for name in names}
        graph[module] = (names & sources.keys()) - {module}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


@pytest.mark.parametrize("path", [path.relative_to(ROOT).as_posix() for path in SOURCES])
def test_a_file_imports_nothing_that_the_architecture_forbids(path: str) -> None:
    assert forbidden_imports((ROOT / path).read_text(), path) == set()


def test_maml_rl_has_no_import_cycle() -> None:
    files = (path for path in SOURCES if path.relative_to(ROOT).parts[0] == "maml_rl" and path.name != "__init__.py")
    assert import_cycle({".".join(f.relative_to(ROOT).with_suffix("").parts): f.read_text() for f in files}) == []


def test_no_file_is_a_drawer_of_odds_and_ends() -> None:
    assert [path for path in SOURCES if path.stem in {"utils", "helpers", "common", "misc"}] == []


@pytest.mark.parametrize(
    ("source", "path", "expected"),
    [
        ("import torch", "envs/a.py", {"torch"}),
        ("import torch.nn as nn, numpy", "envs/sub/a.py", {"torch"}),
        ("def f():\n    from maml_rl.types import Params", "envs/a.py", {"maml_rl"}),
        ("from envs import batched\nimport mujoco", "maml_rl/a.py", {"envs", "mujoco"}),
        ("import stable_baselines3", "maml_rl/a.py", {"stable_baselines3"}),
        ("import stable_baselines3", "maml_rl/sb3.py", set()),
        ("import mujoco", "experiments/train.py", {"mujoco"}),
        ("from mujoco.studio import web_viewer", "experiments/studio.py", set()),
        ("from tests.test_architecture import ROOT", "experiments/a.py", {"tests"}),
        ("import torch\nfrom maml_rl import types\nfrom . import policies\nenvs = 1", "maml_rl/a.py", set()),
        ("from envs.batched import TaskMDP\nfrom maml_rl import types", "experiments/a.py", set()),
    ],
)
def test_the_checker_catches_forbidden_imports_and_no_others(source: str, path: str, expected: set[str]) -> None:
    assert forbidden_imports(source, path) == expected


def test_the_checker_catches_cycles() -> None:
    assert import_cycle({"p.a": "from p.b import x", "p.b": "from p import c", "p.c": "import p.d", "p.d": ""}) == []
    assert set(import_cycle({"p.a": "from p.b import x", "p.b": "from . import c", "p.c": "from .a import y"})) == {
        "p.a",
        "p.b",
        "p.c",
    }
