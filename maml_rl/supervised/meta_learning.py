"""Algorithm 2 of Finn, Abbeel, Levine 2017: MAML for supervised learning, and its relatives.

FOMAML, ANIL, Meta-SGD and MAML++ are settings of the same inner update (`maml_rl.maml.inner_step`), as is the paper's
pretrained baseline (`inner_steps = 0`); Reptile shares it and has a meta-gradient of its own.

The meta-parameters are one mapping: theta under its own names, and learned step sizes under `inner_lr.` and the name of
the parameter that they belong to.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from maml_rl.errors import InputError, NonFiniteError
from maml_rl.maml import InnerStep, inner_step
from maml_rl.parallel import TaskThreads, one_torch_thread
from maml_rl.supervised.config import MethodConfig
from maml_rl.supervised.networks import Network
from maml_rl.supervised.optimizers import Moments, adam, cosine, no_moments
from maml_rl.supervised.tasks import TaskBatch, chunks
from maml_rl.supervised.tracing import recorded
from maml_rl.types import Params, aligned, flatten, laid_out, split, unflatten

RATE = "inner_lr."


class State(NamedTuple):
    """What training has reached: all that the next iteration depends on."""

    meta: Params
    moments: Moments
    iteration: int  # meta-iterations finished


class Iteration(NamedTuple):
    """Result of one meta-iteration."""

    state: State
    metrics: dict[str, float]  # docs/metrics.md explains each


def initial_state(network: Network, config: MethodConfig) -> State:
    """The state before the first iteration: the network's own parameters, and step sizes of `config.inner_lr`.

    Adam has moments of what is learned, in the order of `meta`: of all but frozen parameters.

    Raises:
        InputError: If the inner update has no parameter to change.
    """
    meta, adapted = network.parameters(), adapted_names(network, config)
    if config.learned_lr == "parameter":
        meta |= {RATE + name: torch.full_like(meta[name], config.inner_lr) for name in adapted}
    elif config.learned_lr == "layer-and-step":
        size = (max(config.inner_steps, 1),)
        meta |= {RATE + name: meta[name].new_full(size, config.inner_lr) for name in adapted}
    return State(meta, no_moments(flatten(split(meta, network.frozen)[1])), 0)


def theta(meta: Params) -> Params:
    """The meta-parameters without learned step sizes."""
    return {name: value for name, value in meta.items() if not name.startswith(RATE)}


def adapted_names(network: Network, config: MethodConfig) -> list[str]:
    """Names of the parameters that the inner update changes, none of them frozen.

    Raises:
        InputError: If there are none.
    """
    names = network.last_layer()
    if config.adapted == "all":
        norms = network.norm_parameters() if config.algorithm != "reptile" else []  # whose gradient is how far it went
        names = [name for name in network.parameters() if name not in norms]
    names = [name for name in names if name not in network.frozen]
    if not names:
        raise InputError(
            f"the inner update (adapted = {config.adapted}) has nothing to change: those parameters are frozen, or of "
            "batch normalisation; call requires_grad_(True) on those to adapt, or set adapted to all"
        )
    return names


def inner_rates(network: Network, config: MethodConfig, meta: Params, step: int) -> Params:
    """Step sizes of a gradient step (from 0); after the last one that was trained, they stay its."""
    names = adapted_names(network, config)
    if config.learned_lr == "layer-and-step":
        return {name: meta[RATE + name][min(step, max(config.inner_steps, 1) - 1)] for name in names}
    if config.learned_lr == "parameter":
        return {name: meta[RATE + name] for name in names}
    return {name: meta[name].new_tensor(config.inner_lr) for name in names}


def loss_and_accuracy(outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Mean loss over the examples, and the share that is classified correctly.

    Cross-entropy in nats where the targets are labels, else the squared error (paper, equations 2 and 3), which has no
    accuracy: 0 stands in its place.
    """
    if targets.dtype == torch.int64:
        right = (outputs.detach().argmax(-1) == targets).to(outputs.dtype)
        return torch.nn.functional.cross_entropy(outputs, targets), right.mean()
    if outputs.shape != targets.shape:
        raise InputError(
            f"outputs of shape {list(outputs.shape)} do not fit targets of shape {list(targets.shape)}: a network for "
            "regression has as many outputs as y has columns"
        )
    return (outputs - targets).square().mean(), outputs.new_zeros(())


