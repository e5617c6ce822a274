"""Algorithm 2 of Finn, Abbeel, Levine 2017: MAML for supervised learning, and its relatives.

FOMAML, ANIL, Meta-SGD and MAML++ are settings of the same inner update (`maml_rl.inner.inner_step`), as is the paper's
pretrained baseline (`inner_steps = 0`); Reptile shares it and has its own meta-gradient. The meta-learner LSTM shares
the meta-gradient and has an inner update of its own (`maml_rl.supervised.meta_lstm`).
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from maml_rl.errors import InputError, NonFiniteError
from maml_rl.inner import InnerStep, inner_step
from maml_rl.parallel import TaskThreads, mean_over_tasks, one_torch_thread
from maml_rl.rates import InnerRates, begun, context_names, fixed_names, inner_rates, rate_metrics, theta
from maml_rl.seeding import Draw, Phase, Purpose
from maml_rl.step import MetaGradient, initial_optimizer, meta_step
from maml_rl.supervised.meta_lstm import gate_metrics, initial_lstm, lstm_steps
from maml_rl.supervised.networks import Network
from maml_rl.supervised.settings import BatchNorm, SupervisedMeta
from maml_rl.supervised.task_batches import TaskBatch, chunks
from maml_rl.supervised.tracing import traced
from maml_rl.types import Params, State, aligned, flatten, laid_out, split, unflatten

_LSTM_INDEX = 1  # of the random numbers of the LSTM's weights; those of the network have 0
_METRICS = 4  # loss and accuracy before adaptation, and after it


def initial_state(network: Network, config: SupervisedMeta, seed: int = 0) -> State:
    """The state before the first iteration: the network's own parameters, and what is learned of the inner update.

    That is step sizes of `config.inner_lr`, or an LSTM, whose random weights are a function of the seed.

    Raises:
        InputError: If the inner update has no parameter to change.
    """
    params = begun(network.parameters(), config.adapted)
    meta = params | network_rates(network, config).initial(params)
    if config.algorithm == "meta-lstm":
        generator = Draw(seed, Phase.INITIALISATION).generator(Purpose.PARAMS, _LSTM_INDEX)
        like = next(iter(params.values()))
        meta |= {name: value.to(like) for name, value in initial_lstm(config.lstm, generator).items()}
    return State(meta, initial_optimizer(config.step, learned(network, config, meta)), 0)


def learned(network: Network, config: SupervisedMeta, meta: Params) -> Params:
    """The meta-parameters that a meta-step changes: neither frozen, nor a context that each task starts at 0.

    Raises:
        InputError: If there are none.
    """
    return split(meta, fixed_names(network.module, meta, config.adapted))[1]


def network_rates(network: Network, config: SupervisedMeta) -> InnerRates:
    """Step sizes of the parameters that the inner update changes, none of them frozen.

    Raises:
        InputError: If there are none.
    """
    names = [name for name in _adapted(network, config) if name not in network.frozen]
    if not names:
        raise InputError(
            f"the inner update (adapted = {config.adapted}) has nothing to change: there are no such parameters, or "
            "they are frozen, or of batch normalisation; call requires_grad_(True) on those to adapt, or set adapted "
            "to all"
        )
    return inner_rates(config, names)


def _adapted(network: Network, config: SupervisedMeta) -> list[str]:
    if config.adapted == "context":
        return context_names(network.names())
    if config.adapted == "last-layer":
        return network.last_layer()
    norms = network.norm_parameters() if config.algorithm == "maml" else []  # the others learn or change all of them
    return [name for name in network.names() if name not in norms]


def loss_and_accuracy(outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Mean loss over the examples, and the share that is classified correctly.

    Cross-entropy in nats where the targets are labels, else the squared error (paper, equations 2 and 3), which has no
    accuracy: 0 takes its place.
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
    rates: InnerRates,
    meta: Params,
    task: TaskBatch,
    steps: int,
    first_order: bool,
    in_turn: bool = False,
) -> list[InnerStep]:
    """Inner updates of one task (lines 5 and 6), one entry for each step, on the support examples.

    Reptile trains on support and query examples in turn (`in_turn`): it does not split a task's examples, and its
    analysis is for steps on different minibatches (Nichol et al. 2018, section 5.1).
    """
    params, taken = theta(meta), []
    for step in range(steps):
        on_query = in_turn and step % 2 == 1
        x, y = (task.query_x, task.query_y) if on_query else (task.support_x, task.support_y)
        taken.append(
            inner_step(
                lambda p, x=x, y=y: loss_and_accuracy(network(p, x), y),  # type: ignore[misc]
                params,
                rates.at(meta, step),
                first_order,
            )
        )
        params = taken[-1].params
    return taken


def adaptation_steps(
    network: Network, config: SupervisedMeta, meta: Params, task: TaskBatch, steps: int, first_order: bool
) -> list[InnerStep]:
    """Inner updates of one task as the settings define them: gradient steps (`adapt_task`), or those of the LSTM."""
    rates = network_rates(network, config)
    if config.algorithm != "meta-lstm":
        return adapt_task(network, rates, meta, task, steps, first_order)
    x, y = task.support_x, task.support_y
    return lstm_steps(lambda p: loss_and_accuracy(network(p, x), y), meta, rates.names, config.lstm, steps, len(x))


def query_loss(network: Network, batch_norm: BatchNorm, params: Params, task: TaskBatch) -> tuple[Tensor, Tensor]:
    """Loss and accuracy of parameters on the query examples (line 10)."""
    return loss_and_accuracy(network.query(params, task.support_x, task.query_x, batch_norm), task.query_y)


def outer_loss(
    network: Network, config: SupervisedMeta, first_order: bool, meta: Params, weights: Tensor, task: TaskBatch
) -> tuple[Tensor, Tensor]:
    """The task's part of the meta-objective, L(f_theta') on its query examples, and its metrics `[4]`.

    With several weights, the losses after all gradient steps count, each with its weight: MAML++'s multi-step loss,
    sum_k w_k L(f_theta_k) (Antoniou et al. 2019, equation 4).

    Args:
        network: The network.
        config: Settings.
        first_order: Whether to leave out the derivative of the inner update.
        meta: Meta-parameters.
        weights: Weight of the query loss after each gradient step, `[inner_steps]`; one element for the last step.
        task: Examples of the task.
    """
    steps = adaptation_steps(network, config, meta, task, config.inner_steps, first_order)
    adapted = [step.params for step in steps] or [theta(meta)]
    results = [query_loss(network, config.batch_norm, params, task) for params in adapted[-len(weights) :]]
    total = (torch.stack([loss for loss, _ in results]) * weights).sum()
    return total, _task_metrics(steps, *results[-1])


def displacement(network: Network, config: SupervisedMeta, meta: Params, task: TaskBatch) -> tuple[Params, Tensor]:
    """Reptile's meta-gradient of a task, theta - theta' (Nichol et al. 2018, section 5.1), and its metrics `[4]`.

    Frozen parameters have none.
    """
    with torch.no_grad():
        rates = network_rates(network, config)
        steps = adapt_task(network, rates, meta, task, config.inner_steps, first_order=True, in_turn=True)
        after = query_loss(network, config.batch_norm, steps[-1].params, task)
        changed = learned(network, config, meta)
        difference = {name: value - steps[-1].params[name] for name, value in changed.items()}
    return difference, _task_metrics(steps, *after)


def _task_metrics(steps: list[InnerStep], loss: Tensor, accuracy: Tensor) -> Tensor:
    """Loss and accuracy before and after adaptation, `[4]`.

    Those before are on the support examples. They are unbiased, since theta has not been trained on these either, and
    the first inner update has already computed them.
    """
    before = (steps[0].loss, steps[0].value) if steps else (loss, accuracy)
    return torch.stack([*before, loss, accuracy]).detach()


ChunkSums = Callable[[Params, Tensor, TaskBatch], Tensor]


def chunk_sums(network: Network, config: SupervisedMeta, first_order: bool) -> ChunkSums:
    """Meta-gradient and metrics of some tasks, each summed over them, in one vector `[P + 4]`.

    A function of meta-parameters, weights (as in `outer_loss`) and tasks. P counts the numbers of the meta-parameters
    that are learned, in their order; the gradient of others is not computed.
    """

    def differentiated(meta: Params, weights: Tensor, tasks: TaskBatch) -> Tensor:
        def summed(point: Params) -> tuple[Tensor, Tensor]:
            def of_task(*examples: Tensor) -> tuple[Tensor, Tensor]:
                return outer_loss(network, config, first_order, meta | point, weights, TaskBatch(*examples))

            losses, metrics = torch.func.vmap(of_task)(*tasks)
            return losses.sum(), metrics.sum(0)

        gradient, metrics = torch.func.grad(summed, has_aux=True)(learned(network, config, meta))
        return torch.cat([flatten(gradient), metrics])

    def displaced(meta: Params, _weights: Tensor, tasks: TaskBatch) -> Tensor:
        def of_task(*examples: Tensor) -> tuple[Params, Tensor]:
            return displacement(network, config, meta, TaskBatch(*examples))

        differences, metrics = torch.func.vmap(of_task)(*tasks)
        return torch.cat([flatten({name: value.sum(0) for name, value in differences.items()}), metrics.sum(0)])

    return displaced if config.algorithm == "reptile" else differentiated


def multi_step_weights(config: SupervisedMeta, iteration: int) -> Tensor:
    """Weights of the query losses after each gradient step, `[inner_steps]`, or the 1 of the last alone.

    They start equal, at 1 / N. Those before the last then fall linearly to 0 over `multi_step_iterations` (Antoniou et
    al. 2019, section 4; their code stops at 3 % instead of 0).
    """
    steps = config.inner_steps
    if steps < 2 or iteration >= config.multi_step_iterations:
        return torch.ones(1)
    early = (1 - iteration / config.multi_step_iterations) / steps
    return torch.tensor([*[early] * (steps - 1), 1 - early * (steps - 1)])


def import_compiler() -> None:
    """Lets `torch.func` import PyTorch's compiler now, before threads use it: in a thread, builds with Triton crash."""
    torch.func.grad(torch.square)(torch.zeros(()))


