"""Methods and problems of the comparison, as settings. Each method is one line: what it changes in a problem's
preset."""

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

from maml_rl.config import Adam, ProMP, RLConfig, RLEvaluation, TrustRegion
from maml_rl.experiments.presets.rl_presets import RL_PRESETS

Changes = Mapping[str, Any]
"""Values of settings by name."""

_NONE: Changes = MappingProxyType({})


class Problem(NamedTuple):
    """A task distribution, and how long every method trains on it."""

    preset: str
    iterations: int  # of all methods: the same tasks and episodes in each, so the same env steps
    seeds: int
    tasks: int  # held-out ones that every run is evaluated on
    has_std: bool = True  # whether actions are continuous


PROBLEMS = {
    "tabular-mdp": Problem("tabular-mdp", iterations=40, seeds=5, tasks=100, has_std=False),
    "navigation": Problem("navigation", iterations=15, seeds=3, tasks=40),
    "half-cheetah-dir": Problem("half-cheetah-dir", iterations=130, seeds=3, tasks=40),
}


class OwnStepSize(NamedTuple):
    """A step size that a method cannot share with MAML, chosen by `maml-rl family --choose` (docs/methods.md)."""

    setting: Literal["inner_lr", "step.lr"]
    chosen: Mapping[str, float]  # by problem
    candidates: Mapping[str, tuple[float, ...]]  # by problem


class FamilyMember(NamedTuple):
    """A method: what differs from MAML with a REINFORCE inner loss and a trust region."""

    label: str
    meta: Changes = _NONE  # settings of RLMeta
    network: Changes = _NONE  # settings of PolicyConfig
    own: OwnStepSize | None = None
    needs_std: bool = False  # whether actions have to be continuous, with a standard deviation


_OUTER = dict.fromkeys(PROBLEMS, (1e-3, 3e-3, 1e-2, 3e-2))
_PROMP = OwnStepSize("step.lr", {"tabular-mdp": 1e-2, "navigation": 1e-2, "half-cheetah-dir": 1e-3}, _OUTER)
_ADAM = OwnStepSize("step.lr", {"tabular-mdp": 1e-2, "navigation": 1e-2, "half-cheetah-dir": 1e-3}, _OUTER)
_CONTEXT = OwnStepSize(
    "inner_lr",
    {"tabular-mdp": 3.0, "navigation": 5.0, "half-cheetah-dir": 100.0},
    {"tabular-mdp": (1.0, 3.0, 10.0, 30.0), "navigation": (1.5, 5.0, 15.0), "half-cheetah-dir": (10.0, 100.0, 300.0)},
)

MAML = "maml"
METHODS = {
    MAML: FamilyMember("MAML"),
    "lvc": FamilyMember("LVC", {"inner_objective": "lvc"}),
    "dice-0.5": FamilyMember("Loaded DiCE, lambda 0.5", {"inner_objective": "dice", "dice_lambda": 0.5}),
    "dice-1": FamilyMember("DiCE", {"inner_objective": "dice", "dice_lambda": 1.0}),
    "promp": FamilyMember("ProMP", {"inner_objective": "lvc", "step": ProMP()}, own=_PROMP),
    "adam": FamilyMember("LVC, a step of Adam", {"inner_objective": "lvc", "step": Adam()}, own=_ADAM),
    "e-maml": FamilyMember("E-MAML", {"sampling_credit": 1.0}),
    "first-order": FamilyMember("first order", {"first_order": True}),
    "anil": FamilyMember("ANIL", {"adapted": "last-layer"}),
    "meta-sgd": FamilyMember("Meta-SGD", {"learned_lr": "parameter"}),
    "cavia": FamilyMember("CAVIA", {"adapted": "context"}, {"context_size": 5}, _CONTEXT),
    "filtered": FamilyMember("filtered step sizes", {"filtered_lr": True}),
    "std-factor": FamilyMember("learned factor on the deviation", {"adapted_std_factor": 0.5}, needs_std=True),
}

TABLE_SEED = 1000
"""Seed of the held-out tasks that methods are compared on. No setting was chosen on it, nor on training seeds below
`CHOICE`."""
CHOICE = 100
"""Training seeds from here on are for the choice of settings."""
CHOICE_TABLE_SEED = 2000
"""The held-out tasks of this seed are for that choice, too."""


def methods_of(problem: str) -> list[str]:
    """Keys of the methods that can learn a problem."""
    return [name for name, member in METHODS.items() if PROBLEMS[problem].has_std or not member.needs_std]


def configuration(problem: str, method: str, seed: int, iterations: int | None = None) -> RLConfig:
    """Settings of a run of the comparison.

    Args:
        problem: A key of `PROBLEMS`.
        method: A key of `METHODS`.
        seed: Seed of the run.
        iterations: Meta-iterations; those of the problem if None.
    """
    of, member = PROBLEMS[problem], METHODS[method]
    config = RL_PRESETS[of.preset].config
    assert isinstance(config.meta.step, TrustRegion)
    step = replace(config.meta.step, hessian_fraction=1.0)  # as DiCE needs it, so that no other method has less
    config = replace(
        config,
        iterations=of.iterations if iterations is None else iterations,
        seed=seed,
        meta=replace(config.meta, **{"step": step, **member.meta}),
        network=replace(config.network, **member.network),
    )
    return config if member.own is None else with_step_size_of(config, member.own.setting, member.own.chosen[problem])


def with_step_size_of(config: RLConfig, setting: Literal["inner_lr", "step.lr"], value: float) -> RLConfig:
    """Settings with another step size of the inner step or of the meta-step."""
    if setting == "inner_lr":
        return replace(config, meta=replace(config.meta, inner_lr=value))
    assert not isinstance(config.meta.step, TrustRegion)
    return replace(config, meta=replace(config.meta, step=replace(config.meta.step, lr=value)))


def held_out(config: RLConfig, problem: str) -> RLEvaluation:
    """How every run of a problem is evaluated: returns after 0, 1, 2 and 3 gradient steps."""
    return replace(config.evaluation, tasks=PROBLEMS[problem].tasks, gradient_steps=3, seed=TABLE_SEED)
