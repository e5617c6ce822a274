"""Dynamics as tasks: what a task changes in a robot, and the MuJoCo model of each task.

A `Variation` is a row of a table: a quantity, the elements of the model that have it, and the numbers that it may have.
`QUANTITIES` lists what can vary. Sizes of arrays, kinds of elements and shapes cannot: MuJoCo fixes them when it
compiles a model, together with what contact detection derives from the shapes.
"""

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from functools import lru_cache, partial
from numbers import Real
from typing import Any, Literal, NamedTuple

import gymnasium
import mujoco
import numpy as np
from gymnasium.spaces import Box, Dict, Discrete
from numpy.typing import NDArray

from maml_rl.envs.batched import Array, stacked_tasks

_ONE_DOF = (mujoco.mjtJoint.mjJNT_HINGE.value, mujoco.mjtJoint.mjJNT_SLIDE.value)
_KEPT_MODELS = 256  # about half a MB each
_OFFSETS = ("joint offset", "sensor offset")


class Variation(NamedTuple):
    """A part of a task: a quantity of the robot, and the range that its numbers are drawn from, uniformly.

    The distribution over tasks is `Box(low, high, (1,))` for numbers `"shared"`, `Box(low, high, (k,))` for `"each"` of
    k elements. With `"one"` the task chooses one element, and the others stay as they are: `Discrete(k)` if low = high,
    else a `Dict` of that choice and the number, such as `Dict(actuator=Discrete(6), factor=Box(0, 1, (1,)))`. A delay
    is `Discrete(high - low + 1, start=low)`.
    """

    quantity: str  # a key of `QUANTITIES`
    low: float
    high: float
    of: str | Sequence[str] = ()  # names of the elements; if empty, all that have the quantity
    by: Literal["value", "factor", "change"] = "value"  # what the number is: the value, or what changes the model's own
    numbers: Literal["shared", "each", "one"] = "shared"  # one for all elements, one for each, or for one of them


class PhysicalQuantity(NamedTuple):
    """What can vary, in the elements of one kind."""

    element: Literal["body", "joint", "geom", "actuator", "sensor", "world"]
    unit: str
    least: float  # smallest value that makes sense
    read: Callable[[mujoco.MjModel, NDArray[np.int64]], Array] | None = None  # of the elements `[k]`, values `[k]`
    write: Callable[[mujoco.MjModel, NDArray[np.int64], Array], None] | None = None


def _field(element: Any, unit: str, name: str, column: int | None = None, least: float = 0.0) -> PhysicalQuantity:
    """A field of the model, or a column of one; of joints it is found by their only degree of freedom."""

    def places(model: mujoco.MjModel, ids: NDArray[np.int64]) -> Any:
        rows = model.jnt_dofadr[ids] if name.startswith("dof_") else ids
        return rows if column is None else (rows, column)

    def read(model: mujoco.MjModel, ids: NDArray[np.int64]) -> Array:
        return np.array(getattr(model, name)[places(model, ids)], np.float64)

    def write(model: mujoco.MjModel, ids: NDArray[np.int64], values: Array) -> None:
        getattr(model, name)[places(model, ids)] = values

    return PhysicalQuantity(element, unit, least, read, write)


def _write_mass(model: mujoco.MjModel, bodies: NDArray[np.int64], masses: Array) -> None:
    """Moments of inertia change in proportion; a body without mass becomes a point mass."""
    before = model.body_mass[bodies]
    model.body_inertia[bodies] *= np.divide(masses, before, out=np.ones_like(before), where=before > 0)[:, None]
    model.body_mass[bodies] = masses


def _read_gravity(model: mujoco.MjModel, _ids: NDArray[np.int64]) -> Array:
    return np.array([np.linalg.norm(model.opt.gravity)])


def _write_gravity(model: mujoco.MjModel, ids: NDArray[np.int64], values: Array) -> None:
    model.opt.gravity *= values / _read_gravity(model, ids)


