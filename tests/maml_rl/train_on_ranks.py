"""Trains small runs in memory, alone or as one of several ranks, and writes what they reach: python FILE OUT."""

import hashlib
import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import torch

from maml_rl.config import Adam, Imitation, ProMP, RLConfig, RLEvaluation, RLMeta
from maml_rl.experiments.commands.ranked import ending_at_once
from maml_rl.ranks import Launch, join, this_rank
from maml_rl.run import Run, train
from maml_rl.supervised.settings import (
    NetworkConfig,
    SupervisedConfig,
    SupervisedEvaluation,
    SupervisedMeta,
    TasksConfig,
)

TRAINED = Path(__file__).parents[2] / "trained"
META = RLMeta(meta_batch_size=4, episodes=5)  # on three ranks 1, 1 and 2 tasks, whose rows begin anywhere in memory
NAVIGATION = RLConfig(env_id="maml_rl.envs:finn2017/Navigation2D-v0", max_episode_steps=20, iterations=2, meta=META)
SINUSOID = SupervisedConfig(
    tasks=TasksConfig("sinusoid"),
    iterations=3,
    network=NetworkConfig("mlp"),
    meta=SupervisedMeta(meta_batch_size=10, chunk_size=3),  # chunks of 3, 3, 3 and 1 tasks
)
ONCE = replace(NAVIGATION, iterations=1)
RUNS = {
    "trust-region": NAVIGATION,
    "adam": replace(ONCE, meta=replace(META, step=Adam())),
    "promp": replace(
        ONCE, meta=replace(META, inner_objective="lvc", learned_lr="parameter", step=ProMP(epochs=2), gae_lambda=0.9)
    ),
    "credit": replace(NAVIGATION, meta=replace(META, sampling_credit=1.0, filtered_lr=True, inner_steps=2)),
    "pretrained": replace(ONCE, meta=replace(META, inner_steps=0)),  # whose evaluation chooses a step size
    "mimic": replace(
        ONCE,
        meta=replace(META, inner_steps=0, step=Adam()),
        imitation=Imitation(str(TRAINED / "navigation-oracle"), updates=3, minibatch=7),
    ),
    "supervised": SINUSOID,
}
EVALUATIONS = {
    RLConfig: RLEvaluation(tasks=4, episodes=3, gradient_steps=1, validation_tasks=3, inner_lrs=(0.01, 0.1)),
    SupervisedConfig: SupervisedEvaluation(tasks=10, gradient_steps=2),
}


def reached(run: Run) -> str:
    """Digest of all that a run has reached, and of its evaluation."""
    sha = hashlib.sha256()
    evaluation = EVALUATIONS[type(run.config)]
    with run.open(evaluation=evaluation) as learner:
        for curve in learner.evaluate(run.state, evaluation):
            sha.update(repr((curve.name, curve.quantity, curve.inner_lr)).encode() + curve.values.tobytes())
    for name, value in sorted((run.state.meta | run.state.optimizer | run.constants).items()):
        sha.update(name.encode() + value.contiguous().numpy().tobytes())
    return f"{sha.hexdigest()} after {run.progress.env_steps} env steps"


def trained() -> dict[str, str]:
    """What each of the runs reaches."""
    torch.set_num_threads(1)
    return {name: reached(train(config)) for name, config in RUNS.items()}


if __name__ == "__main__":
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    launch = Launch(*(int(os.environ[name]) for name in names))
    with ending_at_once():
        join(launch)
        Path(sys.argv[1], f"{launch.rank}.json").write_text(json.dumps(trained()))
        this_rank().close()
