"""Error and accuracy after 0, 1, 2, ... gradient steps on held-out tasks."""

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from maml_rl.parallel import TaskThreads
from maml_rl.supervised.config import BatchNorm, MethodConfig
from maml_rl.supervised.meta_learning import adapt_task, query_loss, theta
from maml_rl.supervised.networks import Network
from maml_rl.supervised.tasks import TaskBatch, chunks
from maml_rl.types import Params, aligned, laid_out

_CHUNK = 50  # tasks adapted at once where the settings name no number


class Adaptation(NamedTuple):
    """What meta-parameters do on tasks, by gradient step."""

    losses: NDArray[np.float64]  # [gradient steps + 1, M]   on the query examples; not finite where a task diverged
    accuracies: NDArray[np.float64]  # [gradient steps + 1, M]   share of query examples classified correctly; else 0


def adaptation(
    network: Network,
    config: MethodConfig,
    meta: Params,
    tasks: TaskBatch,
    gradient_steps: int,
    batch_norm: BatchNorm,
    threads: TaskThreads,
) -> Adaptation:
    """Query loss and accuracy of each task after 0, 1, ..., `gradient_steps` gradient steps on its support examples.

    Args:
        network: The network.
        config: Settings of the inner update that it was trained for.
        meta: Meta-parameters.
        tasks: M tasks.
        gradient_steps: Gradient steps.
        batch_norm: Statistics of batch normalisation for the query examples.
        threads: Threads that share the tasks. They do not change the result.
    """
    settings = replace(config, batch_norm=batch_norm)
    meta, tasks = laid_out(meta), TaskBatch(*map(aligned, tasks))

    def of_chunk(meta: Params, chunk: TaskBatch) -> Tensor:
        def of_task(*examples: Tensor) -> Tensor:
            task = TaskBatch(*examples)
            path = adapt_task(network, settings, meta, task, gradient_steps, first_order=True)
            judged = [
                query_loss(network, settings, params, task) for params in (theta(meta), *(s.params for s in path))
            ]
            return torch.stack([torch.stack(pair) for pair in judged])

        values: Tensor = torch.func.vmap(of_task)(*chunk)
        return values

    parts = chunks(tasks, config.chunk_size or _CHUNK)
    with torch.no_grad():
        values = torch.cat(threads.map(lambda chunk: of_chunk(meta, chunk), parts))  # [M, steps + 1, 2]
    losses, accuracies = values.double().permute(2, 1, 0).cpu().numpy()
    return Adaptation(losses, accuracies)


def predictions(
    network: Network, config: MethodConfig, meta: Params, task: TaskBatch, x: Tensor, gradient_steps: int
) -> NDArray[np.float64]:
    """Outputs for inputs `x` `[n, ...]` of one task after 0, 1, ..., `gradient_steps` gradient steps.

    Args:
        network: The network.
        config: Settings of the inner update that it was trained for.
        meta: Meta-parameters.
        task: The task, with M = 1.
        x: Inputs.
        gradient_steps: Gradient steps on the task's support examples.

    Returns:
        `[gradient steps + 1, n, outputs]`
    """
    meta, one = laid_out(meta), TaskBatch(*(aligned(examples[0]) for examples in task))
    with torch.no_grad():
        path = adapt_task(network, config, meta, one, gradient_steps, first_order=True)
        judged = [theta(meta), *(step.params for step in path)]
        outputs = [network.query(params, one.support_x, x, config.batch_norm) for params in judged]
    return torch.stack(outputs).double().cpu().numpy()