TasksGradient = Callable[[State, TaskBatch, TaskThreads], tuple[Params, Tensor]]


def meta_gradient(network: Network, config: SupervisedMeta) -> TasksGradient:
    """Mean over the tasks of meta-gradient and metrics `[4]`, a function of the state, the tasks and the threads.

    Tasks are differentiated `config.chunk_size` at a time, each chunk in a thread, and added in their order: memory
    does not grow with the meta-batch, and the result does not depend on the number of threads. The threads' share
    counts chunks.
    """
    import_compiler()
    by_order = {first_order: chunk_sums(network, config, first_order) for first_order in (False, True)}
    if network.trace:
        by_order = {order: traced(function, network.constants()) for order, function in by_order.items()}

    def gradient(state: State, tasks: TaskBatch, threads: TaskThreads) -> tuple[Params, Tensor]:
        sums = by_order[config.first_order or state.iteration < config.first_order_iterations]
        changed = learned(network, config, state.meta)
        weights = multi_step_weights(config, state.iteration).to(next(iter(changed.values())))
        count = len(tasks.support_x)
        parts: Sequence[TaskBatch] = chunks(tasks, config.chunk_size or count)
        parts = threads.share.of(parts) if threads.share else parts

        def work(part: TaskBatch) -> Tensor:
            with torch.no_grad():
                return sums(state.meta, weights, part)

        done = map(work, parts) if len(parts) == 1 else threads.imap(work, parts)
        means = mean_over_tasks(threads.gathered(done) if threads.share else done, count)
        return unflatten(means[:-_METRICS], changed), means[-_METRICS:]

    return gradient


