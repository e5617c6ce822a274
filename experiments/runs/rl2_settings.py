"""Settings of RL^2. The command line lists them, so nothing here imports PyTorch."""

from dataclasses import dataclass
from math import isfinite
from typing import NamedTuple

from maml_rl.config import require

_LARGEST_LR = 1e36  # Adam multiplies it by up to 10, in single precision


@dataclass(frozen=True)
class RL2Config:
    """Everything that decides what RL^2 learns."""

    env_id: str
    """Environment with a task distribution, as gymnasium.make takes it."""
    episodes: int = 2
    """Episodes of a trial, n (Duan et al. 2016: 10 to 100 of random processes; Rothfuss et al. 2019: 2 of robots)."""
    max_episode_steps: int | None = None
    """Steps after which an episode is truncated; by default, the limit that the environment is registered with."""
    reward_scale: float = 1.0
    """Factor on the reward that the policy observes."""
    memory: bool = True
    """Observe the last action and reward, and keep a hidden state. Without them, the same algorithm trains one policy
    for all tasks: domain randomisation, which shows what the memory gains."""
    standardise: bool = False
    """Standardise what the policy observes, with mean and standard deviation over trials of random actions before the
    training: for observations far from 1, which would saturate the LSTM."""
    normalise_rewards: bool = False
    """Divide rewards by the running standard deviation of their discounted sums, in training only
    (Stable-Baselines3's VecNormalize): for values far from 1."""
    units: int = 64
    """Units of the LSTM (Rothfuss et al. 2019: an LSTM of 64; Lingle's pytorch_rl2: a GRU of 256). Another LSTM of this
    size computes the values."""
    shared_lstm: bool = False
    """Use one LSTM for policy and values, trained by the losses of both: the values, which give a signal at each step,
    then teach the memory too."""
    chrono: int | None = None
    """Steps that the LSTM can remember before training (chrono initialisation; Tallec, Ollivier 2018). Default:
    PyTorch's initialisation, with which it forgets within a few steps. For long trials, give the steps of a trial."""
    num_envs: int = 100
    """Trials sampled at once."""
    n_steps: int | None = None
    """Steps of each of them between two updates, a multiple of a trial's steps; by default, one trial."""
    minibatches: int = 1
    """Parts of an update, all with the same number of trials."""
    epochs: int = 8
    """Passes over the trials of an update (Lingle's pytorch_rl2: 8)."""
    lr: float = 1e-3
    """Step size of Adam (Rothfuss et al. 2019: 0.001; Lingle's pytorch_rl2: 0.0002)."""
    lr_decay: int | None = None
    """Env steps after which the step size is 0. It is constant for the first half of them and then falls linearly, at
    each evaluation. Default: it is constant."""
    discount: float = 0.99
    """Discount factor gamma of a time step, over the whole trial (Lingle's pytorch_rl2: 0.99)."""
    gae_lambda: float = 0.3
    """Lambda of generalised advantage estimation (Lingle's pytorch_rl2: 0.3)."""
    clip: float = 0.2
    """Distance from 1 beyond which a probability ratio brings no further gain (sb3-contrib's default; Lingle's
    pytorch_rl2: 0.1)."""
    entropy: float = 0.01
    """Weight of the entropy of the policy (Lingle's pytorch_rl2: 0.01)."""
    entropy_decay: int | None = None
    """Env steps after which the weight of the entropy is 0. It is constant for the first half of them and then falls
    linearly, at each evaluation. Default: it is constant."""
    seed: int = 0
    """Seed of everything random."""

    def __post_init__(self) -> None:
        """Raises InputError for a value outside its range."""
        for name in ("episodes", "units", "num_envs", "minibatches", "epochs"):
            require(name, getattr(self, name), getattr(self, name) >= 1, "at least 1")
        require("n_steps", str(self.n_steps), self.n_steps is None or self.n_steps >= 1, "at least 1 or None")
        require("chrono", str(self.chrono), self.chrono is None or self.chrono >= 3, "at least 3 or None")
        require("chrono", str(self.chrono), self.chrono is None or self.memory, "left out without memory")
        require("lr", self.lr, 0 < self.lr <= _LARGEST_LR, f"above 0 and at most {_LARGEST_LR:g}")
        require("clip", self.clip, self.clip > 0, "above 0")
        for name in ("discount", "gae_lambda"):
            require(name, getattr(self, name), 0 <= getattr(self, name) <= 1, "from 0 to 1")
        require("entropy", self.entropy, self.entropy >= 0, "at least 0")
        for name in ("lr_decay", "entropy_decay"):
            decay = getattr(self, name)
            require(name, str(decay), decay is None or decay >= 1, "at least 1 or None")
        require("seed", self.seed, 0 <= self.seed < 2**32, "at least 0 and below 2^32")
        require("reward_scale", self.reward_scale, isfinite(self.reward_scale), "finite")

    def lr_after(self, env_steps: int) -> float:
        """Step size of Adam after this much training."""
        return self.lr * _share_left(env_steps, self.lr_decay)

    def entropy_after(self, env_steps: int) -> float:
        """Weight of the entropy after this much training."""
        return self.entropy * _share_left(env_steps, self.entropy_decay)


def _share_left(env_steps: int, decay: int | None) -> float:
    """What is left of a number that is constant for half of its decay, and then falls linearly to 0."""
    return 1.0 if decay is None else min(1.0, max(0.0, 2 - 2 * env_steps / decay))


class Schedule(NamedTuple):
    """How long RL^2 trains, and how it is evaluated meanwhile."""

    env_steps: int  # of the training, which ends with the update in which it reaches them
    every: int  # env steps from one evaluation to the next
    tasks: int = 1000  # of an evaluation, one trial of each

    def check(self, config: RL2Config) -> None:
        """Raises InputError for a value outside its range, or if the step size would be 0 before the end."""
        for name, least in (("env_steps", 1), ("every", 1), ("tasks", 2)):
            require(name, getattr(self, name), getattr(self, name) >= least, f"at least {least}")
        decay = config.lr_decay
        ends_in_time = decay is None or self.env_steps <= decay
        require("env_steps", self.env_steps, ends_in_time, f"at most {decay}, after which lr_decay leaves no step size")
