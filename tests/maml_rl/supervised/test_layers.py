"""Every layer of `torch.nn`: the meta-gradient of a plain loop over tasks, or a refusal by name."""

import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import cross_entropy
from torch.nn.utils import parametrizations, prune

from maml_rl.errors import InputError
from maml_rl.parallel import TaskThreads
from maml_rl.supervised.meta_learning import chunk_sums, initial_state, meta_gradient, network_rates
from maml_rl.supervised.networks import Network
from maml_rl.supervised.settings import SupervisedMeta
from maml_rl.supervised.task_batches import TaskBatch
from maml_rl.types import Params, unflatten

CONFIG = SupervisedMeta(inner_steps=2, inner_lr=0.3)
Call = Callable[[Any, Tensor], Tensor]


def applied(layer: Any, x: Tensor) -> Tensor:
    return layer(x)


class Case(NamedTuple):
    """A layer between two linear ones."""

    name: str
    make: Callable[[], nn.Module]
    shape: tuple[int, ...]  # of an input of the layer, without the batch
    call: Call = applied
    reference: Callable[[], nn.Module] | None = None  # what the plain loop takes in its place
    evaluated: bool = False  # whether eval() is called


class Applied(nn.Module):
    """A layer as a function of one input."""

    def __init__(self, layer: nn.Module, call: Call) -> None:
        super().__init__()
        self.layer, self.call = layer, call

    def forward(self, x: Tensor) -> Tensor:
        return self.call(self.layer, x)


def first(layer: Any, x: Tensor) -> Tensor:
    return layer(x)[0]


def twice(layer: Any, x: Tensor) -> Tensor:
    return layer(x, x)


def halves(layer: Any, x: Tensor) -> Tensor:
    outputs = layer(x[:, :3], x[:, 3:])
    return outputs.reshape(len(x), -1)


def of_integers(layer: Any, x: Tensor) -> Tensor:
    return layer((x > 0).long())


def case(name: str, *arguments: Any, shape: tuple[int, ...], call: Call = applied, **settings: Any) -> Case:
    """A case by the layer's name; what distinguishes it from others of that layer follows after a space."""
    evaluated = settings.pop("evaluated", False)
    return Case(name, lambda: getattr(nn, name.split()[0])(*arguments, **settings), shape, call, evaluated=evaluated)


def spatial_cases(d: int) -> list[Case]:
    shape = {1: (2, 7), 2: (2, 4, 5), 3: (2, 4, 4, 3)}[d]
    pads = [f"{kind}Pad{d}d" for kind in ("Circular", "Reflection", "Replication", "Zero")]
    pools = [f"{kind}Pool{d}d" for kind in ("AdaptiveAvg", "AdaptiveMax", "Avg", "Max")]
    unpool = Case(
        f"MaxUnpool{d}d",
        lambda: nn.ModuleList(
            [getattr(nn, f"MaxPool{d}d")(2, return_indices=True), getattr(nn, f"MaxUnpool{d}d")(2)],
        ),
        (1, *[4] * d),
        lambda layers, x: layers[1](*layers[0](x)),
    )
    return [
        *[case(name, 1, shape=shape) for name in pads],
        *[case(name, 2, shape=shape) for name in pools],
        unpool,
        case(f"MaxPool{d}d ceil", 3, 2, 1, ceil_mode=True, shape=shape),
        case(f"LPPool{d}d", 2, 2, shape=shape),
        case(f"ConstantPad{d}d", 1, 0.5, shape=shape),
        case(f"Conv{d}d", 2, 3, 2, shape=shape),
        case(f"Conv{d}d grouped", 2, 4, 3, groups=2, padding=1, stride=2, shape=shape),
        case(f"Conv{d}d circular", 2, 2, 3, padding=1, padding_mode="circular", shape=shape),
        case(f"ConvTranspose{d}d", 2, 2, 3, stride=2, padding=1, output_padding=1, groups=2, shape=shape),
        case(f"BatchNorm{d}d", 2, shape=shape),
        case(f"InstanceNorm{d}d", 2, affine=True, shape=shape),
        case(f"InstanceNorm{d}d plain", 2, shape=shape),
        case(f"Dropout{d}d", shape=shape, evaluated=True),
    ]