@one_torch_thread()
def meta_iteration(
    gradient: TasksGradient, state: State, tasks: TaskBatch, config: SupervisedMeta, threads: TaskThreads
) -> tuple[State, dict[str, float]]:
    """One pass through the loop of Algorithm 2, for tasks T_i ~ p(T) that are given.

    Args:
        gradient: `meta_gradient` of network and settings.
        state: The state after the previous iterations.
        tasks: The meta-batch.
        config: Settings.
        threads: Threads that share the tasks.

    Returns:
        The state after it, and metrics by name (docs/metrics.md explains each).

    Raises:
        NonFiniteError: If the loss or the meta-gradient is not finite; names iteration and quantity.
        RankError: If another rank has ended or does not answer.
    """
    state = State(laid_out(state.meta), laid_out(state.optimizer), state.iteration)
    tasks = TaskBatch(*map(aligned, tasks))
    mean, of_tasks = gradient(state, tasks, threads)  # lines 4 to 9
    loss_before, accuracy_before, loss_after, accuracy_after = of_tasks.tolist()
    metrics = {"loss/before": loss_before, "loss/after": loss_after}
    try:
        for name, value in metrics.items():
            if not math.isfinite(value):
                raise NonFiniteError(f"{name} is not finite")
        state, of_step = meta_step(config.step, state, MetaGradient(gradient=mean, loss=of_tasks[2]))  # line 10
    except NonFiniteError as error:
        raise NonFiniteError(f"iteration {state.iteration + 1}: {error}") from error
    metrics |= of_step | rate_metrics(state.meta) | gate_metrics(state.meta)
    if tasks.query_y.dtype == torch.int64:
        metrics |= {"accuracy/before": accuracy_before, "accuracy/after": accuracy_after}
    return state, metrics
