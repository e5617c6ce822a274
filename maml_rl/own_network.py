"""The user's own network in a policy: `module:Class` with keyword arguments, imported by name and checked.

A checkpoint stores the name and the arguments, never code.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from maml_rl.config import PolicyConfig
from maml_rl.errors import InputError, place, reason
from maml_rl.imports import import_named
from maml_rl.module_policy import Seen
from maml_rl.observations import Parts
from maml_rl.supervised.layers import check_layers

_ROWS = 3  # observations that a network is tried with


def own_network(config: PolicyConfig, parts: Parts, seed: int) -> nn.Module:
    """The module that `config.module` names, for the parts of an observation, with weights as it draws them.

    It is called as `Class(shape, **arguments)`. `shape` is that of an observation as `forward` gets it, without the
    leading number of observations: `(channels, height, width)` for a picture. For an observation with several parts it
    is a dict of their shapes, and `forward` gets a dict of tensors. What the module draws is a function of the seed.

    Args:
        config: Settings, with a `module`.
        parts: Parts of an observation.
        seed: Seed of the weights.

    Raises:
        InputError: If it cannot be imported or made, is not a class of modules, or cannot be meta-trained.
    """
    assert config.module is not None
    made, shapes = import_named("network.module", config.module, "class"), _shapes(parts)
    if not (isinstance(made, type) and issubclass(made, nn.Module)):
        raise InputError(f"network.module {config.module!r} is not a torch.nn.Module class: name one as module:Class")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            module = made(shapes.get("", shapes), **json.loads(config.arguments))
        except Exception as error:  # the user's code may raise anything
            is_inside = error.__traceback__ is not None and error.__traceback__.tb_next is not None
            where = f"; {place(error)}" if is_inside else ""
            raise InputError(
                f"network.module {config.module!r} cannot be made ({reason(error)}{where}): it is called with the "
                f"shape {shapes.get('', shapes)} and the keyword arguments {config.arguments}"
            ) from error
    for fault in _faults(module):
        raise InputError(f"network.module {config.module!r} cannot be meta-trained: {fault}")
    return module


def _shapes(parts: Parts) -> dict[str, tuple[int, ...]]:
    """Shapes of the parts by name; raises InputError if a name does not tell its part from the others."""
    names = [part.name for part in parts]
    if len(set(names)) < len(names) or ("" in names and len(names) > 1):
        raise InputError(
            f"network.module gets the parts of an observation by name, but their names {names} are empty or not "
            "unique: rename the keys of the Dict space, without dots"
        )
    return {part.name: part.seen for part in parts}


def _faults(module: nn.Module) -> Iterator[str]:
    """Layers with which a policy cannot be meta-trained, and what to do."""
    for name, part in module.named_modules():
        layer = f"its layer {name} ({type(part).__name__})" if name else f"{type(part).__name__}"
        if isinstance(part, (nn.RNNBase, nn.RNNCellBase)):
            yield (
                f"{layer} is recurrent, and a policy here sees one observation at a time: use feedforward layers, or "
                "docs/rl2.md for policies with a memory"
            )
        if isinstance(part, _BatchNorm):
            yield (
                f"{layer} normalises by statistics that change with every batch: use nn.GroupNorm or nn.LayerNorm, "
                "which see one observation at a time"
            )
    if not list(module.parameters()):
        yield "it has no parameters to learn"
    try:
        check_layers(module)
    except InputError as error:
        yield str(error)


def feature_count(name: str, module: nn.Module, parts: Parts) -> int:
    """Number of features that a module returns, found by trying it on a few observations.

    Args:
        name: The module's name, for messages.
        module: The module.
        parts: Parts of an observation.

    Raises:
        InputError: If it fails, does not return one row of features for each observation, or a row depends on the other
            observations, on chance or on what the module has seen before.
    """
    generator = torch.Generator().manual_seed(0)
    drawn = {part.name: torch.rand((_ROWS, *part.seen), generator=generator) for part in parts}
    buffers = {buffer: value.clone() for buffer, value in module.named_buffers()}
    features = _tried(name, module, drawn)
    if not isinstance(features, Tensor) or features.dim() != 2 or len(features) != _ROWS or not features.shape[1]:
        found = f"shape {tuple(features.shape)}" if isinstance(features, Tensor) else type(features).__name__
        raise InputError(
            f"network.module {name!r} must return features of shape (N, features) for N observations, got {found} for "
            f"{_ROWS}: the policy adds the layer that turns features into actions"
        )
    if not features.requires_grad or not features.is_floating_point():
        raise InputError(f"network.module {name!r} returns features that do not depend on its parameters")
    alone = _tried(name, module, {part: values[:1] for part, values in drawn.items()})
    if not torch.equal(_tried(name, module, drawn), features) or not torch.allclose(alone[0], features[0], atol=1e-4):
        raise InputError(
            f"network.module {name!r} returns different features for the same observation when called again, or "
            "next to others: they must depend on the observation and the parameters alone"
        )
    if changed := [buffer for buffer, value in module.named_buffers() if not torch.equal(value, buffers[buffer])]:
        raise InputError(
            f"network.module {name!r} changes its buffer {changed[0]} when it is called: a policy keeps no state "
            "between observations, so remove it"
        )
    return features.shape[1]


def _tried(name: str, module: nn.Module, drawn: Mapping[str, Tensor]) -> Any:
    given: Seen = drawn.get("", drawn)
    try:
        return module(given)
    except Exception as error:  # the user's code may raise anything
        shapes = {part: tuple(values.shape) for part, values in drawn.items()}
        raise InputError(
            f"network.module {name!r} failed on observations of shape {shapes.get('', shapes)} ({reason(error)}; "
            f"{place(error)})"
        ) from error
