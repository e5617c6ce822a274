"""Ranks: processes, on one machine or several, that share the tasks of a meta-iteration.

`torchrun` starts them, and `torch.distributed`, which only this module uses, connects them. Each rank samples, adapts
and differentiates a contiguous share of the tasks. The ranks exchange one vector per task: every rank gathers all of
them, in the order of the tasks, and computes the mean as a single process does. The result is therefore identical, bit
for bit, for any number of ranks.

Vectors are sent with gloo, through CPU memory: they are small, and gloo needs no accelerator. A rank that ends closes
its connections, which the others notice at once. A rank that is stopped or whose machine is unreachable is detected by
its missing pulse, a counter that every rank raises twice a second. A rank that computes for a long time keeps its
pulse.
"""

import hashlib
import json
import os
import pickle
import signal
import socket
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from threading import Event, Thread
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import torch
from torch import Tensor
from torch import distributed as dist

from maml_rl.errors import AgreedError, InputError, RankError
from maml_rl.types import Params, State, repeat

if TYPE_CHECKING:
    from torch.distributed.distributed_c10d import Store

T = TypeVar("T")

SILENCE = 15.0  # seconds without a pulse after which a rank counts as lost
_BEAT = 0.5  # seconds between two beats of the pulse, and between looks for interruptions while waiting
_JOINING = 120.0  # seconds for all ranks to arrive: torchrun starts them together
_GRACE = 3.0  # seconds within which a rank shows that it is alive
_RENDEZVOUS = "the rendezvous of torchrun"
_PLACES = 16  # tasks after which rows of 4-byte numbers start at a 64-byte boundary again, whatever their length


class _ConnectionLostError(RankError):
    """A rank has ended or does not answer; it is not yet known which one, or why."""


class Launch(NamedTuple):
    """Place of this process among those that a launcher such as torchrun started."""

    rank: int
    size: int
    local_rank: int  # among those of this machine
    local_size: int


class Share:
    """One rank's contiguous share of an iteration's tasks.

    Attributes:
        start: Index of the first.
        stop: Index after the last.
        count: Number of all tasks.
    """

    def __init__(self, ranks: "Ranks", count: int) -> None:
        self.count, self._ranks = count, ranks
        self.start, self.stop = self._bounds(ranks.rank)

    def _bounds(self, rank: int) -> tuple[int, int]:
        return rank * self.count // self._ranks.size, (rank + 1) * self.count // self._ranks.size

    @property
    def indices(self) -> range:
        """Indices of the tasks."""
        return range(self.start, self.stop)

    def of(self, values: Sequence[T]) -> Sequence[T]:
        """Of the values of all tasks, those of this share."""
        return values[self.start : self.stop]

    @property
    def lead(self) -> int:
        """Places before the first task in an array: then each is as far from a memory boundary as among all tasks."""
        return self.start % _PLACES

    @property
    def places(self) -> int:
        """Places in that array: two or more if there are several tasks, since products of one matrix round differently.

        See `maml_rl.rollouts`.
        """
        return max(self.lead + self.stop - self.start, min(2, self.count))

    def placed(self, params: Params) -> Params:
        """The tasks' parameters, with a leading M, each as far from a memory boundary as among those of all tasks.

        How products of matrices are rounded depends on where their operands begin (`maml_rl.types.aligned`).
        """
        return {name: self.filled(value)[self.lead : self.lead + len(value)] for name, value in params.items()}

    def repeated(self, params: Params) -> Params:
        """The same parameters for each of the tasks: a leading M that takes no memory."""
        everywhere = repeat(params, self.places)
        return {name: value[self.lead : self.lead + len(self.indices)] for name, value in everywhere.items()}

    def filled(self, value: Tensor) -> Tensor:
        """An array of all places, with the first task's value in places without a task."""
        first = value[:1]
        if value.stride(0) == 0:  # of `repeated`
            return first.expand(self.places, *value.shape[1:])
        before, after = (first.expand(n, *value.shape[1:]) for n in (self.lead, self.places - self.lead - len(value)))
        return torch.cat([before, value, after])

    def gathered(self, values: Iterable[Tensor]) -> list[Tensor]:
        """A tensor of each task, in the order of the tasks, on the device and of the type of this share's.

        Args:
            values: Of each task of this share, all of the same shape.

        Raises:
            RankError: If another rank has ended or does not answer.
        """
        own = torch.stack(list(values))
        largest = max(stop - start for start, stop in map(self._bounds, range(self._ranks.size)))
        block = torch.zeros(largest, *own.shape[1:], dtype=own.dtype)
        block[: len(own)] = own.detach()
        blocks = self._ranks.all_gather(block)
        sizes = (stop - start for start, stop in map(self._bounds, range(self._ranks.size)))
        return list(torch.cat([part[:size] for part, size in zip(blocks, sizes, strict=True)]).to(own.device))

    def collected(self, values: Sequence[T]) -> list[T]:
        """The values of all ranks, of any kind, in the order of the ranks.

        Raises:
            RankError: If another rank has ended or does not answer.
        """
        return [value for of_rank in self._ranks.gather_objects(list(values)) for value in of_rank]


