"""Settings from a file instead of a preset's: `maml-rl train --config run.toml`, or a run's own config.json."""

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple

from maml_rl.config import RLConfig, RunConfig
from maml_rl.errors import InputError
from maml_rl.experiments.presets import CUSTOM, find_preset, with_rule
from maml_rl.json_types import from_json
from maml_rl.json_values import read_json, read_text
from maml_rl.supervised.settings import SupervisedConfig

_PRESET = "preset"
_REMEDY = "give a run's config.json, or a file in TOML"


class Given(NamedTuple):
    """What a file says."""

    preset: str  # whose settings it changes, and which names the run
    config: RunConfig


def read_settings(path: Path, preset: str | None) -> Given:
    """Settings from a file: a run's `config.json`, or TOML that changes some settings of a preset.

    Names are those of the options, with `_` for `-` and a table for the part before a dot. `preset` names the preset.

    Args:
        path: The file.
        preset: The preset that the command names, if any.

    Raises:
        InputError: If it cannot be read, or names an unknown setting.
        OSError: If there is none.
    """
    record = _read(path)
    named = record.pop(_PRESET, None)
    if named is not None and not isinstance(named, str):
        raise InputError(f'{path}: preset should be the name of a preset, such as preset = "navigation"')
    if preset and named and preset != named:
        raise InputError(f"{path} is for the preset {named}, and the command names {preset}: leave one of them out")
    name = preset or named
    if path.suffix == ".json" and not name:
        kind = RLConfig if "env_id" in record else SupervisedConfig
        return Given(CUSTOM, _made(path, kind, record))
    if not name and "env_id" not in record:
        raise InputError(f'{path} names neither a preset nor an environment: begin it with preset = "navigation"')
    base = find_preset(name or CUSTOM).config
    rule = record.get("meta", {}).get("step", {}).get("rule") if isinstance(record.get("meta"), dict) else None
    settings = asdict(with_rule(base, rule) if isinstance(rule, str) else base)
    unknown = next(_unknown(settings, record), None)
    if unknown:
        near = get_close_matches(unknown, list(_names(settings)), 1)
        meant = f"; perhaps you meant {near[0]}" if near else ""
        raise InputError(f"{path}: there is no setting {unknown}{meant} (options such as --out are for the command)")
    return Given(name or CUSTOM, _made(path, type(base), _merged(settings, record)))


def _read(path: Path) -> dict[str, Any]:
    if path.suffix == ".json":
        record = read_json(path, _REMEDY)
    else:
        try:
            record = tomllib.loads(read_text(path, _REMEDY))
        except (tomllib.TOMLDecodeError, RecursionError) as error:
            raise InputError(f"{path} is not TOML ({' '.join(str(error).split())}): {_REMEDY}") from error
    if not isinstance(record, dict):
        raise InputError(f"{path} should hold settings by name: {_REMEDY}")
    return record


def _made(path: Path, kind: type[Any], record: Mapping[str, Any]) -> RunConfig:
    try:
        config: RunConfig = from_json(kind, record)
    except TypeError as error:
        raise InputError(f"{path} holds a setting that this version of maml-rl does not know ({error})") from error
    except InputError as error:
        raise InputError(f"{path} holds an invalid setting: {error}") from error
    return config


def _merged(settings: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Settings updated with the given ones, also within nested parts."""
    return {
        name: _merged(value, given[name])
        if isinstance(value, dict) and isinstance(given.get(name), dict)
        else given.get(name, value)
        for name, value in settings.items()
    }


def _unknown(settings: Mapping[str, Any], given: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for name, value in given.items():
        if name not in settings:
            yield f"{prefix}{name}"[:80]
        elif isinstance(value, dict) and isinstance(settings[name], dict):
            yield from _unknown(settings[name], value, f"{prefix}{name}.")


def _names(settings: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for name, value in settings.items():
        yield prefix + name
        if isinstance(value, dict):
            yield from _names(value, f"{prefix}{name}.")
