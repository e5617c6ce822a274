"""Time of a supervised meta-iteration, next to other libraries: the sinusoid, and Omniglot's network on random images.

    python benchmarks/supervised.py

learn2learn, higher and TorchOpt are fetched from the package index into `.venv-peers`, once; they use this
environment's PyTorch, so that all have the same. All start from the same weights on the same tasks, so their
meta-losses must agree with those of a plain loop. They take turns, so other load on the machine affects all of them.
"""

import argparse
import importlib
import json
import statistics
import subprocess
import sys
import tarfile
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from maml_rl.parallel import TaskThreads
from maml_rl.processes import available_cores
from maml_rl.seeding import Phase
from maml_rl.supervised.meta_learning import initial_state, loss_and_accuracy, meta_gradient, meta_iteration
from maml_rl.supervised.networks import Network, build_network
from maml_rl.supervised.settings import NetworkConfig, SupervisedMeta
from maml_rl.supervised.task_batches import Sinusoid, TaskBatch
from maml_rl.types import State

PEERS = Path(".venv-peers")
Iterate = Callable[[], float]
"""One meta-iteration; returns its meta-loss."""


def fetch_peers() -> None:
    """Puts the other libraries into a separate directory, without their dependencies.

    Of learn2learn, it takes only the Python code of the source distribution. Its MAML needs no more, and the rest is an
    extension for data sets that has to be compiled.
    """
    if PEERS.exists():
        return
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run(
        [*pip, "install", "--no-deps", "--target", str(PEERS), "higher", "torchopt", "optree", "graphviz"], check=True
    )
    subprocess.run(
        [*pip, "download", "--no-deps", "--no-binary", "learn2learn", "--dest", str(PEERS), "learn2learn"], check=True
    )
    with tarfile.open(next(PEERS.glob("learn2learn-*.tar.gz"))) as archive:
        archive.extractall(PEERS, filter="data")


def learn2learn_maml() -> type[nn.Module]:
    """`learn2learn.algorithms.MAML`, without the parts of the package that need other packages."""
    root = next(path for path in PEERS.glob("learn2learn-*") if path.is_dir()) / "learn2learn"
    for name, path in (("learn2learn", root), ("learn2learn.algorithms", root / "algorithms")):
        package = types.ModuleType(name)
        package.__path__ = [str(path)]
        sys.modules[name] = package
    maml: type[nn.Module] = importlib.import_module("learn2learn.algorithms.maml").MAML
    return maml


def examples(tasks: TaskBatch, m: int) -> list[Tensor]:
    """Support x and y, query x and y of one task."""
    return [part[m] for part in tasks]


def loss(outputs: Tensor, targets: Tensor) -> Tensor:
    """The loss that all sides use."""
    return loss_and_accuracy(outputs, targets)[0]


def ours(network: Network, config: SupervisedMeta, tasks: TaskBatch, threads: TaskThreads) -> Iterate:
    """This package."""
    gradient = meta_gradient(network, config)
    states: list[State] = [initial_state(network, config)]

    def iterate() -> float:
        torch.set_num_threads(1)
        state, metrics = meta_iteration(gradient, states[0], tasks, config, threads)
        states[0] = state
        return metrics["loss/after"]

    return iterate


def with_adam(parameters: list[nn.Parameter], total_loss: Callable[[], Tensor], threads: int) -> Iterate:
    """A meta-iteration of the other libraries: the mean loss, its backward pass, and PyTorch's Adam."""
    optimizer = torch.optim.Adam(parameters, lr=1e-3)

    def iterate() -> float:
        torch.set_num_threads(threads)
        optimizer.zero_grad()
        value = total_loss()
        value.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return value.item()

    return iterate


