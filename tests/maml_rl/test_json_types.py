"""Records: JSON objects are read as their declared types, or refused in one line that names the place."""

import json
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, NamedTuple, NotRequired, TypedDict

import pytest

from maml_rl.config import Adam, PolicyConfig, RLConfig, RLMeta, TrustRegion
from maml_rl.errors import InputError
from maml_rl.json_types import from_json, read_typed


class Point(NamedTuple):
    """A NamedTuple with a default."""

    x: float
    y: float = 0.5


@dataclass(frozen=True)
class Path:
    """A dataclass that refuses some values."""

    name: str
    kind: Literal["open", "closed"]
    points: tuple[Point, ...]
    ends: tuple[int, str] = (0, "a")
    closes: bool = False
    length: float | None = None
    parts: dict[str, list[int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.length is not None and self.length < 0:
            raise InputError(f"length must be at least 0, got {self.length}")


class Map(TypedDict):
    """A TypedDict, which leaves objects as they are."""

    paths: list[Path]
    scale: NotRequired[float]
    anything: Any


PATH = {"name": "a", "kind": "open", "points": [{"x": 1}, {"x": 2.5, "y": 3}]}
WHOLE = {**PATH, "ends": [3, "b"], "closes": True, "length": 1.5, "parts": {"a": [1, 2]}}
MAP = {"paths": [WHOLE], "scale": 2, "anything": [1, {"b": None}], "more": "kept"}


def test_a_record_has_the_declared_types() -> None:
    assert from_json(Path, PATH) == Path("a", "open", (Point(1), Point(2.5, 3)))
    whole = from_json(Path, WHOLE)
    assert whole == Path("a", "open", (Point(1), Point(2.5, 3)), (3, "b"), True, 1.5, {"a": [1, 2]})
    assert from_json(Path, json.loads(json.dumps(asdict(whole) | {"points": PATH["points"]}))) == whole
    assert from_json(Map, MAP) is MAP


def test_an_integer_is_a_number_and_stays_one() -> None:
    assert type(from_json(Point, {"x": 1}).x) is int
    read = from_json(RLConfig, {"env_id": "x", "meta": {"inner_lr": 1}, "network": {"observation_clip": None}})
    assert read == RLConfig(env_id="x", meta=RLMeta(inner_lr=1.0), network=PolicyConfig(observation_clip=None))


def test_the_first_kind_that_accepts_a_value_is_used() -> None:
    for step, kind in (({"rule": "adam", "lr": 0.1}, Adam), ({"rule": "trust-region"}, TrustRegion)):
        assert type(from_json(RLMeta, {"step": step}).step) is kind


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"name": 7}, "name should be text, is 7"),
        ({"name": None}, "name should be text, is None"),
        ({"ends": ["10", "b"]}, "ends[0] should be an integer, is '10'"),
        ({"ends": [1.5, "b"]}, "ends[0] should be an integer, is 1.5"),
        ({"ends": [True, "b"]}, "ends[0] should be an integer, is True"),
        ({"ends": [1]}, "ends should be 2 values, is [1]"),
        ({"closes": 1}, "closes should be true or false, is 1"),
        ({"length": True}, "length should be a number, is True"),
        ({"length": "x" * 100}, "length should be a number, is 'xxx"),
        ({"kind": "best"}, "kind should be one of open, closed, is 'best'"),
        ({"points": {}}, "points should be a list, is {}"),
        ({"points": [{"x": 1}, 8]}, "points[1] should be an object, is 8"),
        ({"points": [{"y": 1}]}, "points[0].x is missing"),
        ({"parts": [1]}, "parts should be an object, is [1]"),
        ({"parts": {"a": [1, "8"]}}, "parts.a[1] should be an integer, is '8'"),
        ({"other\n": 1}, r"'other\n' is unknown"),
    ],
)
def test_a_value_of_another_type_is_named(changes: dict[str, Any], expected: str) -> None:
    with pytest.raises(TypeError) as refused:
        from_json(Path, PATH | changes)
    assert str(refused.value).startswith(expected)
    assert len(str(refused.value)) < 150


def test_a_file_is_checked_and_its_damage_is_named(tmp_path, check_reader) -> None:
    path = tmp_path / "map.json"
    check_reader(path, MAP, lambda path: read_typed(path, Map))
    check_reader(path, [MAP, MAP], lambda path: read_typed(path, list[Map]), readable=[b"[]"])
    path.write_text(json.dumps(MAP | {"paths": [WHOLE, WHOLE | {"length": -1}]}))
    with pytest.raises(InputError) as refused:
        read_typed(path, Map, "draw it again")
    assert str(refused.value) == f"{path} is damaged (length must be at least 0, got -1): draw it again"