ACTIVATIONS = (
    *(
        "CELU",
        "ELU",
        "GELU",
        "GLU",
        "Hardshrink",
        "Hardswish",
        "Hardtanh",
        "Identity",
        "LeakyReLU",
        "LogSigmoid",
        "Mish",
    ),
    *("PReLU", "ReLU", "ReLU6", "SELU", "SiLU", "Sigmoid", "Softplus", "Softshrink", "Softsign", "Tanh", "Tanhshrink"),
    "Flatten",
)
SEQUENCE = {"batch_first": True, "shape": (3, 2)}
TRANSFORMER = {"batch_first": True, "dropout": 0.0}


def encoder(**settings: Any) -> nn.Module:
    return nn.TransformerEncoderLayer(4, 2, 5, **TRANSFORMER | settings)


CASES = [
    *[case for d in (1, 2, 3) for case in spatial_cases(d)],
    *[case(name, shape=(6,)) for name in ACTIVATIONS],
    *[case(name, dim=-1, shape=(6,)) for name in ("Softmin", "Softmax", "LogSoftmax")],
    *[case(name, shape=(6,), evaluated=True) for name in ("Dropout", "AlphaDropout", "FeatureAlphaDropout", "RReLU")],
    Case("Hardsigmoid", nn.Hardsigmoid, (6,), reference=lambda: Applied(nn.ReLU6(), lambda f, x: f(x + 3) / 6)),
    case("ReLU in place", inplace=True, shape=(6,)),
    case("Threshold", 0.1, 0.2, shape=(6,)),
    case("Softmax2d", shape=(2, 2, 2)),
    case("Linear", 6, 3, shape=(6,)),
    case("LayerNorm", 6, shape=(2, 6)),
    case("LayerNorm plain", (2, 6), elementwise_affine=False, shape=(2, 6)),
    case("RMSNorm", 6, shape=(2, 6)),
    case("GroupNorm", 2, 4, shape=(4, 5)),
    case("SyncBatchNorm", 2, shape=(2, 5)),
    case("LocalResponseNorm", 2, shape=(3, 4)),
    case("Bilinear", 3, 3, 2, shape=(6,), call=halves),
    case("CosineSimilarity", shape=(6,), call=halves),
    case("PairwiseDistance", shape=(6,), call=halves),
    case("Embedding", 2, 3, shape=(4,), call=of_integers),
    case("Embedding padded", 2, 3, padding_idx=-2, shape=(4,), call=of_integers),
    Case("Embedding sparse", lambda: nn.Embedding(2, 3, sparse=True), (4,), of_integers, lambda: nn.Embedding(2, 3)),
    case("PixelShuffle", 2, shape=(4, 2, 2)),
    case("PixelUnshuffle", 2, shape=(1, 4, 4)),
    case("ChannelShuffle", 2, shape=(4, 2, 2)),
    case("Upsample", scale_factor=2, shape=(2, 3)),
    case("Upsample linear", scale_factor=2, mode="linear", shape=(2, 3)),
    case("Upsample bilinear", scale_factor=2, mode="bilinear", shape=(1, 3, 3)),
    case("Upsample bicubic", scale_factor=2, mode="bicubic", shape=(1, 3, 3)),
    case("Upsample trilinear", scale_factor=2, mode="trilinear", shape=(1, 2, 2, 2)),
    case("UpsamplingBilinear2d", scale_factor=2, shape=(1, 3, 3)),
    case("UpsamplingNearest2d", scale_factor=2, shape=(1, 3, 3)),
    case("Fold", (3, 3), 2, shape=(4, 4)),
    case("Unfold", 2, shape=(1, 4, 4)),
    case("Unflatten", 1, (2, 3), shape=(6,)),
    case("RNN", 2, 3, **SEQUENCE, call=first),
    case("RNN relu", 2, 3, nonlinearity="relu", **SEQUENCE, call=first),
    case("LSTM", 2, 3, 2, bidirectional=True, **SEQUENCE, call=first),
    case("LSTM projected", 2, 3, proj_size=2, bias=False, **SEQUENCE, call=first),
    case("LSTM states", 2, 3, shape=(3, 2), call=lambda layer, x: torch.cat(layer(x.transpose(0, 1))[1], -1)[0]),
    case("GRU", 2, 3, 2, bidirectional=True, **SEQUENCE, call=first),
    case("RNNCell", 3, 2, shape=(3,)),
    case("GRUCell", 3, 2, shape=(3,)),
    case("LSTMCell", 3, 2, shape=(3,), call=lambda layer, x: layer(x, layer(x))[1]),
    case("MultiheadAttention", 4, 2, batch_first=True, shape=(3, 4), call=lambda layer, x: layer(x, x, x)[0]),
    case(
        "MultiheadAttention fused",
        4,
        2,
        batch_first=True,
        shape=(3, 4),
        call=lambda layer, x: layer(x, x, x, need_weights=False)[0],
    ),
    case("TransformerEncoderLayer", 4, 2, 5, shape=(3, 4), **TRANSFORMER),
    Case("TransformerEncoderLayer eval", lambda: encoder(dropout=0.1), (3, 4), evaluated=True),
    case("TransformerDecoderLayer", 4, 2, 5, shape=(3, 4), call=twice, **TRANSFORMER),
    Case("TransformerEncoder", lambda: nn.TransformerEncoder(encoder(), 1), (3, 4)),
    Case(
        "TransformerDecoder",
        lambda: nn.TransformerDecoder(nn.TransformerDecoderLayer(4, 2, 5, **TRANSFORMER), 1),
        (3, 4),
        twice,
    ),
    case("Transformer", 4, 2, 1, 1, 5, shape=(3, 4), call=twice, **TRANSFORMER),
    case("AdaptiveLogSoftmaxWithLoss", 4, 5, [2], shape=(4,), call=lambda layer, x: layer.log_prob(x)),
    Case("weight norm", lambda: parametrizations.weight_norm(nn.Linear(4, 3)), (4,)),
    Case("orthogonal", lambda: parametrizations.orthogonal(nn.Linear(4, 3)), (4,)),
    Case("spectral norm", lambda: parametrizations.spectral_norm(nn.Linear(4, 3)), (4,), evaluated=True),
    Case("pruned", lambda: prune.l1_unstructured(nn.Linear(4, 3), "weight", amount=4), (4,)),
]
LAZY = [name for name in dir(nn) if name.startswith("Lazy")]
CONTAINERS = {"Module", "Sequential", "ModuleList", "ModuleDict", "ParameterList", "ParameterDict", "Container"}
BASES = {"RNNBase", "RNNCellBase"}
REFUSED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    **{name: (getattr(nn, name), "draws at random") for name in ("Dropout", "Dropout1d", "Dropout2d", "Dropout3d")},
    **{name: (getattr(nn, name), "draws at random") for name in ("AlphaDropout", "FeatureAlphaDropout", "RReLU")},
    "FractionalMaxPool2d": (lambda: nn.FractionalMaxPool2d(2, 2), "use MaxPool or AdaptiveMaxPool"),
    "FractionalMaxPool3d": (lambda: nn.FractionalMaxPool3d(2, 2), "use MaxPool or AdaptiveMaxPool"),
    "LSTM": (lambda: nn.LSTM(2, 3, 2, dropout=0.1), r"has dropout.*call eval\(\)"),
    "MultiheadAttention": (lambda: nn.MultiheadAttention(4, 2, dropout=0.1), r"has dropout.*call eval\(\)"),
    "Embedding": (lambda: nn.Embedding(2, 3, max_norm=1.0), "leave out max_norm"),
    "Embedding ": (lambda: nn.Embedding(2, 3, scale_grad_by_freq=True), "leave out scale_grad_by_freq"),
    "EmbeddingBag": (lambda: nn.EmbeddingBag(2, 3), "use Embedding"),
    "CrossMapLRN2d": (lambda: nn.CrossMapLRN2d(2), "use LocalResponseNorm"),
    "InstanceNorm2d": (lambda: nn.InstanceNorm2d(2, track_running_stats=True), "leave out track_running_stats"),
    "DataParallel": (lambda: nn.DataParallel(nn.Linear(2, 2)), "pass on what it wraps"),
    "_SpectralNorm": (lambda: parametrizations.spectral_norm(nn.Linear(2, 2)), "spectral normalisation"),
    **{name: (lambda name=name: getattr(nn, name)(2, 2), "has no shape yet") for name in LAZY if "Conv" in name},
    **{name: (getattr(nn, name), "has no shape yet") for name in LAZY if "Norm" in name},
    "LazyLinear": (lambda: nn.LazyLinear(2), "has no shape yet"),
}


