"""Meta-reinforcement learning with MAML (Finn, Abbeel, Levine 2017).

The names here lead from an environment to an adapted policy (docs/tour.md). Each is loaded when it is first used:
processes that run an environment import this package, and have no use for PyTorch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from maml_rl.checks import check_task_env
    from maml_rl.config import MetaConfig, PolicyConfig
    from maml_rl.evaluation import EvaluationConfig, adaptation, task_returns
    from maml_rl.initial import initial_policy, parameters
    from maml_rl.meta_rl import meta_iteration
    from maml_rl.parallel import TaskThreads
    from maml_rl.tasks import evaluation_tasks, task_space, vectorize
    from maml_rl.types import select

__all__ = [
    "EvaluationConfig",
    "MetaConfig",
    "PolicyConfig",
    "TaskThreads",
    "adaptation",
    "check_task_env",
    "evaluation_tasks",
    "initial_policy",
    "meta_iteration",
    "parameters",
    "select",
    "task_returns",
    "task_space",
    "vectorize",
]

_MODULES = {
    "checks": ["check_task_env"],
    "config": ["MetaConfig", "PolicyConfig"],
    "evaluation": ["EvaluationConfig", "adaptation", "task_returns"],
    "initial": ["initial_policy", "parameters"],
    "meta_rl": ["meta_iteration"],
    "parallel": ["TaskThreads"],
    "tasks": ["evaluation_tasks", "task_space", "vectorize"],
    "types": ["select"],
}


def __getattr__(name: str) -> Any:
    """Loads a public name (PEP 562)."""
    for module, names in _MODULES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
