"""A network as a function of its parameters, as meta-learning takes it."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from maml_rl.supervised.config import BatchNorm
from maml_rl.types import Params


@dataclass(frozen=True)
class Network:
    """An `nn.Module` applied to any parameters."""

    module: nn.Module

    def __call__(self, params: Params, x: Tensor) -> Tensor:
        return torch.func.functional_call(self.module, params, (x,))

    def query(self, params: Params, support_x: Tensor, query_x: Tensor, batch_norm: BatchNorm) -> Tensor:
        return self(params, query_x)

    def to(self, device):
        return Network(self.module.to(device))

    has_batch_norm = False

    def parameters(self) -> Params:
        return {name: value.detach().clone() for name, value in self.module.named_parameters()}

    def last_layer(self) -> list[str]:
        """Names of the last layer's parameters: of the last submodule that has any of its own."""
        own = [name for name, module in self.module.named_modules() if list(module.parameters(recurse=False))]
        return [name for name in self.parameters() if name.rpartition(".")[0] == own[-1]]


@dataclass(frozen=True)
class ModelConfig:
    architecture: str = "mlp"
    hidden_sizes: tuple[int, ...] = (40, 40)


def build_network(config, tasks, ways, seed):
    sizes = [tasks.support_x.shape[-1], *config.hidden_sizes, tasks.support_y.shape[-1]]
    layers = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for i, (a, b) in enumerate(zip(sizes[:-1], sizes[1:])):
            layers += [nn.Linear(a, b), nn.ReLU()]
    return Network(nn.Sequential(*layers[:-1]))