def test_every_layer_of_torch_is_tried():
    layers = (
        {name for name, kind in vars(nn).items() if inspect.isclass(kind) and issubclass(kind, nn.Module)}
        - CONTAINERS
        - BASES
    )
    untried = layers - {case.name.split()[0] for case in CASES} - set(REFUSED)
    assert {name for name in untried if "Loss" not in name} == set()  # losses take targets and are not layers


def network_of(case: Case) -> tuple[nn.Module, nn.Module]:
    """The module with the layer, float64, and the one for the plain loop: the same parameters by the same names."""
    torch.manual_seed(0)
    modules = []
    for make in (case.make, case.reference or case.make):
        layer = Applied(make(), case.call)
        body = nn.Sequential(nn.Linear(3, math.prod(case.shape)), nn.Unflatten(1, case.shape), layer, nn.Flatten())
        body = body.double().train(not case.evaluated)
        size = body(torch.zeros(4, 3, dtype=torch.float64)).shape[1]
        modules.append(nn.Sequential(body, nn.Tanh(), nn.Linear(size, 2)).double().train(not case.evaluated))
    for parameter in modules[0].parameters():
        nn.init.normal_(parameter, std=0.5)
    modules[1].load_state_dict(modules[0].state_dict(), strict=False)
    return modules[0], modules[1]


