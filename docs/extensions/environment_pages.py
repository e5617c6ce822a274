"""Reference pages of the environments, written by each build from Gymnasium's registry and the classes' docstrings.

A class has one page, with a section for each id that is registered with it, so that a new line in `maml_rl.envs` is a
new section, and a new class a new page. Robots need OpenGL to be drawn, which a machine that builds the site may not
have: pictures are those of `docs/pictures/environments`, which `make pictures` draws. An environment without a picture
has none on its page.
"""

import ast
import re
from collections.abc import Mapping, Sequence
from inspect import cleandoc
from pathlib import Path
from typing import Any

import gymnasium
from generated_pages import ROOT, toctree, write_pages
from gymnasium.envs.registration import EnvSpec
from gymnasium.error import DependencyNotInstalled
from sphinx.application import Sphinx

import maml_rl.envs
from maml_rl.envs import adapters
from maml_rl.experiments.paper.environment_pictures import ENVIRONMENT_PICTURES, picture_of
from maml_rl.experiments.presets import PRESETS
from maml_rl.experiments.presets.rl_presets import RL_PRESETS

SOURCES = {
    "finn2017": ("Finn, Abbeel, Levine 2017 (MAML)", "https://arxiv.org/abs/1703.03400"),
    "rothfuss2019": ("Rothfuss, Lee, Clavera, Asfour, Abbeel 2019 (ProMP)", "https://arxiv.org/abs/1810.06784"),
    "zintgraf2019": ("Zintgraf, Shiarlis, Kurin, Hofmann, Whiteson 2019 (CAVIA)", "https://arxiv.org/abs/1810.03642"),
    "nagabandi2019": (
        "Nagabandi, Clavera, Liu, Fearing, Abbeel, Levine, Finn 2019",
        "https://arxiv.org/abs/1803.11347",
    ),
    "duan2016": ("Duan, Schulman, Chen, Bartlett, Sutskever, Abbeel 2016 (RL²)", "https://arxiv.org/abs/1611.02779"),
    "parisotto2016": ("Parisotto, Ba, Salakhutdinov 2016 (Actor-Mimic)", "https://arxiv.org/abs/1511.06342"),
    "mclean2025": ("McLean et al. 2025 (Meta-World, release 3)", "https://arxiv.org/abs/2505.11289"),
    "maml_rl": ("this package", ""),
}
"""Papers whose definitions the environments follow, by the namespace of their ids."""
_MANY = 20  # ids of one class, from which on they share a section


def class_name(spec: EnvSpec) -> str:
    """The class that defines an environment, `module:Class`."""
    return str(spec.kwargs.get("mdp", spec.entry_point))


def is_own(spec: EnvSpec) -> bool:
    """Whether the package defines it; adapters show environments of others."""
    module = class_name(spec).partition(":")[0]
    return module.startswith(f"{maml_rl.envs.__name__}.") and module != adapters.__name__


def page_name(name: str) -> str:
    """Name of the page of a class."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z][a-z])", "_", name.partition(":")[2]).lower()


def registered() -> dict[str, list[EnvSpec]]:
    """The package's environments by page, in the order of their registration."""
    pages: dict[str, list[EnvSpec]] = {}
    for spec in gymnasium.registry.values():
        if is_own(spec):
            pages.setdefault(page_name(class_name(spec)), []).append(spec)
    return pages


def documented_class(name: str) -> ast.ClassDef:
    """The syntax of a class `module:Class`, which also shows one whose extra is not installed."""
    module, _, wanted = name.partition(":")
    path = ROOT / Path(*module.removeprefix("maml_rl.").split(".")).with_suffix(".py")
    classes = (node for node in ast.parse(path.read_text()).body if isinstance(node, ast.ClassDef))
    return next(node for node in classes if node.name == wanted)


def signature(definition: ast.ClassDef) -> str:
    """Arguments of the class without their types, for its entry in the index and the search."""
    for node in definition.body:
        if isinstance(node, ast.FunctionDef) and node.name == "__init__":
            names, defaults = [a.arg for a in node.args.args[1:]], [ast.unparse(d) for d in node.args.defaults]
            required = len(names) - len(defaults)
            given = [f"{name}={default}" for name, default in zip(names[required:], defaults, strict=True)]
            return f"({', '.join([*names[:required], *given])})"
    return "()"


def anchor(spec: EnvSpec) -> str:
    """What links call the section of an id."""
    return re.sub(r"[^\w-]", "", spec.id).lower()


def picture_file(spec: EnvSpec) -> Path | None:
    """Its picture, if there is one."""
    path = ROOT / ENVIRONMENT_PICTURES / picture_of(spec.id)
    return path if path.exists() else None


def picture(spec: EnvSpec) -> str:
    """Its picture as Markdown, if there is one."""
    file = picture_file(spec)
    return f"![{spec.name}](../../pictures/environments/{file.name})\n\n" if file else ""


