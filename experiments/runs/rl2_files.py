"""What RL^2 stores, as far as it can be read without the libraries that train it: policy and learning curve."""

from pathlib import Path

from maml_rl.json_values import read_json

POLICY = "policy.safetensors"
CURVE = "rl2.json"


def is_rl2(directory: Path) -> bool:
    """Whether a directory holds a policy of RL^2."""
    return (directory / POLICY).is_file()


def training_seconds(directory: Path) -> float:
    """How long its training took, with its evaluations; 0 if that was not noted."""
    path = directory / CURVE
    curve = read_json(path)["curve"] if path.is_file() else []
    return float(curve[-1].get("seconds", 0.0)) if curve else 0.0
