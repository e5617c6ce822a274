"""PyTorch's layers as meta-learning needs them: differentiated twice, and mapped over tasks.

Most need no change. Some have a wrong second derivative under `torch.func.vmap`, or none at all: `plain_functions`
computes the same values in plain arithmetic. The rest are refused when the network is built (`check_layers`).
"""

import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.modules.instancenorm import _InstanceNorm
from torch.nn.modules.lazy import LazyModuleMixin
from torch.nn.utils.parametrizations import _SpectralNorm
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.overrides import TorchFunctionMode

from maml_rl.errors import InputError

_Function = Callable[..., Any]
_Hidden = tuple[Tensor, ...]

_RANDOM = "draws at random in every pass, so no two steps or tasks would see the same network"
_EVAL = "remove it, or call eval() on the module"
_INSTANCE_NORM = inspect.signature(functional.instance_norm)


def check_layers(module: nn.Module) -> None:
    """Checks that every layer of a module can be differentiated twice and mapped over tasks.

    Raises:
        InputError: If not; names the layer and says what to do.
    """
    for name, part in module.named_modules():
        for reason, advice in _faults(part):
            place = f"layer {name} ({type(part).__name__})" if name else type(part).__name__
            raise InputError(f"the network's {place} {reason}: {advice}")


def _faults(part: nn.Module) -> Iterator[tuple[str, str]]:
    """Why a layer cannot be used as it is, and what to do."""
    if isinstance(part, LazyModuleMixin) and part.has_uninitialized_params():
        yield "has no shape yet", "give the module an input once, then pass it on"
    if part.training:
        yield from _faults_in_training(part)
    if isinstance(part, (nn.FractionalMaxPool2d, nn.FractionalMaxPool3d)):
        yield _RANDOM, "use MaxPool or AdaptiveMaxPool"
    if isinstance(part, _InstanceNorm) and part.track_running_stats:
        yield "has running statistics, which training would change", "leave out track_running_stats"
    if isinstance(part, nn.Embedding):
        yield from _faults_of_embedding(part)
    if isinstance(part, nn.EmbeddingBag):
        yield "has no second derivative in PyTorch", "use Embedding, and sum or average what it returns"
    if isinstance(part, nn.CrossMapLRN2d):
        yield "has no second derivative in PyTorch", "use LocalResponseNorm"
    if isinstance(part, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
        yield "spreads the batch over devices, and tasks are shared among threads", "pass on what it wraps, its .module"


def _faults_in_training(part: nn.Module) -> Iterator[tuple[str, str]]:
    drops = isinstance(part, _DropoutNd) and part.p > 0
    drops |= isinstance(part, (nn.RNNBase, nn.MultiheadAttention)) and part.dropout > 0
    if drops:
        yield f"has dropout, which {_RANDOM}", _EVAL
    if isinstance(part, nn.RReLU):
        yield _RANDOM, "use LeakyReLU, or call eval() on the module"
    hooks = part._forward_pre_hooks.values()
    if isinstance(part, _SpectralNorm) or any(isinstance(hook, SpectralNorm) for hook in hooks):
        yield "has spectral normalisation, which changes its buffers in every pass", _EVAL


def _faults_of_embedding(part: nn.Embedding) -> Iterator[tuple[str, str]]:
    if part.max_norm is not None:
        yield "rescales its weights in every pass (max_norm)", "leave out max_norm"
    if part.scale_grad_by_freq:
        yield "has a gradient that is not its loss's (scale_grad_by_freq)", "leave out scale_grad_by_freq"


class plain_functions(TorchFunctionMode):  # noqa: N801, a context like torch.no_grad
    """Within it, in this thread, functions that cannot be differentiated twice under `vmap` are plain arithmetic."""

    def __torch_function__(self, func: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Calls a function of PyTorch, or its replacement."""
        return _PLAIN.get(func, func)(*args, **kwargs or {})


def _layer_norm(
    x: Tensor, shape: Sequence[int], weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Tensor:
    """PyTorch's has a wrong second derivative under `vmap` if each task has its own weights."""
    x = _standardised(x, list(range(-len(shape), 0)), eps)
    x = x if weight is None else x * weight
    return x if bias is None else x + bias


def _instance_norm(*args: Any, **settings: Any) -> Tensor:
    """As `_layer_norm`, over all dimensions but those of examples and channels."""
    given = _INSTANCE_NORM.bind(*args, **settings)
    given.apply_defaults()
    x, weight, bias = (given.arguments[name] for name in ("input", "weight", "bias"))
    if not given.arguments["use_input_stats"]:
        raise InputError("the network calls instance_norm with running statistics: leave them out")
    x, shape = _standardised(x, list(range(2, x.dim())), given.arguments["eps"]), [1, -1] + [1] * (x.dim() - 2)
    x = x if weight is None else x * weight.reshape(shape)
    return x if bias is None else x + bias.reshape(shape)


def _standardised(x: Tensor, dims: list[int], eps: float) -> Tensor:
    centred = x - x.mean(dims, keepdim=True)
    return centred * torch.rsqrt(centred.square().mean(dims, keepdim=True) + eps)


def _refused(name: str, instead: str) -> _Function:
    """A replacement that refuses a function with a wrong second derivative, and names one that is right."""

    def refuse(*_: Any, **__: Any) -> Any:
        raise InputError(f"the network calls {name}, whose second derivative is wrong: use {instead}")

    return refuse


def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    **settings: Any,
) -> Any:
    """The fused form has no second derivative."""
    if dropout_p > 0:
        raise InputError(f"the network calls scaled_dot_product_attention with dropout, which {_RANDOM}: {_EVAL}")
    plain = torch.ops.aten._scaled_dot_product_attention_math
    return plain(query, key, value, attn_mask, dropout_p, is_causal, **settings)[0]


def _multi_head_attention(*args: Any, **settings: Any) -> Any:
    """Plain arithmetic, even where the weights are requested too."""
    outputs, weights = functional.multi_head_attention_forward(*args, **settings | {"need_weights": True})
    return outputs, weights if settings.get("need_weights", True) else None


def _hardsigmoid(x: Tensor, inplace: bool = False) -> Tensor:  # noqa: ARG001
    return (x / 6 + 0.5).clamp(0, 1)


def _embedding(
    indices: Tensor,
    weight: Tensor,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,  # noqa: ARG001
    scale_grad_by_freq: bool = False,
    sparse: bool = False,  # noqa: ARG001
) -> Tensor:
    """PyTorch's has a wrong gradient under `vmap` with a padding index, and a sparse one cannot be mapped."""
    if max_norm is not None or scale_grad_by_freq:
        raise InputError("the network calls embedding with max_norm or scale_grad_by_freq: leave them out")
    rows = weight[indices]
    if padding_idx is None:
        return rows
    return torch.where((indices == padding_idx % len(weight))[..., None], rows.detach(), rows)


def _rrelu(
    x: Tensor,
    lower: float = 1 / 8,
    upper: float = 1 / 3,
    training: bool = False,
    inplace: bool = False,  # noqa: ARG001
) -> Tensor:
    """PyTorch's cannot be mapped."""
    if training:
        raise InputError(f"the network calls rrelu, which {_RANDOM}: {_EVAL}")
    return functional.leaky_relu(x, (lower + upper) / 2)


def _dropout(function: _Function) -> _Function:
    def refuse(x: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Any:  # noqa: ARG001
        if training and p > 0:
            raise InputError(f"the network calls {function.__name__}, which {_RANDOM}: {_EVAL}")
        return x

    return refuse


# Recurrent layers write into tensors that tasks share, which cannot be mapped, and cuDNN's have no second derivative.
# A step takes the contribution of the inputs to the gates, and the state.


def _elman(activation: Callable[[Tensor], Tensor]) -> _Function:
    def step(gates: Tensor, state: _Hidden, w_hh: Tensor, b_hh: Tensor | None, _w_hr: Tensor | None) -> _Hidden:
        return (activation(gates + functional.linear(state[0], w_hh, b_hh)),)

    return step


def _lstm(gates: Tensor, state: _Hidden, w_hh: Tensor, b_hh: Tensor | None, w_hr: Tensor | None) -> _Hidden:
    i, f, g, o = (gates + functional.linear(state[0], w_hh, b_hh)).chunk(4, -1)
    cell = torch.sigmoid(f) * state[1] + torch.sigmoid(i) * torch.tanh(g)
    hidden = torch.sigmoid(o) * torch.tanh(cell)
    return (hidden if w_hr is None else functional.linear(hidden, w_hr)), cell


def _gru(gates: Tensor, state: _Hidden, w_hh: Tensor, b_hh: Tensor | None, _w_hr: Tensor | None) -> _Hidden:
    (r, z, n), (hidden_r, hidden_z, hidden_n) = (
        both.chunk(3, -1) for both in (gates, functional.linear(state[0], w_hh, b_hh))
    )
    new = torch.tanh(n + torch.sigmoid(r + hidden_r) * hidden_n)
    share = torch.sigmoid(z + hidden_z)
    return ((1 - share) * new + share * state[0],)


def _cell(step: _Function) -> _Function:
    """One time step, with the arguments of PyTorch's cells."""

    def cell(x: Tensor, state: Any, w_ih: Tensor, w_hh: Tensor, b_ih: Any = None, b_hh: Any = None) -> Any:
        several = not isinstance(state, Tensor)
        new = step(functional.linear(x, w_ih, b_ih), tuple(state) if several else (state,), w_hh, b_hh, None)
        return new if several else new[0]

    return cell


def _layers(step: _Function) -> _Function:
    """All time steps of all layers, with the arguments of PyTorch's recurrent functions."""

    def layers(
        x: Tensor,
        start: Any,
        weights: Sequence[Tensor],
        has_biases: bool,
        num_layers: int,
        _dropout: float,
        _train: bool,
        bidirectional: bool,
        batch_first: bool = False,
    ) -> Any:
        if isinstance(start, Tensor) and not start.is_floating_point():
            raise InputError("the network packs sequences, which tasks cannot share: pad them instead")
        x = x.transpose(0, 1) if batch_first else x  # [T, B, inputs]
        states = (start,) if isinstance(start, Tensor) else start  # each [layers * directions, B, hidden]
        directions = 2 if bidirectional else 1
        size, ends = len(weights) // (num_layers * directions), []
        for layer in range(num_layers):
            outputs = []
            for direction in range(directions):
                k = layer * directions + direction
                w_ih, w_hh, *rest = weights[k * size : (k + 1) * size]
                b_ih, b_hh = rest[:2] if has_biases else (None, None)
                w_hr = rest[-1] if size % 2 else None  # of an LSTM with projections
                state, hidden = tuple(s[k] for s in states), []
                for gates in functional.linear(x, w_ih, b_ih).unbind(0)[:: -1 if direction else 1]:
                    state = step(gates, state, w_hh, b_hh, w_hr)
                    hidden.append(state[0])
                outputs.append(torch.stack(hidden[:: -1 if direction else 1]))
                ends.append(state)
            x = torch.cat(outputs, -1)
        return (x.transpose(0, 1) if batch_first else x, *(torch.stack(s) for s in zip(*ends, strict=True)))

    return layers


_STEPS = {"rnn_tanh": _elman(torch.tanh), "rnn_relu": _elman(torch.relu), "lstm": _lstm, "gru": _gru}
_DROPOUTS = ("dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout")
_BATCH_NORM = "the layer nn.BatchNorm1d, 2d or 3d, which is replaced"
_PLAIN: dict[Any, _Function] = {
    functional.layer_norm: _layer_norm,
    functional.instance_norm: _instance_norm,
    functional.batch_norm: _refused("torch.nn.functional.batch_norm", _BATCH_NORM),
    torch.batch_norm: _refused("torch.batch_norm", _BATCH_NORM),
    functional.scaled_dot_product_attention: _attention,
    functional.multi_head_attention_forward: _multi_head_attention,
    functional.hardsigmoid: _hardsigmoid,
    functional.embedding: _embedding,
    functional.rrelu: _rrelu,
    torch.layer_norm: _refused("torch.layer_norm", "torch.nn.functional.layer_norm"),
    torch.native_layer_norm: _refused("torch.native_layer_norm", "torch.nn.functional.layer_norm"),
    torch.embedding: _refused("torch.embedding", "torch.nn.functional.embedding"),
    **{getattr(functional, name): _dropout(getattr(functional, name)) for name in _DROPOUTS},
    **{getattr(torch, name): _layers(step) for name, step in _STEPS.items()},
    **{getattr(torch, f"{name}_cell"): _cell(step) for name, step in _STEPS.items()},
}
