"""What training and evaluation may use of the machine. None of it changes a result.

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
    """What a command may use of the machine. None of it changes the result."""

    device: str = "cpu"
    """Where the network and its updates are computed: cpu, cuda, cuda:1, ... With several ranks on a machine, cuda is
    an accelerator for each, in turn."""
    threads: int | None = None
    """Threads that share the tasks of the update; all cores if None, and with several ranks on a machine an equal part
    of them. (Physics uses as many.)"""
    processes: int | None = None
    """Processes for an environment that is not batched; as many as cores if None."""
    envs_per_process: int = ENVS_PER_PROCESS
    """Environments in each of these processes, which steps them one after the other; 1 for an environment of which a
    process can hold only one."""
    start_method: StartMethod = "spawn"
    """How these processes start: spawn, a fresh interpreter, right for every environment; or fork, a copy of this one,
    which is faster, for environments that use neither PyTorch nor a GPU."""
    report_hang_after: float = REPORT_AFTER
    """Seconds after which stderr names an environment in a process that has not come back from a step or reset, and its
    task; inf for never."""

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