def _read_slope(_model: mujoco.MjModel, _ids: NDArray[np.int64]) -> Array:
    return np.zeros(1)  # of the ground as the model has it


def _write_slope(model: mujoco.MjModel, _ids: NDArray[np.int64], values: Array) -> None:
    """Gravity in the frame of ground that rises in x: rotated about y."""
    (x, y, z), cos, sin = model.opt.gravity.copy(), np.cos(values[0]), np.sin(values[0])
    model.opt.gravity[:] = [cos * x + sin * z, y, cos * z - sin * x]


QUANTITIES: dict[str, PhysicalQuantity] = {
    "mass": _field("body", "kg", "body_mass")._replace(write=_write_mass),
    "position x": _field("body", "m", "body_pos", 0, -np.inf),
    "position y": _field("body", "m", "body_pos", 1, -np.inf),
    "position z": _field("body", "m", "body_pos", 2, -np.inf),
    "friction": _field("geom", "", "geom_friction", 0),
    "torsional friction": _field("geom", "m", "geom_friction", 1),
    "rolling friction": _field("geom", "m", "geom_friction", 2),
    "gear": _field("actuator", "", "actuator_gear", 0, -np.inf),
    "damping": _field("joint", "N m s/rad or N s/m", "dof_damping"),
    "stiffness": _field("joint", "N m/rad or N/m", "jnt_stiffness"),
    "armature": _field("joint", "kg m^2 or kg", "dof_armature"),
    "friction loss": _field("joint", "N m or N", "dof_frictionloss"),
    "gravity": PhysicalQuantity("world", "m/s^2", 0.0, _read_gravity, _write_gravity),
    "slope": PhysicalQuantity("world", "rad", -np.inf, _read_slope, _write_slope),
    # These leave the model as it is: a control takes effect so many control steps late, a sensor reads too much.
    "delay": PhysicalQuantity("world", "control steps", 0.0),
    "joint offset": PhysicalQuantity("joint", "rad or m", -np.inf),
    "sensor offset": PhysicalQuantity("sensor", "the sensor's unit", -np.inf),
}
"""What can vary between tasks.

`mass` scales the moments of inertia in proportion. `position` is that of a body in its parent, before any joint moves
it. `friction` is the sliding coefficient; in a contact MuJoCo takes the larger one of the two geometries. `gear` is the
force or torque of a motor at control 1. `gravity` is its magnitude. `slope` is the pitch of the ground, positive where
it rises in x, seen in the frame of the ground: gravity is tilted, so heights and pitch are relative to the ground.
"""


class _Part(NamedTuple):
    """A variation, and the elements of the model that it changes."""

    variation: Variation
    quantity: PhysicalQuantity
    ids: NDArray[np.int64]  # [k]
    names: list[str]  # [k]
    space: gymnasium.Space[Any]

    def numbers(self, task: Any) -> tuple[slice | NDArray[np.int64], Array]:
        """Which of the elements a row of tasks changes, and its number for each of them."""
        if isinstance(self.space, Discrete):
            return np.array([task], np.int64), np.array([self.variation.low])
        if isinstance(self.space, Dict):
            return np.array([task[self.quantity.element]], np.int64), np.asarray(task[self.variation.by], np.float64)
        return slice(None), np.broadcast_to(np.asarray(task, np.float64), self.ids.shape)

    def change(self, model: mujoco.MjModel, task: Any) -> None:
        """Changes a model as a row of tasks says."""
        assert self.quantity.read is not None
        assert self.quantity.write is not None
        which, numbers = self.numbers(task)
        ids = self.ids[which]
        values = _changed(self.variation.by, self.quantity.read(model, ids), numbers)
        if values.min() < self.quantity.least:  # of a task beyond the bounds, which were checked
            raise ValueError(
                f"{self.variation.quantity} must be at least {self.quantity.least:g}, got {values.min():g}"
            )
        self.quantity.write(model, ids, values)


