"""`maml-rl presets`: lists ready-made settings."""

from collections.abc import Sequence

from maml_rl.errors import InputError
from maml_rl.experiments.presets import PRESETS


def run(arguments: Sequence[str]) -> None:
    """Lists the presets."""
    if arguments and arguments[0] in ("-h", "--help"):
        print("usage: maml-rl presets\n\nLists ready-made settings, their source, and what to expect.")
        return
    if arguments:
        raise InputError(f"presets takes no arguments, got {' '.join(arguments)}")
    for name, preset in PRESETS.items():
        print(f"{name}\n    task      {preset.task}\n    source    {preset.source}")
        print(f"    settings  {preset.settings()}\n    expected  {preset.expected}\n")
