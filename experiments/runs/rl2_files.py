"""Where a policy of RL^2 is stored: what must be known without the libraries that train it."""

from pathlib import Path

POLICY = "policy.safetensors"


def is_rl2(directory: Path) -> bool:
    """Whether a directory holds a policy of RL^2."""
    return (directory / POLICY).is_file()