def plain_loop(module: nn.Module, tasks: TaskBatch, inner_lr: float, threads: int) -> Iterate:
    """`torch.autograd.grad` and `functional_call`, task by task."""
    names, values = zip(*module.named_parameters(), strict=True)

    def total() -> Tensor:
        losses = []
        for m in range(len(tasks.support_x)):
            support_x, support_y, query_x, query_y = examples(tasks, m)
            inner = loss(module(support_x), support_y)
            gradients = torch.autograd.grad(inner, values, create_graph=True)
            adapted = {n: v - inner_lr * g for n, v, g in zip(names, values, gradients, strict=True)}
            losses.append(loss(torch.func.functional_call(module, adapted, (query_x,)), query_y))
        return torch.stack(losses).mean()

    return with_adam(list(module.parameters()), total, threads)


def with_learn2learn(module: nn.Module, tasks: TaskBatch, inner_lr: float, threads: int) -> Iterate:
    """learn2learn's MAML."""
    maml: Any = learn2learn_maml()(module, lr=inner_lr)

    def total() -> Tensor:
        losses = []
        for m in range(len(tasks.support_x)):
            support_x, support_y, query_x, query_y = examples(tasks, m)
            learner = maml.clone()
            learner.adapt(loss(learner(support_x), support_y))
            losses.append(loss(learner(query_x), query_y))
        return torch.stack(losses).mean()

    return with_adam(list(maml.parameters()), total, threads)


def with_higher(module: nn.Module, tasks: TaskBatch, inner_lr: float, threads: int) -> Iterate:
    """higher's differentiable optimiser."""
    higher = importlib.import_module("higher")
    inner = torch.optim.SGD(module.parameters(), lr=inner_lr)

    def total() -> Tensor:
        losses = []
        for m in range(len(tasks.support_x)):
            support_x, support_y, query_x, query_y = examples(tasks, m)
            with higher.innerloop_ctx(module, inner, copy_initial_weights=False) as (learner, optimizer):
                optimizer.step(loss(learner(support_x), support_y))
                losses.append(loss(learner(query_x), query_y))
        return torch.stack(losses).mean()

    return with_adam(list(module.parameters()), total, threads)


def with_torchopt(module: nn.Module, tasks: TaskBatch, inner_lr: float, threads: int) -> Iterate:
    """TorchOpt's differentiable optimiser."""
    torchopt = importlib.import_module("torchopt")
    inner = torchopt.MetaSGD(module, lr=inner_lr)

    def total() -> Tensor:
        start = torchopt.extract_state_dict(module, by="reference")
        start_inner = torchopt.extract_state_dict(inner, by="reference")
        losses = []
        for m in range(len(tasks.support_x)):
            support_x, support_y, query_x, query_y = examples(tasks, m)
            inner.step(loss(module(support_x), support_y))
            losses.append(loss(module(query_x), query_y))
            torchopt.recover_state_dict(module, start)
            torchopt.recover_state_dict(inner, start_inner)
        return torch.stack(losses).mean()

    return with_adam(list(module.parameters()), total, threads)


def plain_perceptron(network: Network) -> nn.Module:
    """The sinusoid's network made of PyTorch's layers, with the same weights."""
    module = nn.Sequential(nn.Linear(1, 40), nn.ReLU(), nn.Linear(40, 40), nn.ReLU(), nn.Linear(40, 1))
    for target, value in zip(module.parameters(), network.parameters().values(), strict=True):
        target.data.copy_(value)
    return module


class PlainConvolutions(nn.Module):
    """Omniglot's network made of PyTorch's layers, with the same weights.

    It leaves out the shift of batch normalisation, which begins with 0 and is not adapted: other libraries adapt all
    parameters.
    """

    def __init__(self, network: Network) -> None:
        super().__init__()
        own = network.parameters()
        self.weights = nn.ParameterList(
            own[f"weights.{i}"].reshape(3, 3, -1, 64).permute(3, 2, 0, 1).contiguous() for i in range(4)
        )
        self.norms = nn.ModuleList(
            nn.BatchNorm2d(64, affine=False, eps=1e-3, track_running_stats=False) for _ in range(4)
        )
        self.head = nn.Linear(64, 5)
        self.head.load_state_dict({name: own[f"head.{name}"] for name in ("weight", "bias")})

    def forward(self, x: Tensor) -> Tensor:
        """Logits `[B, 5]` of images `[B, 1, 28, 28]`."""
        for weight, norm in zip(self.weights, self.norms, strict=True):
            x = torch.relu(norm(nn.functional.conv2d(x, weight, stride=2, padding=1)))
        logits: Tensor = self.head(x.mean((2, 3)))
        return logits


