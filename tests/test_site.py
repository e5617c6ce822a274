"""The documentation site describes every environment and public name, and its links lead where those of the pages do.

`make docs` builds the site and checks its links. These tests check what a build cannot notice.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import code_links
import docstrings
import environment_pages
import gymnasium
import module_pages
import pytest
import repository_links
from gymnasium.envs.registration import EnvSpec

import maml_rl

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
CODE = "`[a](docs/tour.md)`\n```\n[a](docs/tour.md)\n```"


def contents(page: Path) -> Iterator[str]:
    """Documents in the tables of contents of a page, relative to it."""
    for block in re.findall(r"^```\{toctree\}\n(.*?)^```", page.read_text(), re.M | re.S):
        yield from (line for line in block.splitlines() if line and not line.startswith(":"))


@pytest.fixture(scope="module")
def environments() -> dict[str, str]:
    """The pages of environments, by name."""
    return environment_pages.environment_pages()


def test_every_page_is_in_the_contents():
    pages = {path.stem for path in DOCS.glob("*.md")} - {"index"}
    pages |= {f"notebooks/{path.stem}" for path in DOCS.glob("notebooks/*.ipynb")}
    listed = list(contents(DOCS / "index.md"))
    written = {f"reference/{name}/index" for name in ("environments", "modules", "presets")}
    assert sorted(listed) == sorted(pages | written)


def test_every_environment_is_described(environments):
    text = "".join(environments.values())
    ids = [spec.id for spec in gymnasium.registry.values() if environment_pages.is_own(spec)]
    assert len(ids) > 60
    assert [name for name in ids if f"maml_rl.envs:{name}" not in text] == []


def test_an_environment_of_others_in_an_adapter_has_no_page(monkeypatch):
    spec = EnvSpec("doe2026/Foreign-v0", "maml_rl.envs.adapters:SampledTaskEnv", kwargs={"env": "nowhere:Foreign"})
    monkeypatch.setitem(gymnasium.registry, spec.id, spec)
    assert spec not in [one for specs in environment_pages.registered().values() for one in specs]


def test_an_environment_that_is_added_is_described(monkeypatch):
    like = gymnasium.spec("finn2017/Navigation2D-v0")
    spec = EnvSpec(
        "doe2026/Navigation2D-v1",
        like.entry_point,
        max_episode_steps=30,
        kwargs=like.kwargs,
        vector_entry_point=like.vector_entry_point,
    )
    monkeypatch.setitem(gymnasium.registry, spec.id, spec)
    page = environment_pages.environment_pages()["navigation2d"]
    added = page[page.index("## doe2026/Navigation2D-v1") : page.index("## Description")]
    assert "| Task | `Box(-0.5, 0.5, (2,), float32)`, the goal |" in added
    assert "| Observation | `Box(-inf, inf, (2,), float64)` |" in added
    assert "| Action | `Box(-1.0, 1.0, (2,), float32)` |" in added
    assert "| Time limit | 30 steps |" in added
    assert "| Source | `doe2026` |" in added
    assert "Presets" not in added


def test_the_page_of_a_robot_has_its_papers_pictures_presets_and_docstring(environments):
    page = environments["half_cheetah"]
    assert page.startswith("# HalfCheetah\n\nA planar two-legged robot")
    assert "(../../pictures/environments/finn2017-HalfCheetahVel-v0.webp)" in page
    assert "| Time limit | 200 steps = 2 s |" in page
    assert "[Rothfuss, Lee, Clavera, Asfour, Abbeel 2019 (ProMP)](https://arxiv.org/abs/1810.06784)" in page
    assert "[`half-cheetah-vel`](../presets/index.md#half-cheetah-vel)" in page
    assert "\n| 17-19 | position as the definition says, x, y, z " in page


def test_many_ids_of_one_class_share_a_table(environments):
    rows = [line for line in environments["meta_world"].splitlines() if line.startswith("| `maml_rl.envs:mclean2025/")]
    assert len(rows) == 53
    (ml10,) = [row for row in rows if "/ML10-v3`" in row]
    assert ml10.endswith(" | 500 steps | [`metaworld-ml10`](../presets/index.md#metaworld-ml10) |")


def test_every_public_name_is_described_once():
    described = re.findall(r"^\.\. auto\w+:: maml_rl\.(\w+)$", (DOCS / "api.md").read_text(), re.M)
    assert sorted(described) == sorted(maml_rl.__all__)


def test_modules_that_examples_import_are_described_without_what_others_describe():
    pages = module_pages.module_pages()
    imported = re.findall(r"^from (maml_rl\.[\w.]+) import", "".join(p.read_text() for p in DOCS.glob("*.md")), re.M)
    assert len(imported) > 20
    assert set(imported) <= pages.keys()
    assert "maml_rl.optimizers" in pages  # docs/algorithm.md says optimizers.py
    assert "maml_rl.waiting" not in pages
    assert "   :exclude-members: select\n" in pages["maml_rl.types"]
    assert "   :exclude-members: Navigation2D\n" in pages["maml_rl.envs.navigation"]


@pytest.mark.parametrize(
    ("page", "text", "expected"),
    [
        ("docs/tour.md", "[a](metrics.md#return)", "[a](/metrics.md#return)"),
        ("docs/tour.md", "[metrics.md](metrics.md)", "[](/metrics.md)"),
        ("docs/tour.md", "[the runs](../trained/README.md)", "[the runs](/trained.md)"),
        ("docs/tour.md", "[here](#training), [there](https://a.org/b)", "[here](#training), [there](https://a.org/b)"),
        ("docs/tour.md", "[gone](gone.md)", "[gone](gone.md)"),
        ("docs/results.md", "![f](../results/figure5.png)", "![f](/../results/figure5.png)"),
        ("README.md", "[docs/tour.md](docs/tour.md)", "[](/tour.md)"),
        ("README.md", "[how `it` works](docs/algorithm.md#letters)", "[how `it` works](/algorithm.md#letters)"),
        ("README.md", "![clip](docs/pictures/navigation.png)", "![clip](/pictures/navigation.png)"),
        ("README.md", "[cite](CITATION.cff)", "[cite](/../CITATION.cff)"),
        ("trained/README.md", "[why](../docs/ant_notebook.md#a)", "[why](/ant_notebook.md#a)"),
        ("README.md", CODE, CODE),
    ],
)
def test_links_lead_to_the_same_thing_on_the_site(page, text, expected):
    assert repository_links.for_the_site(text, ROOT / page) == expected


def test_a_link_to_a_module_leads_to_its_page(monkeypatch, tmp_path):
    page = tmp_path / "reference" / "modules" / "maml_rl.envs.navigation.md"
    page.parent.mkdir(parents=True)
    page.write_text("")
    monkeypatch.setattr(repository_links, "DOCS", tmp_path)
    link = repository_links.for_the_site("[its code](../envs/navigation.py#L5)", ROOT / "docs" / "tour.md")
    assert link == "[its code](/reference/modules/maml_rl.envs.navigation.md#L5)"


NAMES = code_links.Names(
    {
        "maml_rl.inner.inner_update": ("inner", "u"),
        "maml_rl.types.flatten": ("types", "f"),
        "maml_rl.types.Batch": ("types", "b"),
        "maml_rl.RLConfig": ("api", "c"),
        "maml_rl.config.RLConfig": ("api", "c"),
    },
    ["maml_rl.types.Batch", "maml_rl.RLConfig", "maml_rl.config.RLConfig"],
    {"maml_rl.inner": ("inner", "m"), "maml_rl.envs.ant": ("ant", "m")},
)


@pytest.mark.parametrize(
    ("text", "module", "expected"),
    [
        ("maml_rl/inner.py", None, ("inner", "m")),
        ("inner.py", None, ("inner", "m")),
        ("envs/ant.py", None, ("ant", "m")),
        ("lunge.py", None, None),
        ("maml_rl.inner.inner_update", None, ("inner", "u")),
        ("types.flatten(theta)", None, ("types", "f")),
        ("inner_update", "maml_rl.inner", ("inner", "u")),
        ("inner_update", None, None),
        ("Batch", None, ("types", "b")),
        ("RLConfig", None, ("api", "c")),
        ("flatten", None, None),
        ("theta = 1", None, None),
    ],
)
def test_code_links_to_what_it_names(text, module, expected):
    assert NAMES.place(text, module) == expected


def test_comments_of_fields_are_their_descriptions():
    lines = ["Alias for field number 3"]
    docstrings.read_docstring(None, "attribute", "maml_rl.types.Trajectories.rewards", None, None, lines)
    assert lines == ["[M, K, T]", ""]
    lines = ["Bound on the KL, in nats (paper: 0.01)."]
    docstrings.read_docstring(None, "attribute", "maml_rl.config.TrustRegion.max_kl", None, None, lines)
    assert lines == ["Bound on the KL, in nats (paper: 0.01)."]