def adapt_task(
    network: Network,
    config: MethodConfig,
    meta: Params,
    task: TaskBatch,
    steps: int,
    first_order: bool,
    in_turn: bool = False,
) -> list[InnerStep]:
    """Inner updates of one task (lines 5 and 6), one entry for each step, on the support examples.

    Reptile trains on support and query examples in turn (`in_turn`): it has no split of its own, and its analysis is of
    steps on minibatches that differ (Nichol et al. 2018, section 5.1).
    """
    params, path = theta(meta), []
    for step in range(steps):
        on_query = in_turn and step % 2 == 1
        x, y = (task.query_x, task.query_y) if on_query else (task.support_x, task.support_y)
        rates = inner_rates(network, config, meta, step)
        path.append(
            inner_step(lambda p, x=x, y=y: loss_and_accuracy(network(p, x), y), params, rates, first_order)  # type: ignore[misc]
        )
        params = path[-1].params
    return path


def query_loss(network: Network, config: MethodConfig, params: Params, task: TaskBatch) -> tuple[Tensor, Tensor]:
    """Loss and accuracy of parameters on the query examples (line 10), with batch statistics as `config` has them."""
    return loss_and_accuracy(network.query(params, task.support_x, task.query_x, config.batch_norm), task.query_y)


def outer_loss(
    network: Network, config: MethodConfig, first_order: bool, meta: Params, weights: Tensor, task: TaskBatch
) -> tuple[Tensor, Tensor]:
    """The task's part of the meta-objective, L(f_theta') on its query examples, and its metrics `[4]`.

    With several weights other than the last, their losses after each gradient step count as well, weighted: MAML++'s
    multi-step loss, sum_k w_k L(f_theta_k) (Antoniou et al. 2019, equation 4).

    Args:
        network: The network.
        config: Settings.
        first_order: Whether to leave out the derivative of the inner update.
        meta: Meta-parameters.
        weights: Weight of the query loss after each gradient step, `[inner_steps]`; of one element for the last alone.
        task: Examples of the task.
    """
    path = adapt_task(network, config, meta, task, config.inner_steps, first_order)
    ends = [step.params for step in path] or [theta(meta)]
    judged = [query_loss(network, config, params, task) for params in ends[-len(weights) :]]
    total = (torch.stack([loss for loss, _ in judged]) * weights).sum()
    return total, _task_metrics(path, *judged[-1])


def displacement(network: Network, config: MethodConfig, meta: Params, task: TaskBatch) -> tuple[Params, Tensor]:
    """Reptile's meta-gradient of a task, theta - theta' (Nichol et al. 2018, section 5.1), and its metrics `[4]`.

    Frozen parameters have none.
    """
    with torch.no_grad():
        path = adapt_task(network, config, meta, task, config.inner_steps, first_order=True, in_turn=True)
        after = query_loss(network, config, path[-1].params, task)
        learned = split(meta, network.frozen)[1]
        difference = {name: value - path[-1].params[name] for name, value in learned.items()}
    return difference, _task_metrics(path, *after)


def _task_metrics(path: list[InnerStep], loss: Tensor, accuracy: Tensor) -> Tensor:
    """Loss and accuracy before and after adaptation.

    Before it, the support examples are as new to theta as the query examples are, and theirs come for nothing.
    """
    before = (path[0].loss, path[0].value) if path else (loss, accuracy)
    return torch.stack([*before, loss, accuracy]).detach()


ChunkGradient = Callable[[Params, Tensor, TaskBatch], tuple[Params, Tensor]]


def chunk_gradient(network: Network, config: MethodConfig, first_order: bool) -> ChunkGradient:
    """Meta-gradient and metrics of some tasks, each summed over them: a function of meta, weights and tasks.

    Frozen parameters have no gradient, and none of theirs is computed.
    """

    def differentiated(meta: Params, weights: Tensor, tasks: TaskBatch) -> tuple[Params, Tensor]:
        def summed(learned: Params) -> tuple[Tensor, Tensor]:
            def of_task(*examples: Tensor) -> tuple[Tensor, Tensor]:
                return outer_loss(network, config, first_order, meta | learned, weights, TaskBatch(*examples))

            losses, metrics = torch.func.vmap(of_task)(*tasks)
            return losses.sum(), metrics.sum(0)

        result: tuple[Params, Tensor] = torch.func.grad(summed, has_aux=True)(split(meta, network.frozen)[1])
        return result

    def displaced(meta: Params, _weights: Tensor, tasks: TaskBatch) -> tuple[Params, Tensor]:
        def of_task(*examples: Tensor) -> tuple[Params, Tensor]:
            return displacement(network, config, meta, TaskBatch(*examples))

        differences, metrics = torch.func.vmap(of_task)(*tasks)
        return {name: value.sum(0) for name, value in differences.items()}, metrics.sum(0)

    return displaced if config.algorithm == "reptile" else differentiated


