"""Settings of the method, with unit and source beside each."""

from dataclasses import dataclass, field
from math import inf
from typing import Literal

from maml_rl.errors import InputError
from maml_rl.objectives import InnerObjective
from maml_rl.policies import Activation

BaselineObservations = Literal["raw", "standardised"]
StatisticsOf = Literal["network", "noise"]


@dataclass(frozen=True)
class TrustRegion:
    """The meta-update: TRPO on the adapted policies."""

    max_kl: float = 0.01
    """Bound on the mean KL(old adapted || new adapted) of one meta-update, in nats (paper: 0.01)."""
    cg_iterations: int = 10
    """Conjugate gradient iterations (rllab: 10)."""
    cg_damping: float = 1e-5
    """Multiple of the identity added to the curvature (rllab: 1e-5)."""
    curvature_fraction: float = 0.25
    """Share of each task's steps on which the curvature is computed; gradient, loss and KL always use all of them
    (Schulman et al. 2015, appendix C.1, use 0.1)."""
    backtrack_ratio: float = 0.8
    """Factor by which the line search shortens the step (rllab: 0.8)."""
    max_backtracks: int = 15
    """Candidates that the line search tries (rllab: 15)."""

    def __post_init__(self) -> None:
        """Raises InputError for a value outside its range."""
        require("max_kl", self.max_kl, self.max_kl > 0, "above 0")
        require("cg_iterations", self.cg_iterations, self.cg_iterations >= 1, "at least 1")
        require("cg_damping", self.cg_damping, self.cg_damping >= 0, "at least 0")
        fraction = self.curvature_fraction
        require("curvature_fraction", fraction, 0 < fraction <= 1, "above 0 and at most 1")
        require("backtrack_ratio", self.backtrack_ratio, 0 < self.backtrack_ratio < 1, "between 0 and 1")
        require("max_backtracks", self.max_backtracks, self.max_backtracks >= 1, "at least 1")


@dataclass(frozen=True)
class PolicyConfig:
    """The policy's network."""

    hidden_sizes: tuple[int, ...] = (100, 100)
    """Units of each hidden layer (paper: 100, 100)."""
    activation: Activation = "relu"
    """Activation of the hidden layers (paper: relu)."""
    initial_std: float = 1.0
    """Standard deviation of each action dimension at the start, in units of the action (paper: 1)."""
    standardise: bool = True
    """Shift and scale observations by mean and standard deviation of the initial policy's episodes (not in the paper;
    see docs/implementation_details.md)."""
    statistics_of: StatisticsOf = "network"
    """Whose episodes these statistics are of: network, the untrained policy on raw observations; or noise, actions that
    do not depend on observations, so that neither do the episodes on their units."""
    observation_clip: float | None = 10.0
    """Bound on the absolute value of a standardised observation, in standard deviations (Stable-Baselines3's
    VecNormalize: 10); None for none. Raw observations are never clipped."""

    def __post_init__(self) -> None:
        """Raises InputError for a value outside its range."""
        require("hidden_sizes", str(self.hidden_sizes), all(size >= 1 for size in self.hidden_sizes), "all at least 1")
        require("initial_std", self.initial_std, self.initial_std > 0, "above 0")
        clip = self.observation_clip
        require("observation_clip", str(clip), clip is None or clip > 0, "above 0 or None")


@dataclass(frozen=True)
class MetaConfig:
    """One meta-iteration of Algorithm 3 (Finn, Abbeel, Levine 2017)."""

    meta_batch_size: int = 40
    """Tasks in a meta-iteration, M (paper: 20 in navigation, 40 in locomotion)."""
    episodes: int = 20
    """Episodes of each task before and again after each gradient step, K (paper: 20)."""
    inner_steps: int = 1
    """Gradient steps of the inner update (paper: 1); 0 is multi-task TRPO, the paper's pretrained baseline."""
    inner_lr: float = 0.1
    """Step size alpha of the inner update (paper, Algorithm 3, line 7: 0.1)."""
    inner_objective: InnerObjective = "reinforce"
    """Inner loss: reinforce, the paper's, or lvc, the likelihood ratio (Rothfuss et al. 2019)."""
    first_order: bool = False
    """Leave out the derivative of the inner update: first-order MAML."""
    discount: float = 0.99
    """Discount factor gamma of a time step (rllab: 0.99)."""
    gae_lambda: float = 1.0
    """Lambda of generalised advantage estimation; 1 is the discounted return minus the baseline (rllab: 1)."""
    baseline_observations: BaselineObservations = "raw"
    """What the baseline's features are made of: raw observations (rllab), or standardised ones, which make its fit
    independent of their units. Either is clipped to +-10."""
    trust_region: TrustRegion = field(default_factory=TrustRegion)

    def __post_init__(self) -> None:
        """Raises InputError for a value outside its range."""
        require("meta_batch_size", self.meta_batch_size, self.meta_batch_size >= 1, "at least 1")
        require("episodes", self.episodes, self.episodes >= 1, "at least 1")
        require("inner_steps", self.inner_steps, self.inner_steps >= 0, "at least 0")
        require("inner_lr", self.inner_lr, self.inner_lr > 0, "above 0")
        require("discount", self.discount, 0 < self.discount <= 1, "above 0 and at most 1")
        require("gae_lambda", self.gae_lambda, 0 <= self.gae_lambda <= 1, "from 0 to 1")


def require(name: str, value: float | str, passed: bool, expected: str) -> None:
    """Raises InputError, naming the setting, unless its value passed the check and is no infinite number."""
    if passed and value in (inf, -inf):
        passed, expected = False, f"{expected} and finite"
    if not passed:
        raise InputError(f"{name} must be {expected}, got {value}")
