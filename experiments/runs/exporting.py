"""Files that an adapted policy is written to: for Stable-Baselines3, for NumPy alone, and ONNX."""

import io
from pathlib import Path
from typing import Any

from gymnasium import spaces
from stable_baselines3 import PPO

from maml_rl.checkpoint import write_atomically
from maml_rl.errors import InputError
from maml_rl.numpy_policy import NumpyPolicy
from maml_rl.onnx_export import OPSET, check_opset, to_onnx

SB3, NUMPY, ONNX = ".zip", ".npz", ".onnx"
_KINDS = {SB3: "for Stable-Baselines3", NUMPY: "for NumPy alone", ONNX: "for ONNX runtimes"}


def check_new_file(path: Path, opset: int | None = None) -> None:
    """Checks that a policy can be written to a file.

    Args:
        path: The file.
        opset: Version of ONNX's operators, if one was given.

    Raises:
        InputError: If it exists already, its directory does not, or its suffix is unknown. Also if an ONNX model cannot
            be made, or `opset` was given for another kind of file.
    """
    if path.suffix not in _KINDS:
        kinds = ", ".join(f"{suffix} ({what})" for suffix, what in _KINDS.items())
        raise InputError(f"{path} must end in one of {kinds}")
    if path.exists():
        raise InputError(f"{path} exists: move it away, or give another name")
    if not path.parent.is_dir():
        raise InputError(f"there is no directory {path.parent}: make it, or give another name")
    if path.suffix == ONNX:
        check_opset(OPSET if opset is None else opset)
    elif opset is not None:
        raise InputError(f"--opset is for ONNX models, but {path} is not one: remove it, or give --out policy{ONNX}")


def save(path: Path, policy: NumpyPolicy, model: PPO | None, opset: int | None = None) -> None:
    """Writes a policy to a file; after a failure there is no file, never part of one.

    Args:
        path: The file, whose suffix decides its kind.
        policy: The policy.
        model: The same for Stable-Baselines3; None for other files.
        opset: Version of ONNX's operators; `OPSET` if None.

    Raises:
        InputError: If the path cannot be used; see `check_new_file`.
    """
    check_new_file(path, opset)
    if path.suffix == NUMPY:
        content = policy.to_bytes()
    elif path.suffix == ONNX:
        content = to_onnx(policy, OPSET if opset is None else opset)
    else:
        assert model is not None
        archive = io.BytesIO()
        model.save(archive)
        content = archive.getvalue()
    write_atomically(path, content)


def use_of(path: Path, observations: spaces.Space[Any]) -> str:
    """Code that acts with a saved policy.

    Args:
        path: Where it is saved.
        observations: Space of the environment's observations, which are flattened where they are not in a Box.
    """
    is_flat = isinstance(observations, spaces.Box)
    imports = "" if is_flat else "import gymnasium\n"
    observation = "observation" if is_flat else "gymnasium.spaces.flatten(env.observation_space, observation)"
    if path.suffix == SB3:
        return f"""\
from stable_baselines3 import PPO
action, _ = PPO.load({str(path)!r}).predict(observation, deterministic=True)"""
    if path.suffix == NUMPY:
        return f"""\
{imports}import maml_rl
policy = maml_rl.load_policy({str(path)!r})
action = policy.act({observation})"""
    return f"""\
{imports}import onnxruntime
session = onnxruntime.InferenceSession({str(path)!r})
row = {observation}.reshape(1, -1).astype("float32")
[action] = session.run(["action"], {{"observation": row}})"""
