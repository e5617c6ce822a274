"""Supervised learning as a `Learner`: tasks, a network and Algorithm 2 of Finn, Abbeel, Levine 2017."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import get_args

import torch

from maml_rl.learner import THIS_RUN, Advance, Curve, Learner, Metrics, Validation, validated
from maml_rl.machine import THIS_MACHINE, Machine
from maml_rl.parallel import mean_over_tasks
from maml_rl.ranks import ALONE, Ranks, Share, this_rank
from maml_rl.seeding import Phase
from maml_rl.supervised.adaptation import StepLosses, losses_by_step, parts_of
from maml_rl.supervised.meta_learning import initial_state, meta_gradient, meta_iteration
from maml_rl.supervised.networks import Network, build_network
from maml_rl.supervised.settings import BatchNorm, SupervisedConfig, SupervisedEvaluation, SupervisedMeta
from maml_rl.supervised.sources import task_source, training_batches, with_shots
from maml_rl.supervised.task_batches import TaskBatch, TaskSource
from maml_rl.types import Params, State


class SupervisedLearner(Learner[SupervisedEvaluation]):
    """Meta-learns the initialisation of a network on supervised tasks.

    The states given to it may be on any device.

    Attributes:
        config: Settings of the run.
        source: The task distribution.
        network: The network, on the machine's device.
        threads: Threads that share the tasks.
    """

    def __init__(
        self,
        config: SupervisedConfig,
        source: TaskSource,
        machine: Machine = THIS_MACHINE,
        phase: Phase = Phase.TRAINING,
    ) -> None:
        """Builds the network that fits a task of `phase`; for images, this decodes that split.

        Raises:
            InputError: If the device or a setting cannot be used, or the network does not fit the tasks.
        """
        self.config, self.source = config, source
        self.threads, self._device = machine.task_threads(), machine.torch_device()
        ways = config.tasks.ways if config.tasks.is_classification else None
        network = build_network(config.network, source.batch(config.seed, phase, [0]), ways, config.seed)
        self.network: Network = network.to(self._device)
        self._names = list(self.initial().meta)
        self._gradient = meta_gradient(self.network, config.meta)
        self._batches = training_batches(source, config.seed, config.meta.meta_batch_size, 0)
        self._next: int | None = 0  # iteration of the next of `_batches`

    @property
    def constants(self) -> Params:
        """Buffers of the network; the paper's networks have none."""
        return dict(self.network.module.named_buffers())

    @property
    def advice(self) -> Sequence[str]:
        """None."""
        return ()

    def initial(self) -> State:
        """The network's own parameters, and what is learned of the inner update: step sizes, or an LSTM."""
        return initial_state(self.network, self.config.meta, self.config.seed)

    def iterate(self, state: State) -> tuple[State, Metrics]:
        """One pass through the loop of Algorithm 2, together with the other ranks if this process has joined some."""
        tasks = TaskBatch(*(examples.to(self._device) for examples in self._meta_batch(state.iteration)))
        state = state.to(self._device).ordered(self._names)
        threads = self.threads.sharing(chunk_share(self.config.meta))
        state, values = meta_iteration(self._gradient, state, tasks, self.config.meta, threads)
        return state, Metrics(values, {})

    def summary(self, values: Mapping[str, float]) -> str:
        """Accuracy, or the loss, before and after adaptation."""
        name, unit, scale = ("accuracy", " %", 100.0) if "accuracy/after" in values else ("loss", "", 1.0)
        before, after = (values[f"{name}/{when}"] * scale for when in ("before", "after"))
        return f"{name} {before:.3g}{unit} before, {after:.3g}{unit} after adaptation"

    def evaluate(self, state: State, config: SupervisedEvaluation, advance: Advance = lambda _: None) -> list[Curve]:
        """Loss and accuracy, or squared error, after each number of gradient steps, as in Figure 3 and Table 1.

        If this process has joined other ranks, they share the tasks, and all of them have to call this.

        There are curves for each number of shots and, for a network with batch normalisation, for both of its modes;
        those of training come first. A run that was trained without inner updates has no step size: then one is chosen
        on validation tasks, for each number of shots separately.

        Args:
            state: The state that training has reached.
            config: Settings of the evaluation.
            advance: Called with the share of the work that has been done since the last call.
        """
        all_shots, modes, ranks = self._shots(config), self._modes(), this_rank()
        chooses = self.config.meta.inner_steps == 0 and config.gradient_steps
        validation_tasks = len(config.inner_lrs) * config.validation_tasks if chooses else 0
        total = len(all_shots) * (len(modes) * config.tasks + validation_tasks) / ranks.size  # on this rank, about
        curves = []
        for shots in all_shots:
            meta, validation = self.with_step_size(state, config, shots, lambda count: advance(count / total), ranks)
            tasks = self.held_out(config, shots, config.tasks)
            is_fixed = meta.learned_lr == "no" and meta.algorithm != "meta-lstm"
            inner_lr = (meta.inner_lr,) * config.gradient_steps if is_fixed else ()
            for mode in modes:
                condition = f"{tasks.support_x.shape[1] if self._has_own_shots else shots}-shot"
                condition += f", {mode} BN" if mode else ""
                settings = replace(meta, batch_norm=mode or meta.batch_norm)
                found = self._losses(state, settings, tasks, config, lambda count: advance(count / total), ranks)
                values = {"squared error": found.losses}
                if self.config.tasks.is_classification:
                    values = {"accuracy": found.accuracies, "loss": found.losses}
                about = (inner_lr, condition, (), None, validation)
                curves += [Curve(THIS_RUN, quantity, of_tasks, *about) for quantity, of_tasks in values.items()]
        return curves

    def with_step_size(
        self,
        state: State,
        config: SupervisedEvaluation,
        shots: int,
        done: Callable[[int], object] = lambda _: None,
        ranks: Ranks = ALONE,
    ) -> tuple[SupervisedMeta, Validation | None]:
        """Settings with the step size to adapt with, and how it was chosen if training had none; see `validated`.

        A step size is scored by the mean loss over validation tasks and gradient steps, from the first on.

        Args:
            state: The state that training has reached.
            config: Settings of the evaluation, with the step sizes to choose from.
            shots: Support examples of a task, or of each class.
            done: Called with the number of tasks that have been adapted since its last call.
            ranks: Ranks that share the validation tasks; this process alone by default.
        """

        def mean_loss(meta: SupervisedMeta) -> float:
            tasks = self.held_out(config, shots, config.validation_tasks, Phase.VALIDATION)
            losses = self._losses(state, meta, tasks, config, done, ranks).losses[1:]  # [gradient steps, M]
            return float(mean_over_tasks(torch.from_numpy(losses.mean(0)).unbind()))

        return validated(self.config.meta, config, mean_loss, higher_is_better=False)

    def held_out(
        self, config: SupervisedEvaluation, shots: int, count: int, phase: Phase = Phase.EVALUATION
    ) -> TaskBatch:
        """The first held-out tasks of an evaluation, on the device.

        Args:
            config: Settings of the evaluation.
            shots: Support examples of a task, or of each class.
            count: How many tasks.
            phase: Those of the evaluation, or those to choose a step size with.
        """
        tasks = with_shots(self.source, shots, config.queries).batch(config.seed, phase, range(count))
        return TaskBatch(*(examples.to(self._device) for examples in tasks))

    def _losses(
        self,
        state: State,
        meta: SupervisedMeta,
        tasks: TaskBatch,
        config: SupervisedEvaluation,
        done: Callable[[int], object],
        ranks: Ranks,
    ) -> StepLosses:
        learned, steps = state.to(self._device).meta, config.gradient_steps
        share = Share(ranks, len(parts_of(tasks, meta))) if ranks.size > 1 else None
        return losses_by_step(self.network, meta, learned, tasks, steps, self.threads.sharing(share), done)

    @property
    def _has_own_shots(self) -> bool:
        """Whether the tasks themselves decide how many examples they have."""
        return self.config.tasks.family == "function"

    def _shots(self, config: SupervisedEvaluation) -> tuple[int, ...]:
        return (self.config.tasks.shots,) if self._has_own_shots else config.shots or (self.config.tasks.shots,)

    def _modes(self) -> list[BatchNorm | None]:
        """Modes of batch normalisation, that of training first; only None for a network without batch normalisation."""
        if not self.network.has_batch_norm:
            return [None]
        own = self.config.meta.batch_norm
        return [own, *(mode for mode in get_args(BatchNorm) if mode != own)]

    def _meta_batch(self, iteration: int) -> TaskBatch:
        """The tasks of an iteration, drawn together with those of the next ones; redrawn for any other iteration."""
        if iteration != self._next:
            size = self.config.meta.meta_batch_size
            self._batches = training_batches(self.source, self.config.seed, size, iteration)
        self._next = None  # an error ends the iterator
        batch = next(self._batches)
        self._next = iteration + 1
        return batch


