"""What the live view can show, and the scene that shows it."""

from collections.abc import Sequence
from copy import copy
from typing import Any, TypeAlias

import gymnasium
import mujoco

from maml_rl.envs.mujoco.arenas import Arenas
from maml_rl.envs.mujoco.bodies import Bodies
from maml_rl.envs.mujoco.lanes import Colour, Lanes
from maml_rl.envs.mujoco.mdp import MujocoMDP
from maml_rl.envs.navigation import Navigation2D

Subject: TypeAlias = MujocoMDP | Navigation2D | mujoco.MjModel
"""What is shown: an MDP of this package, or the model of another environment in MuJoCo."""


def subject(env: gymnasium.Env[Any, Any]) -> Subject | None:
    """What can be shown of an environment; None if it is neither navigation nor in MuJoCo.

    A model is a copy, which outlives the environment. It is that of `env.unwrapped.model` where `data` stands next to
    it, as in every `gymnasium.envs.mujoco.MujocoEnv`.
    """
    base: Any = env.unwrapped
    mdp, model, data = (getattr(base, name, None) for name in ("mdp", "model", "data"))
    if isinstance(mdp, (MujocoMDP, Navigation2D)):
        return mdp
    return copy(model) if isinstance(model, mujoco.MjModel) and isinstance(data, mujoco.MjData) else None


def has_bodies(shown: Subject) -> bool:
    """Whether it is shown body by body, and not by the poses of an MDP."""
    return isinstance(shown, mujoco.MjModel)


def scene_of(shown: Subject, colours: Sequence[Colour]) -> Lanes | Arenas | Bodies:
    """The scene that shows it once in each colour."""
    if isinstance(shown, Navigation2D):
        return Arenas(colours)
    return Lanes(shown.model, colours) if isinstance(shown, MujocoMDP) else Bodies(shown, colours)
