"""Where a run comes from: the command that trains it again, and the machines that trained it."""

import platform
import shlex
from dataclasses import asdict
from functools import cache
from importlib.metadata import version
from itertools import chain, starmap
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import torch

from maml_rl.checkpoint import write_json
from maml_rl.config import RunConfig
from maml_rl.errors import InputError
from maml_rl.experiments.presets import PRESETS, takes_rule, with_rule
from maml_rl.json_types import read_typed
from maml_rl.processes import available_cores
from maml_rl.ranks import this_rank

MACHINES = "machines.json"
_RULE = "meta.step.rule"


class Hardware(TypedDict):
    """What computed a run."""

    processor: str
    cores: int  # that this process might use
    accelerator: NotRequired[str]
    ranks: NotRequired[int]  # if there were several, whose rank 0 this is


class TrainingMachine(Hardware):
    """A machine that trained a run, with the versions that it had."""

    from_iteration: int
    python: str
    torch: str
    numpy: str
    gymnasium: str
    mujoco: str


def training_command(config: RunConfig) -> str:
    """The shortest `maml-rl train` command for these settings, from the preset that is closest to them."""
    settings = flat(asdict(config))

    def arguments(name: str, default: dict[str, Any]) -> list[str]:
        options = [_option(key, value) for key, value in settings.items() if value != default[key]]
        return [name, *chain.from_iterable(options)]

    presets = _presets_with(config.kind, config.meta.step.rule)
    return shlex.join(["maml-rl", "train", *min(starmap(arguments, presets.items()), key=len)])


@cache
def _presets_with(kind: str, rule: str) -> dict[str, dict[str, Any]]:
    """Settings of the presets of a kind of learning that can have a rule for the meta-step: theirs, and the rule's."""
    configs = {name: preset.config for name, preset in PRESETS.items() if preset.config.kind == kind}
    settings = {}
    for name, config in configs.items():
        if takes_rule(config, rule):
            own = flat(asdict(config))
            settings[name] = own | flat(asdict(with_rule(config, rule))) | {_RULE: own[_RULE]}
    return settings


def flat(record: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Settings by their whole name: `{"a": {"b": 1}}` as `{"a.b": 1}`."""
    settings: dict[str, Any] = {}
    for name, value in record.items():
        settings |= flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return settings


def _option(key: str, value: Any) -> list[str]:
    if key == _RULE:
        return ["--meta.step", value]
    path, _, name = key.replace("_", "-").rpartition(".")
    if isinstance(value, bool):
        return [f"--{path}{'.' if path else ''}{'' if value else 'no-'}{name}"]
    return [f"--{key.replace('_', '-')}", *map(str, value if isinstance(value, tuple) else [value])]


def check_same_settings(out: Path, there: RunConfig, given: RunConfig) -> None:
    """Checks that an existing run has the settings of a command, except for iterations and the place of its data.

    Args:
        out: Directory of the run.
        there: Its settings.
        given: Those of the command.

    Raises:
        InputError: If some differ; names them.
    """
    if there.kind != given.kind:
        raise InputError(f"{out} is not a run of {given.kind} learning: give another --out")
    ours, others = flat(asdict(there)), flat(asdict(given))
    different = [
        f"{_option(name, '')[0]} is {ours[name]} there and {others[name]} here"
        for name in ours  # other rules of the meta-step have other settings
        if name in others and ours[name] != others[name] and name not in ("iterations", "data")
    ]
    if different:
        raise InputError(f"{out} is another run: {'; '.join(different)}; give its settings, or another --out")


def machine(device: torch.device) -> dict[str, Any]:
    """What matters about this machine, or that of rank 0, for time and rounding."""
    description: dict[str, Any] = {"processor": _processor(), "cores": available_cores()}
    if device.type == "cuda":
        description["accelerator"] = torch.cuda.get_device_name(device)
    if this_rank().size > 1:
        description["ranks"] = this_rank().size
    versions = {name: version(name) for name in ("numpy", "gymnasium", "mujoco")}
    # PyTorch's own says which build it is, which the metadata of a package need not.
    return description | {"python": platform.python_version(), "torch": str(torch.__version__)} | versions


def note_machine(directory: Path, iteration: int, device: torch.device) -> None:
    """Adds this machine to those that trained a run, unless the last one is just like it.

    Args:
        directory: The run.
        iteration: Iterations finished before.
        device: Where policy and update are computed.
    """
    machines = trained_on(directory)
    here: Any = machine(device)
    if not machines or {**machines[-1], "from_iteration": None} != {**here, "from_iteration": None}:
        machines.append({"from_iteration": iteration} | here)
        write_json(directory / MACHINES, machines)


def trained_on(directory: Path) -> list[TrainingMachine]:
    """The machines that trained a run, in their order; empty if that was not noted.

    Raises:
        InputError: If the file is damaged.
    """
    path = directory / MACHINES
    machines: list[TrainingMachine] = read_typed(path, list[TrainingMachine], "remove it") if path.exists() else []
    return machines


def cores_text(machine: Hardware) -> str:
    """How many cores computed a run; of several ranks, those of rank 0."""
    cores = f"{machine['cores']} cores"
    return f"{machine['ranks']} ranks, {cores} for rank 0" if "ranks" in machine else cores


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
