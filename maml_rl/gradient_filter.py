"""A Wiener filter of the inner gradient: smaller steps where it is mostly noise.

A task's gradient g is the mean over its episodes; each of its elements is a signal s plus noise n. Stepping along w * g
with w = s^2 / (s^2 + n^2) has the least squared distance to stepping along s (Wiener 1949). The two halves of the
episodes have independent noise, so s^2 is the mean of g_1 * g_2 over tasks, and s^2 + n^2 is the mean of g^2. Both are
running means over iterations. They belong to the meta-parameters and change only between iterations.

The filter is scaled so that the step along the signal keeps its length, <w * s, s> = <s, s>: where all elements have
the same share of noise, it changes nothing.
"""

from collections.abc import Callable, Collection, Sequence

import torch
from torch import Tensor

from maml_rl.parallel import TaskThreads
from maml_rl.types import Batch, Params, flatten, split, unflatten

_SIGNAL, _POWER = "inner_signal.", "inner_power."
_DECAY = 0.95  # of the running means, which cover about 20 iterations
_LEAST = 0.05  # smallest gain before scaling, so that a new signal in an element can still be found


def initial_statistics(params: Params) -> Params:
    """Running means before the first iteration, all 0: then the filter does nothing."""
    return {kind + name: torch.zeros_like(value) for kind in (_SIGNAL, _POWER) for name, value in params.items()}


def is_statistic(name: str) -> bool:
    """Whether a meta-parameter is a running mean, which is measured and not learned."""
    return name.startswith((_SIGNAL, _POWER))


def gains(meta: Params, names: Collection[str]) -> Params:
    """Factor on the step size of each element of the parameters `names`.

    Args:
        meta: Meta-parameters, with the running means.
        names: Parameters that the inner update changes.
    """
    power = {name: meta[_POWER + name] for name in names}
    signal = flatten({name: meta[_SIGNAL + name] for name in names}).clamp(min=0.0)
    gain = _bounded(signal, flatten(power))
    total = signal.sum()
    scale = total / (signal @ gain) if total > 0 else torch.ones_like(total)
    return unflatten(scale * gain, power)


def _bounded(signal: Tensor, power: Tensor) -> Tensor:
    """Gains before scaling."""
    return (signal / power).nan_to_num(1.0).clamp(_LEAST, 1.0)  # 0 / 0 before anything was measured


def filter_metrics(meta: Params) -> dict[str, float]:
    """Metrics of the filter: the share of elements at the least gain, and the share of the signal in the mean power.

    Empty without a filter. The second share is over all elements together, and below 0 where no signal can be
    distinguished from noise.
    """
    names = [name.removeprefix(_POWER) for name in meta if name.startswith(_POWER)]
    if not names:
        return {}
    signal, power = (flatten({name: meta[kind + name] for name in names}) for kind in (_SIGNAL, _POWER))
    at_least = (_bounded(signal, power) <= _LEAST).float().mean()
    share = (signal.sum() / power.sum()).nan_to_num(0.0)  # where all gradients were 0
    return {"inner/filter_floor": float(at_least), "inner/signal_share": float(share)}


def with_measured(
    meta: Params, gradient: Callable[[Batch], Params], batches: Sequence[Batch], threads: TaskThreads
) -> Params:
    """The meta-parameters with running means that include the tasks of an iteration.

    Args:
        meta: Meta-parameters, with the running means so far.
        gradient: The inner gradient of a mean over steps, at the parameters that sampled them.
        batches: Steps of each task.
        threads: Threads that share the tasks.
    """
    statistics, rest = split(meta, [name for name in meta if is_statistic(name)])

    def of_task(batch: Batch) -> tuple[Tensor, Tensor]:
        first, second = (flatten(gradient(half)) for half in _halves(batch))
        return first * second, ((first + second) / 2).square()

    signal, power = (threads.mean(v) for v in zip(*threads.map(of_task, batches), strict=True))
    before = {kind: flatten({n: v for n, v in statistics.items() if n.startswith(kind)}) for kind in (_SIGNAL, _POWER)}
    if not before[_POWER].any():  # as if the gradients before had been without noise
        before = {_SIGNAL: power, _POWER: power}
    now = [_DECAY * before[kind] + (1 - _DECAY) * new for kind, new in ((_SIGNAL, signal), (_POWER, power))]
    return rest | unflatten(torch.cat(now), statistics)


def _halves(batch: Batch) -> tuple[Batch, Batch]:
    """The steps of every other episode, and those of the rest."""
    even = batch.episodes % 2 == 0
    first, second = (Batch(*(field[chosen] for field in batch)) for chosen in (even, ~even))
    return first, second
