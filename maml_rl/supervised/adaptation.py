"""Error and accuracy after 0, 1, 2, ... gradient steps on held-out tasks."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from maml_rl.parallel import TaskThreads
from maml_rl.rates import theta
from maml_rl.supervised.meta_learning import adaptation_steps, import_compiler, query_loss
from maml_rl.supervised.networks import Network
from maml_rl.supervised.settings import SupervisedMeta
from maml_rl.supervised.task_batches import TaskBatch, chunks
from maml_rl.types import Params, aligned, laid_out

_CHUNK = 50  # tasks adapted at once where the settings give no number


class StepLosses(NamedTuple):
    """Results of meta-parameters on the query examples of tasks, by gradient step."""

    losses: NDArray[np.float64]  # [gradient steps + 1, M]   not finite where a task diverged
    accuracies: NDArray[np.float64]  # [gradient steps + 1, M]   share that is classified correctly; 0 for regression


def parts_of(tasks: TaskBatch, config: SupervisedMeta) -> Sequence[TaskBatch]:
    """The tasks of an evaluation, in parts of as many as are adapted at once."""
    return chunks(tasks, config.chunk_size or _CHUNK)


def losses_by_step(
    network: Network,
    config: SupervisedMeta,
    meta: Params,
    tasks: TaskBatch,
    gradient_steps: int,
    threads: TaskThreads,
    done: Callable[[int], object] = lambda _: None,
) -> StepLosses:
    """Query loss and accuracy of each task after 0, 1, ..., `gradient_steps` gradient steps on its support examples.

    Args:
        network: The network.
        config: Settings of the inner update that it was trained for, and of batch normalisation.
        meta: Meta-parameters.
        tasks: M tasks.
        gradient_steps: Gradient steps.
        threads: Threads that share the tasks. They do not change the result. Their share counts `parts_of`.
        done: Called with the number of tasks that have been adapted since its last call.
    """
    import_compiler()
    meta, tasks = laid_out(meta), TaskBatch(*map(aligned, tasks))

    def of_task(*examples: Tensor) -> Tensor:
        task = TaskBatch(*examples)
        steps = adaptation_steps(network, config, meta, task, gradient_steps, first_order=True)
        adapted = [theta(meta), *(step.params for step in steps)]
        return torch.stack([torch.stack(query_loss(network, config.batch_norm, params, task)) for params in adapted])

    values, share = list[Tensor](), threads.share
    with torch.no_grad():
        parts = parts_of(tasks, config)
        parts = share.of(parts) if share else parts
        for of_part in threads.imap(lambda part: torch.func.vmap(of_task)(*part), parts):
            values.append(of_part)  # [tasks, steps + 1, 2]
            done(len(of_part))
    if share:
        values = share.collected(values)
    losses, accuracies = torch.cat(values).double().permute(2, 1, 0).cpu().numpy()
    return StepLosses(losses, accuracies)


def predictions(
    network: Network, config: SupervisedMeta, meta: Params, task: TaskBatch, x: Tensor, gradient_steps: int
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
        steps = adaptation_steps(network, config, meta, one, gradient_steps, first_order=True)
        adapted = [theta(meta), *(step.params for step in steps)]
        outputs = [network.query(params, one.support_x, x, config.batch_norm) for params in adapted]
    return torch.stack(outputs).double().cpu().numpy()