class Ranks:
    """The processes that share the tasks, as seen by one of them. Without a connection, this process alone."""

    def __init__(self, launch: Launch | None = None, connection: "_Connection | None" = None) -> None:
        self.launch = launch or Launch(0, 1, 0, 1)
        self._connection = connection

    @property
    def rank(self) -> int:
        """Index of this one."""
        return self.launch.rank

    @property
    def size(self) -> int:
        """How many there are."""
        return self.launch.size

    def device(self, name: str) -> str:
        """Name of this rank's device. The accelerators of a machine are assigned to its ranks in rotation."""
        count = torch.cuda.device_count() if name == "cuda" and self.launch.local_size > 1 else 0
        return f"cuda:{self.launch.local_rank % count}" if count else name

    def share(self, count: int, what: str, advice: str) -> Share | None:
        """This rank's share; None if there is no other rank, so that it is all.

        Args:
            count: Number of all tasks, or other units of work.
            what: Whose tasks they are, for the message.
            advice: What to change where there are too few.

        Raises:
            AgreedError: If there are more ranks than tasks.
        """
        if self.size == 1:
            return None
        if count < self.size:
            raise AgreedError(f"{self.size} ranks cannot share {what}: start at most {count}, or {advice}")
        return Share(self, count)

    def all_gather(self, block: Tensor) -> list[Tensor]:
        """A tensor of each rank, by rank, on the CPU. All have the same shape."""
        if self._connection is None:
            return [block]
        blocks = [torch.empty_like(block) for _ in range(self.size)]
        self._connection.finish(dist.all_gather(blocks, block, async_op=True))
        return blocks

    def gather_objects(self, value: T) -> list[T]:
        """A value of each rank, by rank."""
        content = torch.frombuffer(bytearray(pickle.dumps(value)), dtype=torch.uint8)
        sizes = [int(size) for size in self.all_gather(torch.tensor([len(content)]))]
        block = torch.zeros(max(sizes), dtype=torch.uint8)
        block[: len(content)] = content
        blocks = self.all_gather(block)
        return [pickle.loads(part[:n].numpy().tobytes()) for part, n in zip(blocks, sizes, strict=True)]

    def from_first(self, value: T | None) -> T:
        """Rank 0's value, on every rank; the values of other ranks are ignored."""
        first: T = self.gather_objects(value if self.rank == 0 else None)[0]  # type: ignore[assignment]
        return first

    def check_alike(self, facts: Mapping[str, object]) -> None:
        """Checks that all ranks know the same facts.

        Args:
            facts: Values by name, such as a setting's.

        Raises:
            AgreedError: On every rank, if one differs from rank 0; names the ranks, their machines and the fact.
        """
        mine = {name: str(value) for name, value in facts.items()}
        first, *others = self.gather_objects((_host(), mine))
        found = []
        for rank, (host, theirs) in enumerate(others, 1):
            for name in (n for n in {**first[1], **theirs} if first[1].get(n) != theirs.get(n)):
                found.append(
                    f"{name} is {theirs.get(name, 'absent')} on rank {rank} ({host}) and "
                    f"{first[1].get(name, 'absent')} on rank 0 ({first[0]})"
                )
                break
        if found:
            raise AgreedError(f"the ranks differ: {'; '.join(found)}; start all of them alike")

    def check_same_bits(self, state: State) -> None:
        """Checks that all ranks have reached the same state.

        Raises:
            AgreedError: On every rank, if one has another; names the ranks.
        """
        if self._connection is None:
            return
        sha = hashlib.sha256()
        for value in (*state.meta.values(), *state.optimizer.values()):
            sha.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        own = torch.tensor([int.from_bytes(sha.digest()[:7], "big")])
        digests = [int(digest) for digest in self.all_gather(own)]
        other = [self._connection.name(rank) for rank, digest in enumerate(digests) if digest != digests[0]]
        if other:
            raise AgreedError(
                f"after iteration {state.iteration}, {' and '.join(other)} computed different bits from "
                f"{self._connection.name(0)}: use processors of one kind, and the same packages on every machine"
            )

    def endings(self) -> list[str]:
        """Why other ranks have ended, including those that left no message or do not answer; takes a few seconds.

        Rank 0 asks all of the others, which ask only rank 0. A rank that was interrupted has no reason to report.
        """
        return self._connection.endings() if self._connection else []

    def part(self, reason: str) -> bool:
        """Reports why this rank ends, and returns whether rank 0 will report it.

        Args:
            reason: The reason; empty if it is not this rank's own.
        """
        return self._connection.part(reason) if self._connection else False

    def close(self) -> None:
        """Ends the connection, once all ranks have called this."""
        global _joined
        if self._connection:
            self.all_gather(torch.zeros(1))
            self._connection.close()
        _joined = ALONE


