"""The packages depend on each other in one direction: envs and the method know neither each other nor experiments."""

import ast
from collections import Counter
from collections.abc import Iterable, Iterator
from configparser import ConfigParser
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
INSTALLED = {  # by folder
    "maml_rl": "maml_rl",
    "envs": "maml_rl.envs",
    "experiments": "maml_rl.experiments",
    "trained": "maml_rl.trained",
}
FORBIDDEN = {
    "envs": {"torch", "stable_baselines3", "sb3_contrib", "maml_rl", "maml_rl.experiments", "tests"},
    "maml_rl": {"mujoco", "stable_baselines3", "sb3_contrib", "PIL", "maml_rl.envs", "maml_rl.experiments", "tests"},
    "experiments": {"mujoco", "tests"},
    "trained": {"torch", "mujoco", "maml_rl", "maml_rl.envs", "maml_rl.experiments", "tests"},
    "benchmarks": {"tests"},
    "tests": {"tests"},
}
EXCEPTIONS = {
    ("maml_rl/sb3.py", "stable_baselines3"),
    ("maml_rl/supervised/images.py", "PIL"),
    ("experiments/live/panel.py", "mujoco"),  # Studio, which shows and serves the live view
    ("experiments/live/studio.py", "mujoco"),
}
SOURCES = sorted(path for package in FORBIDDEN for path in (ROOT / package).rglob("*.py"))


def module_name(path: str) -> str:
    """Name under which the file at `path`, relative to the root, is imported."""
    folder, *others = Path(path).with_suffix("").parts
    return ".".join([INSTALLED.get(folder, folder), *(part for part in others if part != "__init__")])


def imported_modules(source: str, package: str) -> Iterator[str]:
    """Full names of what a module of `package` imports, anywhere in it; `from a import b` gives a.b."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*parents, *([node.module] if node.module else [])])
            yield from (f"{base}.{alias.name}" for alias in node.names)


def package_of(module: str) -> str:
    """Which of the packages a module belongs to: one of `INSTALLED`, or the first part of its name."""
    inside = [name for name in INSTALLED.values() if f"{module}.".startswith(f"{name}.")]
    return max(inside, key=len, default=module.partition(".")[0])


def forbidden_imports(source: str, path: str) -> set[str]:
    """Packages that the file at `path`, relative to the root, imports although it must not."""
    package = module_name(Path(path).parent.as_posix())
    roots = {package_of(name) for name in imported_modules(source, package)}
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


def test_there_is_no_import_cycle() -> None:
    files = [path.relative_to(ROOT) for path in SOURCES if path.name != "__init__.py"]
    installed = [path for path in files if path.parts[0] in INSTALLED]
    assert import_cycle({module_name(path.as_posix()): (ROOT / path).read_text() for path in installed}) == []


def test_every_package_is_installed() -> None:
    configuration = ConfigParser()
    configuration.read(ROOT / "setup.cfg")
    named = configuration["options"]["packages"].split()
    found = {path.parent.relative_to(ROOT) for path in SOURCES if path.name == "__init__.py"}
    assert sorted(named) == sorted(module_name(path.as_posix()) for path in found if path.parts[0] in INSTALLED)


PACKAGE = [path for path in SOURCES if path.relative_to(ROOT).parts[0] in INSTALLED]
SHARED_NAMES = {
    "main",  # of each script
    "run",  # of each command
    "initial_state",  # of each of the two algorithms
    "meta_iteration",
    "train",  # in memory, and in a directory
}


def definitions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef]:
    """Functions and classes that a file defines for others."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return (node for node in ast.parse(path.read_text()).body if isinstance(node, kinds) and node.name[0] != "_")


def test_no_two_modules_have_one_name() -> None:
    names = Counter(path.stem for path in PACKAGE if path.stem != "__init__")
    assert [name for name, count in names.items() if count > 1] == []


def test_no_two_public_functions_or_classes_have_one_name() -> None:
    names = Counter(node.name for path in PACKAGE for node in definitions(path))
    assert [name for name, count in names.items() if count > 1 and name not in SHARED_NAMES] == []


def test_functions_fit_on_a_screen() -> None:
    functions = [
        (node, path)
        for path in PACKAGE
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    ]
    longer = [f"{path.name}: {f.name}" for f, path in functions if f.end_lineno - f.lineno + 1 > 45]  # type: ignore[operator]
    assert longer == []


def test_the_tree_of_contributing_names_every_file_once() -> None:
    page = (ROOT / "CONTRIBUTING.md").read_text()
    tree = page[page.index("### Where things are") :].split("```")[1]
    folders: list[str] = []
    named: list[str] = []
    for line in filter(None, tree.splitlines()):
        name = line.split()[0]
        folders = folders[: (len(line) - len(line.lstrip())) // 2]
        if name.endswith("/"):
            folders.append(name)
        else:
            named.append("".join([*folders, name]))
    files = [path.relative_to(ROOT).as_posix() for path in PACKAGE if path.name != "__init__.py"]
    assert sorted(named) == sorted(files)


def test_no_file_is_a_collection_of_unrelated_helpers() -> None:
    assert [path for path in SOURCES if path.stem in {"utils", "helpers", "common", "misc"}] == []


@pytest.mark.parametrize(
    ("source", "path", "expected"),
    [
        ("import torch", "envs/a.py", {"torch"}),
        ("import torch.nn as nn, numpy", "envs/sub/a.py", {"torch"}),
        ("def f():\n    from maml_rl.types import Params", "envs/a.py", {"maml_rl"}),
        ("from maml_rl.envs.batched import TaskMDP", "envs/a.py", set()),
        ("from maml_rl.envs import batched\nimport mujoco", "maml_rl/a.py", {"maml_rl.envs", "mujoco"}),
        ("import maml_rl.experiments", "maml_rl/sub/a.py", {"maml_rl.experiments"}),
        ("import stable_baselines3", "maml_rl/a.py", {"stable_baselines3"}),
        ("import stable_baselines3", "maml_rl/sb3.py", set()),
        ("import mujoco", "experiments/runs/a.py", {"mujoco"}),
        ("from mujoco.studio import web_viewer", "experiments/live/studio.py", set()),
        ("from tests.test_architecture import ROOT", "experiments/a.py", {"tests"}),
        ("import torch\nfrom maml_rl import types\nfrom . import policies\nenvs = 1", "maml_rl/a.py", set()),
        ("from maml_rl.envs.batched import TaskMDP\nfrom maml_rl import types", "experiments/a.py", set()),
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
