"""A network as a function of its parameters, as meta-learning needs it: any `nn.Module`, and the paper's by name."""

import copy
import threading
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from maml_rl.errors import InputError
from maml_rl.seeding import Draw, Phase, Purpose
from maml_rl.supervised.layers import check_layers, plain_functions
from maml_rl.supervised.models import MLP, FullyConnectedNet, PooledConvNet, StridedConvNet
from maml_rl.supervised.normalisation import is_batch_norm, own_tensors, with_task_statistics
from maml_rl.supervised.settings import NetworkConfig
from maml_rl.supervised.task_batches import TaskBatch
from maml_rl.types import Params, frozen_names


class Network:
    """An `nn.Module` applied to any parameters, also in several threads at once.

    Batch normalisation of any kind in it takes its statistics from the examples it is given (`TaskBatchNorm`), so
    running statistics, if it has any, are not used. The given module is not changed. Later changes to its attributes,
    including its training mode, have no effect, but changes to the contents of its buffers do.

    Attributes:
        module: The module.
        frozen: Names of the parameters that are frozen with `requires_grad_(False)`. No update changes them.
        trace: Whether meta-gradients are traced once and replayed (`maml_rl.supervised.tracing`), which is faster. The
            module's output must then depend only on parameters, buffers and inputs, by the same operations whatever
            their values. A replay that turns out to differ from the module raises a one-line error.
    """

    def __init__(self, module: nn.Module, trace: bool = False) -> None:
        """Wraps a module whose parameters are initialised.

        Raises:
            InputError: If it has no parameters, or only frozen ones, or a layer that cannot be differentiated twice and
                mapped over tasks (`check_layers`).
        """
        check_layers(module)
        if not list(module.parameters()):
            raise InputError("the network has no parameters to learn")
        self.frozen = frozen_names(module)
        self.module, self.trace = module, trace
        self._original = with_task_statistics(module)
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
                evaluated separately; every layer normalises support and query by the former's mean and variance.
        """
        if batch_norm == "transductive" or not self.has_batch_norm:
            return self(params, query_x)
        return self._apply(params, torch.cat([support_x, query_x]), len(support_x))[len(support_x) :]

    def parameters(self) -> Params:
        """The module's own parameters as values: theta at the start."""
        return {name: value.detach().clone() for name, value in self.module.named_parameters()}

    def names(self) -> list[str]:
        """Names of the module's parameters."""
        return [name for name, _ in self.module.named_parameters()]

    def constants(self) -> list[Tensor]:
        """Tensors other than parameters and inputs that outputs depend on: buffers, and other tensors of the module."""
        return [*self._original.buffers(), *own_tensors(self._original)]

    def last_layer(self) -> list[str]:
        """Names of the last layer's parameters: of the submodule defined last that has any and does not normalise."""
        own = [
            name
            for name, module in self.module.named_modules()
            if list(module.parameters(recurse=False)) and not is_batch_norm(module)
        ]
        return [name for name in self.names() if name.rpartition(".")[0] in own[-1:]]

    def norm_parameters(self) -> list[str]:
        """Names of batch normalisation's parameters, which the paper's code learns but does not adapt."""
        norms = {name for name, module in self.module.named_modules() if is_batch_norm(module)}
        return [name for name in self.names() if name.rpartition(".")[0] in norms]

    @property
    def has_batch_norm(self) -> bool:
        """Whether outputs depend on the other examples of the batch through batch normalisation."""
        return any(is_batch_norm(module) for module in self.module.modules())

    def to(self, device: torch.device) -> "Network":
        """The same network with parameters and buffers on a device."""
        return Network(copy.deepcopy(self.module).to(device), self.trace)

    def _apply(self, params: Params, x: Tensor, support_size: int | None) -> Tensor:
        """Outputs of a copy of the module that belongs to this thread.

        `functional_call` puts the parameters into the module while it runs, so threads must not share one.
        """
        copies: dict[int | None, nn.Module] = vars(self._threads).setdefault("copies", {})
        if support_size not in copies:
            copies[support_size] = with_task_statistics(self._original, support_size)
        with plain_functions():
            outputs: Tensor = torch.func.functional_call(copies[support_size], params, (x,))
        return outputs


def build_network(config: NetworkConfig, tasks: TaskBatch, ways: int | None, seed: int) -> Network:
    """The network for tasks of the shapes of `tasks`, with weights that are a function of the seed; it is traced.

    Args:
        config: Which network.
        tasks: Any tasks of the kind to be learned.
        ways: Number of classes; None for regression, whose targets say how many outputs there are.
        seed: Seed of the run.

    Raises:
        InputError: If the network cannot take such inputs.
    """
    generator = Draw(seed, Phase.INITIALISATION).generator(Purpose.PARAMS)
    outputs = int(tasks.support_y.shape[-1]) if ways is None else ways
    shape = tuple(tasks.support_x.shape[2:])
    return Network(_module(config, shape, outputs, generator), trace=True)


def _module(config: NetworkConfig, shape: tuple[int, ...], outputs: int, generator: np.random.Generator) -> nn.Module:
    inputs = int(np.prod(shape))
    if config.architecture == "mlp":
        return nn.Sequential(nn.Flatten(), MLP(inputs, config.units, outputs, generator, config.context_size))
    if config.architecture == "fully-connected":
        return FullyConnectedNet(inputs, config.units, outputs, generator)
    least = 16 if config.architecture == "pooled-conv" else 1
    if len(shape) != 3 or min(shape[1:]) < least:
        raise InputError(
            f"{config.architecture} takes images of channels x height x width, at least {least} x {least} pixels, "
            f"got inputs of shape {list(shape)}; give another architecture"
        )
    if config.architecture == "pooled-conv":
        return PooledConvNet(shape, outputs, generator, config.filters)
    return StridedConvNet(shape[0], outputs, generator, config.filters)