ALONE = Ranks()
"""A single process."""
_joined = ALONE  # as PyTorch's process group is, one for the process
_ever_joined = False


def this_rank() -> Ranks:
    """The ranks that this process has joined; itself alone if none."""
    return _joined


def has_ever_joined() -> bool:
    """Whether this process has joined other ranks, even if it has left them since."""
    return _ever_joined


def join(launch: Launch) -> Ranks:
    """Joins the other ranks, and takes this one's part of the machine's cores.

    Args:
        launch: Which rank this is. Address and port of the meeting point are the launcher's environment variables.

    Raises:
        InputError: If they do not all arrive; names those that are missing.
    """
    global _joined, _ever_joined
    if not dist.is_available():
        raise InputError("this build of PyTorch has no torch.distributed: start one process, without torchrun")
    if launch.size > 1:
        _joined, _ever_joined = Ranks(launch, _connect(launch)), True
        _take_part_of_cores(_joined)
    return _joined


def fair_cores(allowed: Sequence[tuple[str, Sequence[int]]], rank: int) -> Sequence[int]:
    """A rank's part of the cores, if it shares them with others; at least one.

    Args:
        allowed: Machine of each rank, and the cores that it may use there.
        rank: Which rank.
    """
    cores = allowed[rank][1]
    sharing = [other for other, theirs in enumerate(allowed) if theirs == allowed[rank]]
    place, count = sharing.index(rank), len(sharing)
    return cores[place * len(cores) // count : (place + 1) * len(cores) // count] or [cores[place % len(cores)]]


def _take_part_of_cores(ranks: Ranks) -> None:
    """Confines this process to its part of the cores, so that the ranks of a machine do not compete for them.

    Every number of threads and processes that is not given follows from it. Nothing is left to do where a launcher has
    confined each rank to its own cores. Does nothing on systems without affinity.
    """
    has_affinity = hasattr(os, "sched_setaffinity")
    own = sorted(os.sched_getaffinity(0)) if has_affinity else []
    allowed = ranks.gather_objects((_host(), own))
    if has_affinity:
        os.sched_setaffinity(0, fair_cores(allowed, ranks.rank))


def _host() -> str:
    return socket.gethostname()


def _is_sibling(process: int) -> bool:
    """Whether a process has the same parent as this one; False on systems without /proc, where it is unknown."""
    try:
        return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1]) == os.getppid()
    except OSError:
        return False