def _changed(by: str, values: Array, numbers: Array) -> Array:
    """Values that a model has, changed by numbers as `Variation.by` says."""
    return {"value": numbers, "factor": values * numbers, "change": values + numbers}[by]


class Variations:
    """Tasks that change the quantities of a robot, and the model of each.

    Everything that MuJoCo derives from a model's parameters, such as the masses of subtrees and the inverse weights
    that scale the constraint solver, is computed for each task (`mj_setConst`).

    Args:
        model: The robot, which is not changed.
        varied: What a task changes, by the name of each part. A single part is the task itself, several are a `Dict`.

    Attributes:
        space: The distribution over tasks.
        longest_delay: Largest delay of a control, in control steps.

    Raises:
        ValueError: If a variation names what the model does not have or MuJoCo does not let vary, if its numbers are
            not bounds or make no sense for the quantity, or if it would change nothing.
    """

    def __init__(self, model: mujoco.MjModel, varied: Mapping[str, Variation]) -> None:
        if not varied:
            raise ValueError("expected at least one variation, got none: name what a task changes")
        self._base = model
        self._parts = {name: _part(model, name, variation) for name, variation in varied.items()}
        spaces = {name: part.space for name, part in self._parts.items()}
        self.space = Dict(spaces) if len(spaces) > 1 else next(iter(spaces.values()))
        self._row = stacked_tasks(self.space, [self.space.sample()])
        self._in_model = [name for name, part in self._parts.items() if part.quantity.write]
        self._delays = [name for name, part in self._parts.items() if part.variation.quantity == "delay"]
        self.longest_delay = max((int(self._parts[name].variation.high) for name in self._delays), default=0)
        self._model = lru_cache(maxsize=_KEPT_MODELS)(self._build)

    def models(self, tasks: Array) -> mujoco.MjModel | list[mujoco.MjModel]:
        """The model of each of n tasks, or the robot's own where no task changes it.

        Usually the same object for the same task.
        """
        if not self._in_model:
            return self._base
        # A Space also takes numbers of a narrower type, whose bytes would be other ones.
        return [self._model(task.tobytes()) for task in tasks.astype(self._row.dtype, copy=False)]

    def _build(self, task: bytes) -> mujoco.MjModel:
        row = np.frombuffer(task, self._row.dtype).reshape(self._row.shape)
        model = copy(self._base)
        for name in self._in_model:
            self._parts[name].change(model, self._of(name, row)[0])
        mujoco.mj_setConst(model, mujoco.MjData(model))
        return model

    def _of(self, name: str, tasks: Array) -> Array:
        """A part of n tasks."""
        part: Array = tasks[name] if len(self._parts) > 1 else tasks
        return part

    def delays(self, tasks: Array) -> NDArray[np.int64]:
        """Delay of the controls in n tasks, in control steps, `[n]`."""
        return sum((self._of(name, tasks) for name in self._delays), np.zeros(len(tasks), np.int64))

    @property
    def have_offsets(self) -> bool:
        """Whether a task changes what joints or sensors report."""
        return any(part.variation.quantity in _OFFSETS for part in self._parts.values())

    def offsets(self, tasks: Array) -> Array:
        """What n tasks add to the readings of joints and sensors, `[n, njnt + nsensor]`."""
        model = self._base
        offsets = np.zeros((len(tasks), model.njnt + model.nsensor))
        for name, part in self._parts.items():
            if part.variation.quantity in _OFFSETS:
                columns = part.ids + (model.njnt if part.quantity.element == "sensor" else 0)
                for row, task in zip(offsets, self._of(name, tasks), strict=True):
                    which, numbers = part.numbers(task)
                    row[columns[which]] += numbers
        return offsets

    @property
    def description(self) -> str:
        """What the numbers of a task mean, with their unit."""
        if len(self._parts) > 1:
            return "dynamics"
        ((name, part),) = self._parts.items()
        if isinstance(part.space, (Discrete, Dict)) and part.quantity.element != "world":
            return name
        unit = "factor" if part.variation.by == "factor" else part.quantity.unit
        return f"{name} ({unit})" if unit else name

    def name(self, task: Any) -> str:
        """A task in a few words, with units."""
        values = task if len(self._parts) > 1 else dict.fromkeys(self._parts, task)
        return ", ".join(f"{name} {_shown(part, values[name])}" for name, part in self._parts.items())


