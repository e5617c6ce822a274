"""Chooses a step size that a method cannot share with MAML, on seeds and tasks that no table uses."""

import sys
from collections.abc import Sequence
from dataclasses import replace

from maml_rl.errors import NonFiniteError
from maml_rl.experiments.family.measuring import ONE_THREAD, held_out_returns
from maml_rl.experiments.family.variants import (
    CHOICE,
    CHOICE_TABLE_SEED,
    METHODS,
    configuration,
    held_out,
    with_step_size_of,
)
from maml_rl.experiments.runs.text import markdown_table
from maml_rl.run import train


def scores(problem: str, method: str, seeds: int, iterations: int | None) -> dict[float, list[float]]:
    """Returns after one gradient step, one per seed, for each candidate step size of a method; empty without
    candidates.

    Args:
        problem: A key of `PROBLEMS`.
        method: A key of `METHODS`.
        seeds: Number of training seeds, from `CHOICE` on.
        iterations: Meta-iterations; those of the problem if None.
    """
    own = METHODS[method].own
    if own is None:
        return {}
    measured: dict[float, list[float]] = {value: [] for value in own.candidates[problem]}
    for seed in range(CHOICE, CHOICE + seeds):
        for value, returns in measured.items():
            config = with_step_size_of(configuration(problem, method, seed, iterations), own.setting, value)
            settings = replace(held_out(config, problem), gradient_steps=1, seed=CHOICE_TABLE_SEED)
            try:
                returns.append(held_out_returns(train(config, machine=ONE_THREAD), settings)[1])
            except NonFiniteError:
                returns.append(float("-inf"))
            print(f"{problem}, {method}, {own.setting} {value:g}, seed {seed}: {returns[-1]:.2f}", file=sys.stderr)
    return measured


def choices_table(problem: str, methods: Sequence[str], seeds: int, iterations: int | None) -> str:
    """What each step size returns after one gradient step, mean over seeds, as Markdown; the one in use in bold."""
    rows = [["method", "setting", "return after one gradient step"]]
    for method in methods:
        own, measured = METHODS[method].own, scores(problem, method, seeds, iterations)
        if own is not None:
            cells = [f"{value:g}: {sum(returns) / len(returns):.2f}" for value, returns in measured.items()]
            used = list(measured).index(own.chosen[problem])
            cells[used] = f"**{cells[used]}**"
            rows.append([METHODS[method].label, own.setting, ", ".join(cells)])
    return markdown_table(rows)
