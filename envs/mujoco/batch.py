"""Stepping a batch of MuJoCo states in threads.

MuJoCo releases the interpreter lock while it rolls states out, so plain threads, each with its own `MjData`, use all
cores. In our measurements, the thread pool of `mujoco.rollout` did not scale for calls as short as one control step.
"""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import mujoco
import numpy as np
from mujoco.rollout import Rollout
from numpy.typing import NDArray

_DISABLE = mujoco.mjtDisableBit
# Features of MuJoCo that a batch of states of one robot does without. Autoreset would hide a diverged state by the rest
# pose. The solver's warm start is not part of a state. Looking for independent groups of constraints in a single robot,
# the default since 3.4, costs a twentieth of a step.
NOT_NEEDED: int = _DISABLE.mjDSBL_AUTORESET.value | _DISABLE.mjDSBL_WARMSTART.value
if hasattr(_DISABLE, "mjDSBL_ISLAND"):
    NOT_NEEDED |= _DISABLE.mjDSBL_ISLAND.value
_SMALLEST_SLICE = 8  # states; below this, waking a thread costs more than it saves


def _available_cores() -> int:
    """Number of processor cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class BatchStepper:
    """Steps many states of one model; a row's result depends on that row only, whatever the number of threads.

    A state is MuJoCo's full physics state (time, qpos, qvel, activations), `[n, state_size]`. The constraint solver's
    warm start is not part of it, so each control step starts cold: against `mj_step`, which keeps it, the half-cheetah
    differs by less than 1e-11 after 50 steps.

    Args:
        model: The model.
        frame_skip: Physics steps in a control step.
        threads: Number of threads; all cores if None.
    """

    def __init__(self, model: mujoco.MjModel, frame_skip: int, threads: int | None = None) -> None:
        self.model = model
        self.frame_skip = frame_skip
        self.state_size = mujoco.mj_stateSize(model, mujoco.mjtState.mjSTATE_FULLPHYSICS.value)
        self.threads = _available_cores() if threads is None else threads
        self._workers = [(Rollout(nthread=0), mujoco.MjData(model)) for _ in range(self.threads)]
        self._pool = ThreadPoolExecutor(self.threads - 1) if self.threads > 1 else None

    def halves(self) -> "list[BatchStepper]":
        """Two steppers with half of the threads each, for two batches at once; this one alone if it has one thread."""
        if self.threads < 2:
            return [self]
        first = self.threads // 2
        return [BatchStepper(self.model, self.frame_skip, n) for n in (first, self.threads - first)]

    def states(self, qpos: NDArray[np.float64], qvel: NDArray[np.float64]) -> NDArray[np.float64]:
        """States `[n, state_size]` at time 0 with positions `[n, nq]` and velocities `[n, nv]`."""
        states = np.zeros((len(qpos), self.state_size))
        states[:, 1 : 1 + self.model.nq] = qpos
        states[:, 1 + self.model.nq : 1 + self.model.nq + self.model.nv] = qvel
        return states

    def step(
        self,
        states: NDArray[np.float64],
        controls: NDArray[np.float64],
        models: mujoco.MjModel | Sequence[mujoco.MjModel] | None = None,
    ) -> NDArray[np.float64]:
        """States `[n, state_size]` one control step later, under constant controls `[n, nu]`.

        Args:
            states: States `[n, state_size]`.
            controls: Controls `[n, nu]`.
            models: One model for each state, differing in parameters only; the stepper's own model if None.
        """
        trajectory = np.empty((len(states), self.frame_skip, self.state_size))
        self._roll_out(states, controls, models, state=trajectory)
        return trajectory[:, -1]

    def sensors(
        self,
        states: NDArray[np.float64],
        controls: NDArray[np.float64],
        models: mujoco.MjModel | Sequence[mujoco.MjModel] | None = None,
    ) -> NDArray[np.float64]:
        """Sensor readings in states `[n, state_size]` under controls `[n, nu]`; models as in `step`."""
        readings = np.empty((len(states), self.frame_skip, self.model.nsensordata))
        self._roll_out(states, controls, models, sensordata=readings)  # MuJoCo reads them before it moves on
        return readings[:, 0]

    def _roll_out(
        self,
        states: NDArray[np.float64],
        controls: NDArray[np.float64],
        models: mujoco.MjModel | Sequence[mujoco.MjModel] | None,
        **outputs: NDArray[np.float64],
    ) -> None:
        n = len(states)
        if n == 0:
            return  # MuJoCo's rollout crashes on an empty batch
        # A slice of the rows for each thread. The calling thread takes the first one itself, so the pool has one thread
        # less than there are workers. A row depends on no other, so the bounds change no result.
        states = np.ascontiguousarray(states)
        controls = np.repeat(controls[:, None, :].astype(np.float64, copy=False), self.frame_skip, axis=1)
        slices = max(1, min(len(self._workers), n // _SMALLEST_SLICE))
        bounds = [n * i // slices for i in range(slices + 1)]

        def work(i: int) -> None:
            rollout, data = self._workers[i]
            part = slice(bounds[i], bounds[i + 1])
            model = models[part] if isinstance(models, Sequence) else models or self.model
            views = {name: array[part] for name, array in outputs.items()}
            rollout.rollout(model, data, states[part], controls[part], **views)

        others = [self._pool.submit(work, i) for i in range(1, slices)] if self._pool else []
        work(0)
        for other in others:
            other.result()