def multi_step_weights(config: MethodConfig, iteration: int) -> Tensor:
    """Weights of the query losses after each gradient step, `[inner_steps]`, or the 1 of the last alone.

    They begin equal, 1 / N, and those before the last fall to 0 on a straight line over `multi_step_iterations`
    (Antoniou et al. 2019, section 4; their code stops at 3 % instead of 0).
    """
    steps = config.inner_steps
    if steps < 2 or iteration >= config.multi_step_iterations:
        return torch.ones(1)
    early = (1 - iteration / config.multi_step_iterations) / steps
    return torch.tensor([*[early] * (steps - 1), 1 - early * (steps - 1)])


MetaGradient = Callable[[State, TaskBatch, TaskThreads], tuple[Params, list[float]]]


def meta_gradient(network: Network, config: MethodConfig) -> MetaGradient:
    """Mean over the tasks of meta-gradient and metrics, a function of the state, the tasks and the threads.

    Tasks are differentiated `config.chunk_size` at a time, each chunk in a thread, and added in their order: memory
    does not grow with the meta-batch, and the result does not depend on the number of threads.
    """
    by_order = {first_order: recorded(chunk_gradient(network, config, first_order)) for first_order in (False, True)}

    def gradient(state: State, tasks: TaskBatch, threads: TaskThreads) -> tuple[Params, list[float]]:
        function = by_order[config.first_order or state.iteration < config.first_order_iterations]
        example = next(iter(split(state.meta, network.frozen)[1].values()))
        weights = multi_step_weights(config, state.iteration).to(example)
        count = len(tasks.support_x)
        parts = chunks(tasks, config.chunk_size or count)

        def work(part: TaskBatch) -> tuple[Params, Tensor]:
            result: tuple[Params, Tensor] = function(state.meta, weights, part)
            return result

        with torch.no_grad():
            results = map(work, parts) if len(parts) == 1 else threads.imap(work, parts)
            total, metrics = next(results)
            for further, further_metrics in results:
                total = {name: value + further[name] for name, value in total.items()}
                metrics = metrics + further_metrics
            return {name: value / count for name, value in total.items()}, (metrics / count).tolist()

    return gradient


@one_torch_thread()
def meta_iteration(
    gradient: MetaGradient, state: State, tasks: TaskBatch, config: MethodConfig, threads: TaskThreads
) -> Iteration:
    """One pass through the loop of Algorithm 2, for tasks T_i ~ p(T) that are given.

    Args:
        gradient: `meta_gradient` of network and settings.
        state: What the iterations before have reached.
        tasks: The meta-batch.
        config: Settings.
        threads: Threads that share the tasks.

    Raises:
        NonFiniteError: If the loss or the meta-gradient is not finite; names iteration and quantity.
    """
    state = State(laid_out(state.meta), Moments(*map(aligned, state.moments)), state.iteration)
    tasks = TaskBatch(*map(aligned, tasks))
    gradients, values = gradient(state, tasks, threads)  # lines 4 to 9
    learned = split(state.meta, gradients)[0]
    vector, flat = flatten(learned), flatten(gradients)
    loss_before, accuracy_before, loss_after, accuracy_after = values
    metrics = {"loss/before": loss_before, "loss/after": loss_after, "meta/gradient_norm": float(flat.norm())}
    if tasks.query_y.dtype == torch.int64:
        metrics |= {"accuracy/before": accuracy_before, "accuracy/after": accuracy_after}
    for name, value in metrics.items():
        if not math.isfinite(value):
            raise NonFiniteError(f"iteration {state.iteration + 1}: {name} is not finite")
    if config.gradient_clip is not None:
        flat = flat.clamp(-config.gradient_clip, config.gradient_clip)
    lr = cosine(config.outer_lr, config.cosine_iterations, state.iteration)
    moments, count = state.moments, state.iteration + 1
    if config.optimizer == "adam":  # line 10
        vector, moments = adam(vector, flat, moments, lr, count)
    else:
        vector = vector - lr * flat
    return Iteration(State(state.meta | unflatten(vector, learned), moments, count), metrics)
