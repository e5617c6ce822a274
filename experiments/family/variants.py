"""Methods and problems of the comparison, as settings. A method is a line: what it changes in a problem's preset."""

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any, NamedTuple

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


class FamilyMember(NamedTuple):
    """A method: what differs from MAML with a REINFORCE inner loss and a trust region."""

    label: str
    meta: Changes = _NONE  # settings of RLMeta
    network: Changes = _NONE  # settings of PolicyConfig
    chosen: Mapping[str, Changes] = MappingProxyType({})  # settings of RLMeta that were chosen, by problem: see CHOICE
    needs_std: bool = False  # whether actions have to be continuous, with a standard deviation


MAML = "maml"
METHODS = {
    MAML: FamilyMember("MAML"),
    "lvc": FamilyMember("LVC", {"inner_objective": "lvc"}),
    "dice-0.5": FamilyMember("Loaded DiCE, lambda 0.5", {"inner_objective": "dice", "dice_lambda": 0.5}),
    "dice-1": FamilyMember("DiCE", {"inner_objective": "dice", "dice_lambda": 1.0}),
    "promp": FamilyMember("ProMP", {"inner_objective": "lvc", "step": ProMP(lr=3e-3)}),
    "adam": FamilyMember("LVC, a step of Adam", {"inner_objective": "lvc", "step": Adam(lr=1e-2)}),
    "e-maml": FamilyMember("E-MAML", {"sampling_credit": 1.0}),
    "first-order": FamilyMember("first order", {"first_order": True}),
    "anil": FamilyMember("ANIL", {"adapted": "last-layer"}),
    "meta-sgd": FamilyMember("Meta-SGD", {"learned_lr": "parameter"}),
    "cavia": FamilyMember("CAVIA", {"adapted": "context"}, {"context_size": 5}),
    "filtered": FamilyMember("filtered step sizes", {"filtered_lr": True}),
    "std-factor": FamilyMember("learned factor on the deviation", {"adapted_std_factor": 0.5}, needs_std=True),
}

TABLE_SEED = 1000
"""Seed of the held-out tasks that methods are compared on. No setting was chosen on it, nor on training seeds below
`CHOICE`."""
CHOICE = 100
"""Training seeds from here on, and held-out tasks of seed 2000, are for the choice of settings."""


def methods_of(problem: str) -> list[str]:
    """Keys of the methods that a problem can be learned by."""
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
    return replace(
        config,
        iterations=of.iterations if iterations is None else iterations,
        seed=seed,
        meta=replace(config.meta, **{"step": step, **member.meta, **member.chosen.get(problem, {})}),
        network=replace(config.network, **member.network),
    )


def held_out(config: RLConfig, problem: str) -> RLEvaluation:
    """How every run of a problem is evaluated: returns after 0, 1, 2 and 3 gradient steps."""
    return replace(config.evaluation, tasks=PROBLEMS[problem].tasks, gradient_steps=3, seed=TABLE_SEED)