def _shown(part: _Part, task: Any) -> str:
    """The value of a part of a task in a few words."""
    if part.variation.quantity == "delay":
        return f"{int(task)} control step{'' if task == 1 else 's'}"
    which, numbers = part.numbers(task)
    shown = numbers[:1] if part.variation.numbers == "shared" else numbers
    text = ", ".join(f"{number:.2f}" for number in shown)
    text = text if len(shown) == 1 else f"({text})"
    text = f"x {text}" if part.variation.by == "factor" else f"{text} {part.quantity.unit}".rstrip()
    if isinstance(part.space, Discrete):
        return part.names[int(task)]
    return f"{part.names[which[0]]} {text}" if isinstance(which, np.ndarray) else text


def _part(model: mujoco.MjModel, name: str, variation: Variation) -> _Part:
    """A variation of a model; raises ValueError, in one line that begins with the part's name, if there is no such."""
    _check_types(name, variation)
    if variation.quantity not in QUANTITIES:
        raise ValueError(
            f"{name}: {variation.quantity!r} cannot vary between tasks, expected one of {', '.join(QUANTITIES)}"
        )
    quantity, (low, high) = QUANTITIES[variation.quantity], (float(variation.low), float(variation.high))
    if not (np.isfinite([low, high]).all() and (low < high or (low == high and variation.numbers == "one"))):
        raise ValueError(f"{name}: expected finite numbers low < high, got {low:g} and {high:g}")
    if variation.by not in ("value", "factor", "change"):
        raise ValueError(f"{name}: expected by value, factor or change, got {variation.by!r}")
    if variation.numbers not in ("shared", "each", "one"):
        raise ValueError(f"{name}: expected numbers shared, each or one, got {variation.numbers!r}")
    if variation.quantity == "delay":
        return _Part(variation, quantity, np.zeros(0, np.int64), [], _delays(name, variation))
    ids, names = _elements(model, name, variation, quantity)
    box = partial(Box, low, high, dtype=np.float32)
    space: gymnasium.Space[Any] = box((len(ids),) if variation.numbers == "each" else (1,))
    if variation.numbers == "one":
        choice = Discrete(len(ids))
        space = choice if low == high else Dict({quantity.element: choice, variation.by: box((1,))})
    part = _Part(variation, quantity, ids, names, space)
    _check_values(model, name, part)
    return part


def _check_types(name: str, variation: Any) -> None:
    """Raises ValueError if a variation, which its author wrote, is none or has fields of other types."""
    if not isinstance(variation, Variation):
        raise ValueError(f"{name}: expected a Variation(quantity, low, high, ...), got {variation!r}")
    bounds: tuple[object, object] = (variation.low, variation.high)
    for bound in bounds:
        if not isinstance(bound, (Real, np.number)):
            raise ValueError(f"{name}: expected numbers low < high, got {bound!r}")
    names = [variation.of] if isinstance(variation.of, str) else variation.of
    if not isinstance(names, Sequence) or not all(isinstance(element, str) for element in names):
        raise ValueError(f"{name}: expected of to be a name or a list of names, got {variation.of!r}")


def _delays(name: str, variation: Variation) -> Discrete:
    low, high = variation.low, variation.high
    if low < 0 or low != round(low) or high != round(high) or variation[3:] != Variation("", 0, 0)[3:]:
        raise ValueError(f"{name}: expected a delay of low to high whole control steps, at least 0, got {variation}")
    return Discrete(int(high - low) + 1, start=int(low))