def presets(spec: EnvSpec) -> str:
    """The presets that train it."""
    names = [name for name, preset in RL_PRESETS.items() if preset.config.env_id.endswith(f":{spec.id}")]
    return ", ".join(f"[`{name}`](../presets/index.md#{name})" for name in names)


def source(spec: EnvSpec) -> str:
    """The paper that its definition follows."""
    title, address = SOURCES.get(str(spec.namespace), (f"`{spec.namespace}`", ""))
    return f"[{title}]({address})" if address else title


def facts(spec: EnvSpec) -> dict[str, str]:
    """What the environment itself says of its spaces and its time limit; only the limit where its extra is missing."""
    steps = spec.max_episode_steps
    try:
        envs: Any = gymnasium.make_vec(spec, num_envs=1)
    except DependencyNotInstalled:
        return {"Time limit": f"{steps} steps"}
    described: Any = envs.mdp if hasattr(envs, "mdp") else gymnasium.make(spec).unwrapped
    quantity = getattr(described, "task_quantity", "task")
    seconds = f" = {steps * described.dt:g} s" if steps and hasattr(described, "dt") else ""
    envs.close()
    return {
        "Task": f"`{described.task_space}`" + (f", the {quantity}" if quantity != "task" else ""),
        "Observation": f"`{described.observation_space}`",
        "Action": f"`{described.action_space}`",
        "Time limit": f"{steps} steps{seconds}",
    }


def section(spec: EnvSpec) -> str:
    """The section of one id."""
    rows = {**facts(spec), "Source": source(spec), "Presets": presets(spec)}
    table = "".join(f"| {name} | {value} |\n" for name, value in rows.items() if value)
    make = f'```python\nenv = gymnasium.make("maml_rl.envs:{spec.id}")\n```\n'
    return f"## {spec.id}\n\n{picture(spec)}{make}\n| | |\n|---|---|\n{table}\n"


def shared_section(specs: Sequence[EnvSpec]) -> str:
    """The section of many ids, a table."""
    rows = [{"Id": f"`maml_rl.envs:{spec.id}`", **facts(spec), "Presets": presets(spec)} for spec in specs]
    columns = [name for name in rows[0] if any(row[name] for row in rows)]
    lines = [columns, ["---"] * len(columns), *([row[name] for name in columns] for row in rows)]
    table = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    return f"## The {len(specs)} ids\n\nSource: {source(specs[0])}.\n\n{table}\n"


def environment_page(specs: Sequence[EnvSpec]) -> str:
    """The page of one class."""
    name = class_name(specs[0])
    definition = documented_class(name)
    first, _, others = cleandoc(str(ast.get_docstring(definition))).partition("\n\n")
    module, _, class_ = name.partition(":")
    options = f":module: {module}\n:no-contents-entry:\n"
    entry = f"```{{py:class}} {class_}{signature(definition)}\n{options}```\n"
    lead = f"# {definition.name}\n\n{first}\n\n{entry}\n"
    if len(specs) > _MANY:
        return f"{lead}{others}\n\n{shared_section(specs)}"
    return f"{lead}{''.join(map(section, specs))}{others}\n"


def index_page(pages: Mapping[str, Sequence[EnvSpec]]) -> str:
    """The table of contents: a picture and the ids of each class."""
    cards = ""
    for page, specs in pages.items():
        definition = documented_class(class_name(specs[0]))
        drawn = next(filter(None, (file for spec in specs for file in [picture_file(spec)])), None)
        shown = f"![{definition.name}](../../pictures/environments/{drawn.name})\n\n  " if drawn else ""
        ids = [f"[{spec.id}]({page}.md#{anchor(spec)})" for spec in specs if len(specs) <= _MANY]
        listed = "\\\n  ".join(ids) or f"{len(specs)} ids"
        cards += f"- {shown}**[{definition.name}]({page}.md)**\n\n  {listed}\n"
    contents = toctree({page: documented_class(class_name(specs[0])).name for page, specs in pages.items()})
    lead = "One page for each class. [Environments](../../environments.md) says what they have in common."
    return f"# Environment reference\n\n{lead}\n\n{{.cards}}\n{cards}\n{contents}"


def environment_pages() -> dict[str, str]:
    """All pages of environments, and their table of contents."""
    pages = registered()
    return {**{page: environment_page(specs) for page, specs in pages.items()}, "index": index_page(pages)}


def presets_page() -> str:
    """What `maml-rl presets` lists."""
    sections = "".join(
        f"## {name}\n\n{preset.task}\n\n| | |\n|---|---|\n| Source | {preset.source} |\n| Settings | "
        f"{preset.settings()} |\n| Expected | {preset.expected} |\n\n"
        for name, preset in PRESETS.items()
    )
    return f"# Presets\n\nReady settings for `maml-rl train`, as `maml-rl presets` lists them.\n\n{sections}"


def setup(app: Sphinx) -> dict[str, Any]:
    """Writes the pages before the build looks for them."""
    app.connect("config-inited", lambda *_: write_pages("environments", environment_pages()))
    app.connect("config-inited", lambda *_: write_pages("presets", {"index": presets_page()}))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
