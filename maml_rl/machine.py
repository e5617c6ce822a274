"""Machine resources for training and evaluation. None of them changes a result.

The command line lists these settings, so nothing here imports PyTorch or Gymnasium before it is needed.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from maml_rl.config import ENVS_PER_PROCESS, StartMethod
from maml_rl.waiting import REPORT_AFTER

if TYPE_CHECKING:
    import torch

    from maml_rl.parallel import TaskThreads
    from maml_rl.processes import Processes


@dataclass(frozen=True)
class Machine:
    """Machine resources that a command may use. None of them changes the result."""

    device: str = "cpu"
    """Device for the network and its updates: cpu, cuda, cuda:1, ... With several ranks on a machine, cuda assigns its
    accelerators to them in rotation."""
    threads: int | None = None
    """Threads that share the tasks of the update. Default: all cores, or an equal share of them with several ranks on a
    machine. Physics uses the same number."""
    processes: int | None = None
    """Processes for an environment without a batched form; by default, one per core."""
    envs_per_process: int = ENVS_PER_PROCESS
    """Environments per process, stepped one after the other. Use 1 if a process can hold only one."""
    start_method: StartMethod = "spawn"
    """How these processes start: spawn, a fresh interpreter, works for every environment; fork, a copy of this process,
    is faster, for environments that use neither PyTorch nor a GPU."""
    report_hang_after: float = REPORT_AFTER
    """Seconds after which a line on stderr names a process whose environment has not returned from a step or reset, and
    its task; inf for never."""

    def torch_device(self) -> "torch.device":
        """The device.

        Raises:
            InputError: If it is not there, or cannot compute what the method needs.
        """
        from maml_rl.parallel import usable_device
        from maml_rl.ranks import this_rank

        return usable_device(this_rank().device(self.device))

    def task_threads(self) -> "TaskThreads":
        """Threads that share the tasks: one on an accelerator, which works on one task at a time.

        Raises:
            InputError: If the device cannot be used, or there is less than one thread.
        """
        from maml_rl.parallel import threads_for

        return threads_for(self.torch_device(), self.threads)

    def env_processes(self) -> "Processes":
        """Processes of an environment that is not batched.

        Raises:
            InputError: If a setting is outside its range.
        """
        from maml_rl.processes import Processes

        return Processes(self.processes, self.start_method, self.report_hang_after, self.envs_per_process)


THIS_MACHINE = Machine()
"""All cores, no accelerator."""