def tasks() -> TaskBatch:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(2, 2, 4, 3, generator=generator, dtype=torch.float64)
    y = torch.tensor([[0, 1, 0, 1], [1, 1, 0, 0]])
    return TaskBatch(x[0], y, x[1], y.flip(1))


def plain_gradient(module: nn.Module, adapted: Sequence[str], batch: TaskBatch) -> Params:
    """The mean meta-gradient in the plainest way: one task after the other, by PyTorch's ordinary derivatives."""
    theta = {name: value.detach().clone().requires_grad_() for name, value in module.named_parameters()}
    losses = []
    for support_x, support_y, query_x, query_y in zip(*batch, strict=True):
        params = dict(theta)
        for _ in range(CONFIG.inner_steps):
            loss = cross_entropy(torch.func.functional_call(module, params, (support_x,)), support_y)
            gradients = torch.autograd.grad(
                loss, [params[name] for name in adapted], create_graph=True, allow_unused=True
            )
            steps = {name: g for name, g in zip(adapted, gradients, strict=True) if g is not None}
            params |= {name: params[name] - CONFIG.inner_lr * g for name, g in steps.items()}
        losses.append(cross_entropy(torch.func.functional_call(module, params, (query_x,)), query_y))
    outer = torch.autograd.grad(
        torch.stack(losses).mean(), list(theta.values()), allow_unused=True, materialize_grads=True
    )
    return dict(zip(theta, outer, strict=True))


@pytest.mark.filterwarnings("ignore:There is a performance drop")  # one operation mapped over tasks in turn
@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_a_layer_has_the_meta_gradient_of_a_plain_loop(case):
    module, reference = network_of(case)
    network, batch = Network(module), tasks()
    with torch.no_grad():
        sums = chunk_sums(network, CONFIG, False)(network.parameters(), torch.ones(1).double(), batch)
    found = unflatten(sums[:-4] / 2, network.parameters())
    with sdpa_kernel(SDPBackend.MATH):  # the fused form has no second derivative
        expected = plain_gradient(reference, network_rates(network, CONFIG).names, batch)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-8, atol=1e-12, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.filterwarnings("ignore:Lazy modules:UserWarning")
