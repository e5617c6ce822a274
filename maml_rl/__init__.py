"""Meta-reinforcement learning with MAML (Finn, Abbeel, Levine 2017).

The names here cover the way from a run or an environment to an adapted policy (docs/tour.md). Each is loaded on first
use, because processes that run an environment import this package and do not need PyTorch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from maml_rl.checks import check_task_env
    from maml_rl.config import SGD, Adam, PolicyConfig, ProMP, RLConfig, RLEvaluation, RLMeta, TrustRegion
    from maml_rl.episode_log import EpisodeLog, load_steps
    from maml_rl.evaluation import task_returns
    from maml_rl.logged import adapt, explorer
    from maml_rl.machine import Machine
    from maml_rl.numpy_policy import load_policy
    from maml_rl.run import load_run, open_learner, save_run, train
    from maml_rl.tasks import evaluation_tasks, vectorize
    from maml_rl.types import select

__all__ = [
    "SGD",
    "Adam",
    "EpisodeLog",
    "Machine",
    "PolicyConfig",
    "ProMP",
    "RLConfig",
    "RLEvaluation",
    "RLMeta",
    "TrustRegion",
    "adapt",
    "check_task_env",
    "evaluation_tasks",
    "explorer",
    "load_policy",
    "load_run",
    "load_steps",
    "open_learner",
    "save_run",
    "select",
    "task_returns",
    "train",
    "vectorize",
]

_MODULES = {
    "checks": ["check_task_env"],
    "config": ["SGD", "Adam", "PolicyConfig", "ProMP", "RLConfig", "RLEvaluation", "RLMeta", "TrustRegion"],
    "episode_log": ["EpisodeLog", "load_steps"],
    "evaluation": ["task_returns"],
    "logged": ["adapt", "explorer"],
    "machine": ["Machine"],
    "numpy_policy": ["load_policy"],
    "run": ["load_run", "open_learner", "save_run", "train"],
    "tasks": ["evaluation_tasks", "vectorize"],
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