def _connect(launch: Launch) -> "_Connection":
    from torch.distributed.distributed_c10d import PrefixStore
    from torch.distributed.rendezvous import rendezvous

    waiting = timedelta(seconds=_JOINING)
    try:
        store, _, _ = next(iter(rendezvous("env://", launch.rank, launch.size, timeout=waiting)))
        store = PrefixStore(f"maml-rl/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)
        connection = _Connection(launch, store)
        connection.await_all()
        # Others may compute for any length of time: only a missing pulse shows that a rank is lost.
        forever = timedelta(days=365)
        dist.init_process_group("gloo", store=store, rank=launch.rank, world_size=launch.size, timeout=forever)
    except (RuntimeError, ValueError, OSError) as error:
        raise InputError(
            f"rank {launch.rank} ({_host()}) cannot reach the others ({str(error).splitlines()[0]}): check the address "
            "that torchrun was given, or set GLOO_SOCKET_IFNAME to the network interface that the machines share"
        ) from error
    store.set_timeout(timedelta(seconds=SILENCE))
    connection.begin()
    return connection


@dataclass
class _Heard:
    """When a pulse last changed."""

    beats: int
    at: float


class _Connection:
    """The process group, the store that all ranks share, and the thread that keeps and hears their pulses."""

    def __init__(self, launch: Launch, store: "Store") -> None:
        self._launch, self._store = launch, store
        self._missing: str | None = None  # which rank is lost
        self._silent: list[int] = []  # the ranks that showed no life when they were asked
        self._ends = Event()
        self._thread = Thread(target=self._keep_pulse, daemon=True)

    def await_all(self) -> None:
        """Waits for the other ranks.

        Raises:
            InputError: If some do not arrive; names them.
        """
        size, deadline = self._launch.size, monotonic() + _JOINING
        self._store.set(f"process/{self._launch.rank}", json.dumps([_host(), os.getpid()]))
        self._store.set(f"host/{self._launch.rank}", _host())
        while missing := [rank for rank in range(size) if not self._store.check([f"host/{rank}"])]:
            if monotonic() > deadline:
                named = ", ".join(map(str, missing))
                raise InputError(f"of {size} ranks, these have not arrived after {_JOINING:g} s: {named}")
            sleep(0.05)

    def begin(self) -> None:
        """Begins the pulse."""
        self._beat()
        self._thread.start()

    def finish(self, work: Any) -> None:
        """Waits for a collective operation. Ctrl-C and lost ranks end the waiting.

        Raises:
            RankError: If another rank has ended or does not answer.
        """
        while not self._missing:
            try:
                work.wait(timedelta(seconds=_BEAT))
                return
            except RuntimeError as error:
                if work.is_completed():
                    raise _ConnectionLostError("another rank has ended") from error
        raise _ConnectionLostError(f"{self._missing} does not answer")

    def endings(self) -> list[str]:
        """See `Ranks.endings`."""
        try:
            self._silent = self._without_life(self._others())
            self._end_stopped()
            said = [(rank, reason) for rank in self._others() if (reason := self._parting(rank))]
            lost = [f"{self.name(rank)} has ended, or does not answer" for rank in self._silent]
            return [*lost, *(f"{self.name(rank)}: {reason}" for rank, reason in said)]
        except RuntimeError:
            return [f"{_RENDEZVOUS} has ended, or does not answer"]

    def part(self, reason: str) -> bool:
        """See `Ranks.part`."""
        try:
            self._store.set(f"parting/{self._launch.rank}", json.dumps(reason))
            if self._launch.rank:
                return bool(reason) and not self._without_life([0])
            deadline = monotonic() + _GRACE  # the store may end with rank 0: the others have to see this first
            waiting = [rank for rank in self._others() if rank not in self._silent]
            while monotonic() < deadline and None in map(self._parting, waiting):
                sleep(0.05)
            return True
        except RuntimeError:  # of the store, which ends with torchrun
            return False

    def _without_life(self, ranks: Sequence[int]) -> list[int]:
        """The ranks that have no pulse and have not said why they end; takes a few seconds if there are some."""
        before, silent, deadline = {rank: self._beats(rank) for rank in ranks}, list(ranks), monotonic() + _GRACE
        while silent and monotonic() < deadline:
            silent = [r for r in silent if self._parting(r) is None and self._beats(r) == before[r]]
            sleep(0.05)
        return silent

    def _end_stopped(self) -> None:
        """Kills the lost ranks that the same torchrun has started: it would wait 30 seconds for one that is stopped.

        Rank 0 informs the others which ranks are lost, because each machine has its own torchrun.
        """
        if self._launch.rank == 0:
            self._store.set("lost", json.dumps(self._silent))
        lost = json.loads(self._store.get("lost")) if self._store.check(["lost"]) else self._silent
        for rank in lost:
            host, process = json.loads(self._store.get(f"process/{rank}"))
            if host == _host() and _is_sibling(process):
                with suppress(ProcessLookupError):  # it has ended since
                    os.kill(process, signal.SIGKILL)

    def _others(self) -> range:
        """The ranks that this one watches: rank 0 all of the others, which watch rank 0 alone."""
        return range(1, self._launch.size) if self._launch.rank == 0 else range(1)

    def close(self) -> None:
        """Ends the pulse and the process group."""
        self._ends.set()
        self._thread.join()
        dist.destroy_process_group()

    def name(self, rank: int) -> str:
        """A rank and its machine."""
        return f"rank {rank} ({self._store.get(f'host/{rank}').decode()})"

    def _beat(self) -> None:
        self._store.add(f"pulse/{self._launch.rank}", 1)

    def _beats(self, rank: int) -> int:
        beats: int = self._store.add(f"pulse/{rank}", 0)
        return beats

    def _parting(self, rank: int) -> str | None:
        """What a rank said when it ended; None if it has not."""
        key = f"parting/{rank}"
        if not self._store.check([key]):
            return None
        message: str = json.loads(self._store.get(key))
        return message

    def _keep_pulse(self) -> None:
        """Keeps this rank's pulse, and hears those of others."""
        heard = {rank: _Heard(-1, monotonic()) for rank in self._others()}
        while not self._ends.wait(_BEAT):
            try:
                self._beat()
                for rank, last in heard.items():
                    beats = self._beats(rank)
                    if beats != last.beats:
                        heard[rank] = _Heard(beats, monotonic())
                    if monotonic() - heard[rank].at > SILENCE or self._parting(rank) is not None:
                        self._missing = self.name(rank)
            except RuntimeError:  # of the store, which ends with torchrun
                self._missing = _RENDEZVOUS
                return


@contextmanager
def naming_the_ended(ranks: Ranks) -> Iterator[None]:
    """Reports which rank has ended, and why, if that ends the block: by an error, or by a signal of the launcher.

    Raises:
        RankError: If another rank ended for its own reason, or without reporting one.
        KeyboardInterrupt: If all were interrupted.
    """
    try:
        yield
    except (KeyboardInterrupt, _ConnectionLostError) as error:
        if ranks.size > 1:
            ignore_interruptions()
        if endings := ranks.endings():
            raise RankError("; ".join(endings)) from error
        raise KeyboardInterrupt from error


def ignore_interruptions() -> None:
    """Ignores Ctrl-C and SIGTERM from now on: this rank is already ending, and the launcher may pass on either."""
    for one in (signal.SIGINT, signal.SIGTERM):
        signal.signal(one, signal.SIG_IGN)