def test_a_layer_that_cannot_be_meta_learned_is_refused_by_name(name):
    make, message = REFUSED[name]
    with pytest.raises(InputError, match=message) as error:
        Network(nn.Sequential(nn.Linear(2, 2), nn.Sequential(make())))
    assert f"({name.strip()})" in str(error.value)
    assert "layer 1.0" in str(error.value)
    assert "\n" not in str(error.value)


class Written(nn.Module):
    """A user's module that calls functions where others have layers."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(2, 4))
        self.inputs, self.cell, self.head = nn.Linear(3, 4), nn.LSTM(4, 4, batch_first=True), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        rows = functional.embedding((x > 0).long(), self.table, padding_idx=0)
        rows = functional.layer_norm(rows + self.inputs(x)[:, None], (4,), self.table[0], self.table[1])
        rows = functional.scaled_dot_product_attention(rows, rows, rows, is_causal=True)
        return self.head(functional.hardsigmoid(self.cell(rows[:, :2])[0]).mean(1))


@pytest.mark.parametrize("trace", [False, True])
def test_functions_in_a_users_module_are_correct_even_when_traced(trace, monkeypatch):
    torch.manual_seed(0)
    module, batch = Written().double(), tasks()
    network = Network(module, trace)
    state = initial_state(network, CONFIG)
    found = meta_gradient(network, CONFIG)(state, batch, TaskThreads(1))[0]
    monkeypatch.setattr(functional, "hardsigmoid", lambda x: functional.relu6(x + 3) / 6)
    with sdpa_kernel(SDPBackend.MATH):
        expected = plain_gradient(module, list(state.meta), batch)
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-12)


def packed(_: nn.Module, x: Tensor) -> Tensor:
    sequences = nn.utils.rnn.pack_padded_sequence(x[..., None], torch.full((len(x),), 3), batch_first=True)
    return nn.functional.pad(nn.RNN(1, 1, batch_first=True)(sequences)[1][0], (0, 1))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda _, x: functional.dropout(x), r"calls dropout, which draws at random.*call eval\(\)"),
        (lambda _, x: functional.batch_norm(x, None, None, training=True), "use the layer nn.BatchNorm1d"),
        (lambda _, x: torch.batch_norm(x, None, None, None, None, True, 0.1, 1e-5, False), "layer nn.BatchNorm1d"),
        (lambda _, x: torch.layer_norm(x, (2,)), r"torch\.layer_norm, .*: use torch\.nn\.functional\.layer_norm"),
        (lambda _, x: torch.native_layer_norm(x, (2,), None, None, 1e-5)[0], r"use torch\.nn\.functional\.layer_norm"),
        (lambda _, x: torch.embedding(torch.ones(2, 2), x.long()), r"use torch\.nn\.functional\.embedding"),
        (lambda _, x: functional.rrelu(x, training=True), "calls rrelu, which draws at random"),
        (lambda _, x: functional.scaled_dot_product_attention(x, x, x, dropout_p=0.1), "with dropout, which draws"),
        (lambda _, x: functional.embedding(x.long(), torch.ones(2, 2), max_norm=1.0), "leave them out"),
        (packed, "pad them instead"),
    ],
)
def test_functions_that_cannot_be_meta_learned_are_refused_where_they_are_called(call, message):
    network = Network(nn.Sequential(Applied(nn.Linear(3, 2), call)))
    with pytest.raises(InputError, match=message):
        network(network.parameters(), torch.ones(4, 3))


# Ours normalises by the statistics of the batch even after eval().
WITHOUT_BATCH_NORM = [case for case in CASES if "BatchNorm" not in case.name]


@pytest.mark.parametrize("case", WITHOUT_BATCH_NORM, ids=[case.name for case in WITHOUT_BATCH_NORM])
def test_a_layer_has_pytorchs_values(case):
    module, _ = network_of(case)
    network, x = Network(module), tasks().support_x[0]
    torch.testing.assert_close(network(network.parameters(), x), module(x))