def random_images(count: int) -> TaskBatch:
    """Tasks of Omniglot's form, 5-way 1-shot: time does not depend on what the images show."""
    generator = torch.Generator().manual_seed(0)
    x = (torch.rand(2, count, 5, 1, 28, 28, generator=generator) < 0.1).float()
    labels = torch.arange(5).repeat(count, 1)
    return TaskBatch(x[0], labels, x[1], labels)


def compare(
    network: Network,
    config: SupervisedMeta,
    tasks: TaskBatch,
    plain: Callable[[], nn.Module],
    rounds: int,
    threads: int,
) -> dict[str, dict[str, float]]:
    """Milliseconds of a meta-iteration, and the first meta-loss, by library."""
    entrants: dict[str, Iterate] = {
        "maml-rl": ours(network, config, tasks, TaskThreads(threads)),
        "plain loop": plain_loop(plain(), tasks, config.inner_lr, threads),
    }
    for name, make in (("learn2learn", with_learn2learn), ("higher", with_higher), ("TorchOpt", with_torchopt)):
        try:
            entrants[name] = make(plain(), tasks, config.inner_lr, threads)
        except (ImportError, AttributeError, RuntimeError) as error:
            print(f"{name} cannot be used here: {error}", file=sys.stderr)
    first = {name: iterate() for name, iterate in entrants.items()}
    for iterate in entrants.values():
        iterate()  # to warm up
    seconds: dict[str, list[float]] = {name: [] for name in entrants}
    for _ in range(rounds):
        for name, iterate in entrants.items():
            started = time.perf_counter()
            iterate()
            seconds[name].append(time.perf_counter() - started)
    return {name: {"ms": 1000 * statistics.median(seconds[name]), "loss": first[name]} for name in entrants}


def sinusoid(rounds: int, threads: int) -> dict[str, dict[str, float]]:
    """The paper's sinusoid: 25 tasks, 10-shot."""
    tasks = Sinusoid().batch(0, Phase.TRAINING, range(25))
    network = build_network(NetworkConfig("mlp"), tasks, None, 0)
    return compare(network, SupervisedMeta(), tasks, lambda: plain_perceptron(network), 10 * rounds, threads)


def few_shot(rounds: int, threads: int) -> dict[str, dict[str, float]]:
    """Omniglot's network on 32 tasks of its form, second order."""
    tasks = random_images(32)
    network = build_network(NetworkConfig("strided-conv"), tasks, 5, 0)
    config = SupervisedMeta(inner_lr=2.0, chunk_size=8)
    return compare(network, config, tasks, lambda: PlainConvolutions(network), rounds, threads)


def show(title: str, results: dict[str, dict[str, float]]) -> None:
    """Prints the results of a problem."""
    mine, reference = results["maml-rl"], results["plain loop"]
    print(f"\n{title}")
    for name, result in results.items():
        difference = abs(result["loss"] / reference["loss"] - 1)
        print(
            f"  {name:12} {result['ms']:8.2f} ms   {result['ms'] / mine['ms']:5.2f} x maml-rl   "
            f"meta-loss {result['loss']:.7f}, {difference:.1e} from the plain loop's",
            flush=True,
        )


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument(
        "--rounds", type=int, default=15, help="meta-iterations of Omniglot; the sinusoid has ten times as many (15)"
    )
    parser.add_argument("--threads", type=int, default=available_cores(), help="threads of each library (all cores)")
    arguments = parser.parse_args()
    fetch_peers()
    sys.path.append(str(PEERS))
    results = {}
    for title, problem in (("sinusoid, 25 tasks", sinusoid), ("Omniglot 5-way 1-shot, 32 tasks", few_shot)):
        results[title] = problem(arguments.rounds, arguments.threads)
        if not arguments.json:
            show(title, results[title])
    if arguments.json:
        print(json.dumps(results))


if __name__ == "__main__":
    main()
