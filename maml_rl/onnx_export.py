"""A policy as an ONNX model, for runtimes without Python."""

from types import ModuleType
from typing import Any

import numpy as np

from maml_rl.errors import InputError
from maml_rl.numpy_policy import NumpyPolicy

OPSET = 17
"""Version of ONNX's operators that a model asks for, if no other is given."""
_OLDEST = 13


def check_opset(opset: int) -> ModuleType:
    """The package onnx, if it is there and has this version of the operators.

    Raises:
        InputError: If not.
    """
    try:
        import onnx
    except ImportError:
        raise InputError(
            "exporting to ONNX needs the package onnx: pip install 'maml-rl[onnx]', or give another --out"
        ) from None
    newest = onnx.defs.onnx_opset_version()
    if not _OLDEST <= opset <= newest:
        raise InputError(f"opset must be from {_OLDEST} to {newest}, which the installed onnx has, got {opset}")
    module: ModuleType = onnx
    return module


def to_onnx(policy: NumpyPolicy, opset: int = OPSET) -> bytes:
    """An ONNX model of a policy, standardisation and bounds of actions included.

    Its input is `observation` `[batch, obs]`. Its outputs are `action`, the most likely one within the bounds, and what
    samples are made from: `mean` `[batch, act]` and `std` `[act]` of a normal distribution, or `logits` of choices. An
    action of several choices is `[batch, choices]`.

    Args:
        policy: The policy.
        opset: Version of ONNX's operators.

    Raises:
        InputError: If onnx is not installed, or does not have this version.
    """
    onnx = check_opset(opset)
    graph = _Graph(onnx)
    mean = graph.constant("observation_mean", policy.mean)
    std = graph.constant("observation_std", policy.std)
    value = graph.node("Div", [graph.node("Sub", ["observation", mean], "centred"), std], "scaled")
    if np.isfinite(policy.clip):
        bound = np.full_like(policy.mean, policy.clip)
        value = graph.bounded(value, -bound, bound, "standardised")
    last = len(policy.weights) - 1
    out = "logits" if policy.log_std is None else "mean"
    for i, (weight, bias) in enumerate(zip(policy.weights, policy.biases, strict=True)):
        layer = [value, graph.constant(f"weight_{i}", weight), graph.constant(f"bias_{i}", bias)]
        value = graph.node("Gemm", layer, out if i == last else f"layer_{i}", transB=1)
        if i < last:
            value = graph.node("Tanh" if policy.activation == "tanh" else "Relu", [value], f"hidden_{i}")
    if policy.log_std is None:
        first = graph.constant("first_choice", policy.low.astype(np.int64).reshape(-1 if policy.low.ndim else ()))
        graph.node("Add", [_best(graph, value, policy), first], "action")
    else:
        graph.bounded(value, policy.low.reshape(-1), policy.high.reshape(-1), "action")
        graph.node("Exp", [graph.constant("log_std", policy.log_std)], "std")
    return graph.model(_outputs(policy, onnx.TensorProto), len(policy.mean), opset)


def _outputs(policy: NumpyPolicy, kind: Any) -> dict[str, tuple[int, list[Any]]]:
    """Type and shape of each output."""
    sizes: list[Any] = ["batch", len(policy.biases[-1])]
    if policy.log_std is None:
        chosen = sizes[:1] + ([policy.low.size] if policy.low.ndim else [])
        return {"action": (kind.INT64, chosen), "logits": (kind.FLOAT, sizes)}
    return {"action": (kind.FLOAT, sizes), "mean": (kind.FLOAT, sizes), "std": (kind.FLOAT, sizes[1:])}


def _best(graph: "_Graph", logits: str, policy: NumpyPolicy) -> str:
    """The likeliest alternative of a choice `[batch]`, or of each of several `[batch, choices]`."""
    if not policy.low.ndim:
        return graph.node("ArgMax", [logits], "best", axis=-1, keepdims=0)
    names = [f"logits_{i}" for i in range(len(policy.choices))]
    graph.nodes("Split", [logits, graph.constant("choices", np.array(policy.choices))], names, axis=-1)
    each = [graph.node("ArgMax", [name], f"best_{name}", axis=-1, keepdims=1) for name in names]
    return graph.node("Concat", each, "best", axis=-1)


class _Graph:
    """Nodes and constants of a model while it is being built."""

    def __init__(self, onnx: ModuleType) -> None:
        self._onnx, self._nodes, self._constants = onnx, list[Any](), list[Any]()

    def constant(self, name: str, value: Any) -> str:
        """Adds an array."""
        self._constants.append(self._onnx.numpy_helper.from_array(np.asarray(value), name))
        return name

    def node(self, operator: str, inputs: list[str], output: str, **attributes: Any) -> str:
        """Adds an operation, and returns the name of its output."""
        self.nodes(operator, inputs, [output], **attributes)
        return output

    def nodes(self, operator: str, inputs: list[str], outputs: list[str], **attributes: Any) -> None:
        """Adds an operation with several outputs, of these names."""
        self._nodes.append(self._onnx.helper.make_node(operator, inputs, outputs, **attributes))

    def bounded(self, name: str, low: Any, high: Any, output: str) -> str:
        """Adds bounds of each number."""
        lowest, highest = self.constant(f"{output}_low", low), self.constant(f"{output}_high", high)
        return self.node("Min", [self.node("Max", [name, lowest], f"{output}_above"), highest], output)

    def model(self, outputs: dict[str, tuple[int, list[Any]]], observation_size: int, opset: int) -> bytes:
        """The checked model."""
        helper = self._onnx.helper
        shape = ["batch", observation_size]
        given = helper.make_tensor_value_info("observation", self._onnx.TensorProto.FLOAT, shape)
        made = [helper.make_tensor_value_info(name, *of_output) for name, of_output in outputs.items()]
        graph = helper.make_graph(self._nodes, "policy", [given], made, self._constants)
        imports = [helper.make_opsetid("", opset)]
        version = helper.find_min_ir_version_for(imports)
        model = helper.make_model(graph, producer_name="maml-rl", opset_imports=imports, ir_version=version)
        self._onnx.checker.check_model(model, full_check=True)
        content: bytes = model.SerializeToString()
        return content
