"""Presets: settings of experiments by name, with their source and what to expect."""

from difflib import get_close_matches
from typing import Any

from maml_rl.errors import InputError
from maml_rl.experiments.presets.preset import Preset, rules_for, takes_rule, with_rule
from maml_rl.experiments.presets.rl_presets import CUSTOM, RL_PRESETS, UNNAMED
from maml_rl.experiments.presets.supervised_presets import SUPERVISED_PRESETS

PRESETS: dict[str, Preset[Any]] = {**RL_PRESETS, **SUPERVISED_PRESETS}

__all__ = ["CUSTOM", "PRESETS", "UNNAMED", "Preset", "find_preset", "rules_for", "takes_rule", "with_rule"]


def find_preset(name: str) -> Preset[Any]:
    """The preset of that name.

    Raises:
        InputError: If there is none, with the nearest names if any are near.
    """
    if name not in PRESETS:
        near = get_close_matches(name, PRESETS, n=3, cutoff=0.4)
        nearest = f"; the nearest {'is' if len(near) == 1 else 'are'} {', '.join(near)}" if near else ""
        if ":" in name:
            nearest = f"; for an environment: maml-rl train --env-id {name}"
        raise InputError(f"there is no preset {name!r}{nearest} (see maml-rl presets)")
    return PRESETS[name]