def chunk_share(meta: SupervisedMeta) -> Share | None:
    """This rank's share of the chunks of a meta-iteration; None where it is all of them.

    Ranks share chunks, not tasks, since tasks that are differentiated together round together.

    Raises:
        InputError: If there are more ranks than chunks.
    """
    ranks, count = this_rank(), meta.meta_batch_size
    size = meta.chunk_size or count
    chunk_count = -(-count // size)
    what = f"a meta-iteration of {chunk_count} chunk{'' if chunk_count == 1 else 's'} ({count} tasks, {size} at once)"
    advice = f"set meta.meta_batch_size to at least {ranks.size}"
    if count >= ranks.size:
        advice = f"set meta.chunk_size to at most {count // ranks.size}, which changes how sums are rounded"
    return ranks.share(chunk_count, what, advice)


def open_supervised(
    config: SupervisedConfig, machine: Machine = THIS_MACHINE, for_training: bool = True
) -> SupervisedLearner:
    """A learner of the tasks that the settings name.

    Args:
        config: Settings of the run.
        machine: Machine resources to use.
        for_training: Whether the shapes of examples come from tasks to train on; otherwise, from held-out ones.

    Raises:
        InputError: If data, device or a setting cannot be used, or, for training, there are more ranks than chunks.
    """
    machine.torch_device()  # before the data are read
    if for_training:
        chunk_share(config.meta)
    source = task_source(config.tasks, config.data)
    return SupervisedLearner(config, source, machine, Phase.TRAINING if for_training else Phase.EVALUATION)
