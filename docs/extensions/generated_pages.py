"""Pages that a build writes itself, below `docs/reference`."""

from collections.abc import Mapping
from pathlib import Path
from shutil import rmtree

ROOT = Path(__file__).parents[2]
PACKAGES = ("maml_rl", "envs", "experiments")  # their folders
REFERENCE = ROOT / "docs" / "reference"


def write_pages(folder: str, pages: Mapping[str, str]) -> None:
    """Writes pages of Markdown by name into a folder of `docs/reference`, in the place of those that are there."""
    directory = REFERENCE / folder
    rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    for name, text in pages.items():
        (directory / f"{name}.md").write_text(text)


def module_name(file: str) -> str | None:
    """Name under which a file of the packages is imported: `maml_rl.envs.ant` for `envs/ant.py`; None for others."""
    folder, *others = Path(file).with_suffix("").parts
    if folder not in PACKAGES or not file.endswith(".py"):
        return None
    parts = [folder] if folder == "maml_rl" else ["maml_rl", folder]
    return ".".join([*parts, *(part for part in others if part != "__init__")])


def package_files() -> list[Path]:
    """The modules of the packages, without the packages themselves."""
    files = (path for folder in PACKAGES for path in (ROOT / folder).rglob("*.py"))
    return sorted(path for path in files if path.stem != "__init__")


def toctree(entries: Mapping[str, str]) -> str:
    """A hidden table of contents: titles by document, relative to the page."""
    lines = "\n".join(f"{title} <{document}>" for document, title in entries.items())
    return f"```{{toctree}}\n:hidden:\n\n{lines}\n```\n"
