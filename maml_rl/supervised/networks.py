"""A network as a function of its parameters, as meta-learning takes it: any `nn.Module`, and the paper's by name."""

import copy
import threading
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from maml_rl.errors import InputError
from maml_rl.seeding import Draw, Phase, Purpose
from maml_rl.supervised.layers import check_layers, plain_functions
from maml_rl.supervised.models import MLP, FullyConnectedNet, PooledConvNet, StridedConvNet
from maml_rl.supervised.normalisation import is_batch_norm, with_task_statistics
from maml_rl.supervised.tasks import TaskBatch
from maml_rl.types import Params, frozen_names

Architecture = Literal["mlp", "strided-conv", "pooled-conv", "fully-connected"]
PAPER_UNITS: dict[str, tuple[int, ...]] = {"mlp": (40, 40), "fully-connected": (256, 128, 64, 64)}  # A.1


class Network:
    """An `nn.Module` applied to any parameters, also in several threads at once.

    Batch normalisation of any kind in it takes its statistics from the examples it is given (`TaskBatchNorm`), so
    running statistics, if it has any, are not used. The module given is not changed. What it returns must depend on
    parameters, buffers and input alone: what Python decides in `forward` is decided once (`recorded`).

    Attributes:
        frozen: Names of the parameters that are frozen with `requires_grad_(False)`. No update changes them.
    """

    def __init__(self, module: nn.Module) -> None:
        """Of a module whose parameters are all there.

        Raises:
            InputError: If it has no parameters, or only frozen ones, or a layer that cannot be differentiated twice and
                mapped over tasks (`check_layers`).
        """
        check_layers(module)
        if not list(module.parameters()):
            raise InputError("the network has no parameters to learn")
        self.frozen = frozen_names(module)
        self.module = module
        self._threads = threading.local()

    def __call__(self, params: Params, x: Tensor) -> Tensor:
        """Outputs `[B, outputs]` of a batch `[B, ...]`, normalised by its own statistics."""
        return self._apply(params, x, None)

    def query(
        self, params: Params, support_x: Tensor, query_x: Tensor, batch_norm: Literal["transductive", "support"]
    ) -> Tensor:
        """Outputs `[Q, outputs]` for the query examples.

        Args:
            params: Parameters, as adapted.
            support_x: Support examples `[S, ...]`.
            query_x: Query examples `[Q, ...]`.
            batch_norm: Where the statistics of batch normalisation come from. "transductive": from the query examples
                together, as in the paper's code. "support": from the support examples, so that each query example is
                judged by itself; every layer normalises support and query by the former's mean and variance.
        """
        if batch_norm == "transductive" or not self.has_batch_norm:
            return self(params, query_x)
        return self._apply(params, torch.cat([support_x, query_x]), len(support_x))[len(support_x) :]

    def parameters(self) -> Params:
        """The module's own parameters as values: theta at the start."""
        return {name: value.detach().clone() for name, value in self.module.named_parameters()}

    def last_layer(self) -> list[str]:
        """Names of the last layer's parameters: of the submodule defined last that has any and does not normalise."""
        own = [
            name
            for name, module in self.module.named_modules()
            if list(module.parameters(recurse=False)) and not is_batch_norm(module)
        ]
        return [name for name in self.parameters() if name.rpartition(".")[0] in own[-1:]]

    def norm_parameters(self) -> list[str]:
        """Names of batch normalisation's parameters, which the paper's code learns but does not adapt."""
        norms = {name for name, module in self.module.named_modules() if is_batch_norm(module)}
        return [name for name in self.parameters() if name.rpartition(".")[0] in norms]

    @property
    def has_batch_norm(self) -> bool:
        """Whether outputs depend on the other examples of the batch through batch normalisation."""
        return any(is_batch_norm(module) for module in self.module.modules())

    def to(self, device: torch.device) -> "Network":
        """The same network with its buffers on a device."""
        return Network(copy.deepcopy(self.module).to(device))

    def _apply(self, params: Params, x: Tensor, support_size: int | None) -> Tensor:
        """Outputs of a copy of the module that belongs to this thread.

        `functional_call` puts the parameters into the module while it runs, so threads must not share one.
        """
        copies: dict[int | None, nn.Module] = vars(self._threads).setdefault("copies", {})
        if support_size not in copies:
            copies[support_size] = with_task_statistics(self.module, support_size)
        with plain_functions():
            outputs: Tensor = torch.func.functional_call(copies[support_size], params, (x,))
        return outputs


@dataclass(frozen=True)
class ModelConfig:
    """Which network of the paper, and its size."""

    architecture: Architecture = "mlp"
    """mlp (5.1, sinusoid); strided-conv or fully-connected (Omniglot); pooled-conv (MiniImagenet), all A.1."""
    hidden_sizes: tuple[int, ...] | None = None
    """Units of each hidden layer of mlp and fully-connected; the paper's, 40 40 and 256 128 64 64, if None."""
    filters: int = 64
    """Filters of each of the four convolutions (paper: 64 for Omniglot, 32 for MiniImagenet)."""

    def __post_init__(self) -> None:
        """Raises InputError for a layer without units."""
        if min((*self.units, self.filters)) < 1:
            raise InputError(f"every layer needs at least 1 unit, got {self.units} and {self.filters} filters")

    @property
    def units(self) -> tuple[int, ...]:
        """Units of each hidden layer that is not a convolution."""
        return PAPER_UNITS.get(self.architecture, ()) if self.hidden_sizes is None else self.hidden_sizes


def build_network(config: ModelConfig, tasks: TaskBatch, ways: int | None, seed: int) -> Network:
    """The network for tasks of the shapes of `tasks`, with weights that are a function of the seed.

    Args:
        config: Which network.
        tasks: Any tasks of the kind to be learned.
        ways: Number of classes; None for regression, whose targets say how many outputs there are.
        seed: Seed of the run.

    Raises:
        InputError: If the inputs are none that the network can take.
    """
    generator = Draw(seed, Phase.INITIALISATION).generator(Purpose.PARAMS)
    outputs = int(tasks.support_y.shape[-1]) if ways is None else ways
    shape = tuple(tasks.support_x.shape[2:])
    if config.architecture in ("mlp", "fully-connected"):
        inputs = int(np.prod(shape))
        if config.architecture == "mlp":
            return Network(nn.Sequential(nn.Flatten(), MLP(inputs, config.units, outputs, generator)))
        return Network(FullyConnectedNet(inputs, config.units, outputs, generator))
    least = 16 if config.architecture == "pooled-conv" else 1
    if len(shape) != 3 or min(shape[1:]) < least:
        raise InputError(
            f"{config.architecture} takes images of channels x height x width, at least {least} x {least} pixels, "
            f"got inputs of shape {list(shape)}; give another architecture"
        )
    if config.architecture == "pooled-conv":
        return Network(PooledConvNet(shape, outputs, generator, config.filters))
    return Network(StridedConvNet(shape[0], outputs, generator, config.filters))