def _check_values(model: mujoco.MjModel, name: str, part: _Part) -> None:
    """Raises ValueError if the bounds make no sense for the quantity, or change nothing."""
    variation, quantity = part.variation, part.quantity
    values = quantity.read(model, part.ids) if quantity.read else np.zeros(len(part.ids))
    bounds = [_changed(variation.by, values, np.full(len(values), b)) for b in (variation.low, variation.high)]
    if np.min(bounds) < quantity.least:
        raise ValueError(f"{name}: {variation.quantity} must be at least {quantity.least:g}, got {np.min(bounds):g}")
    unchanged: NDArray[np.bool_] = np.all([bound == values for bound in bounds], axis=0)
    if unchanged.any():
        without = [element for element, same in zip(part.names, unchanged, strict=True) if same]
        stays = f"whose {variation.quantity} stays {values[unchanged][0]:g}"
        raise ValueError(f"{name}: changes nothing of {', '.join(without)}, {stays}")


def _elements(
    model: mujoco.MjModel, name: str, variation: Variation, quantity: PhysicalQuantity
) -> tuple[NDArray[np.int64], list[str]]:
    """Indices and names of the elements that a variation changes; ValueError, in one line, if the model has no such."""
    if quantity.element == "world":
        return np.zeros(1, np.int64), ["the world"]
    known = _named_elements(model, quantity.element)
    wanted = [variation.of] if isinstance(variation.of, str) else list(variation.of)
    wanted = wanted or _all_with(model, variation, quantity, known)
    for element in wanted:
        if element not in known:
            expected = f"expected one of {', '.join(known)}" if known else "the model has none"
            raise ValueError(
                f"{name}: there is no {quantity.element} {element!r} to vary {variation.quantity} of, {expected}"
            )
        if variation.quantity.startswith("position") and model.body_dofnum[known[element]] == 6:
            raise ValueError(f"{name}: body {element!r} has a free joint, which decides its position")
    if not wanted or len(set(wanted)) < len(wanted):
        raise ValueError(f"{name}: expected different {quantity.element} names, at least one, got {wanted}")
    return np.array([known[element] for element in wanted], np.int64), wanted


def _all_with(
    model: mujoco.MjModel, variation: Variation, quantity: PhysicalQuantity, known: Mapping[str, int]
) -> list[str]:
    """Elements that have a quantity: of a factor, those where it is not 0; of joint offsets, the joints of motors."""
    ids = np.array(list(known.values()), np.int64)
    if variation.quantity == "joint offset":
        ids = np.intersect1d(ids, list(_driven_joints(model).values()))
    elif variation.by == "factor" and quantity.read:
        ids = ids[quantity.read(model, ids) != 0]
    return [element for element, i in known.items() if i in ids]


def _named_elements(model: mujoco.MjModel, element: str) -> dict[str, int]:
    """Elements of one kind that can vary, by name: all but the world, and of joints those with one degree of freedom.

    An actuator without a name is called like the joint that it moves, any other element by its number.
    """
    if element == "joint":
        indices = np.flatnonzero(np.isin(model.jnt_type, _ONE_DOF)).tolist()
    else:
        counts = {"body": model.nbody, "geom": model.ngeom, "actuator": model.nu, "sensor": model.nsensor}
        indices = list(range(element == "body", counts[element]))
    joints = _driven_joints(model) if element == "actuator" else {}
    moved = {i: model.joint(joint).name for i, joint in joints.items()}
    return {getattr(model, element)(i).name or moved.get(i) or f"{element} {i}": i for i in indices}


def _driven_joints(model: mujoco.MjModel) -> dict[int, int]:
    """The joint that each actuator moves, of those that move one."""
    actuators = np.flatnonzero(model.actuator_trntype == mujoco.mjtTrn.mjTRN_JOINT.value)
    return dict(zip(actuators.tolist(), model.actuator_trnid[actuators, 0].tolist(), strict=True))
