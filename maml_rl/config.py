"""Settings, each with its unit and source.

Settings that both kinds of learning share are declared once: `MetaConfig`, `EvaluationConfig` and `RunConfig`, each
with a subclass for reinforcement learning here and one for supervised learning in `maml_rl.supervised.settings`.
Nothing here needs PyTorch, so the command line can list settings without loading it.
"""

import json
from dataclasses import dataclass, field, replace
from math import inf
from typing import Any, ClassVar, Literal, Self, get_args, get_origin, get_type_hints

from maml_rl.errors import InputError

Activation = Literal["relu", "tanh"]
Adapted = Literal["all", "last-layer", "context"]
LearnedLr = Literal["no", "parameter", "tensor-and-step"]
BaselineObservations = Literal["raw", "standardised"]
StatisticsOf = Literal["network", "noise"]
StartMethod = Literal["spawn", "fork"]
ENVS_PER_PROCESS = 32
"""Default number of environments without a batched form in a process."""
INNER_OBJECTIVES = ("reinforce", "lvc", "dice")
"""Built-in inner losses."""


@dataclass(frozen=True)
class TrustRegion:
    """A meta-step by TRPO on the adapted policies (Schulman et al. 2015)."""

    rule: Literal["trust-region"] = "trust-region"
    """Name of this meta-step."""
    max_kl: float = 0.01
    """Bound on the mean KL(old adapted || new adapted) of one meta-update, in nats (paper: 0.01)."""
    cg_iterations: int = 10
    """Conjugate gradient iterations (rllab: 10)."""
    cg_damping: float = 1e-5
    """Multiple of the identity added to the curvature (rllab: 1e-5)."""
    curvature_fraction: float = 0.25
    """Share of each task's query steps used for the Fisher matrix (Schulman et al. 2015, appendix C.1, use 0.1).
    Gradient, loss and KL always use all steps."""
    hessian_fraction: float = 1.0
    """Share of each task's support steps used for the inner Hessian of the curvature. A smaller share is faster, but
    the curvature then misjudges the KL (docs/implementation_details.md)."""
    momentum: float = 0.0
    """Weight of the mean meta-gradient of earlier iterations, which averages the noise of about 1 / (1 - momentum)
    iterations; 0, as in TRPO, uses only this iteration's."""
    backtrack_ratio: float = 0.8
    """Factor by which the line search shortens the step (rllab: 0.8)."""
    max_backtracks: int = 15
    """Candidates that the line search tries (rllab: 15)."""

    def __post_init__(self) -> None:
        """Raises InputError for a value outside its range."""
        require("max_kl", self.max_kl, self.max_kl > 0, "above 0")
        require("cg_iterations", self.cg_iterations, self.cg_iterations >= 1, "at least 1")
        require("cg_damping", self.cg_damping, self.cg_damping >= 0, "at least 0")
        for name in ("curvature_fraction", "hessian_fraction"):
            fraction = getattr(self, name)
            require(name, fraction, 0 < fraction <= 1, "above 0 and at most 1")
        require("momentum", self.momentum, 0 <= self.momentum < 1, "at least 0 and below 1")
        require("backtrack_ratio", self.backtrack_ratio, 0 < self.backtrack_ratio < 1, "between 0 and 1")
        require("max_backtracks", self.max_backtracks, self.max_backtracks >= 1, "at least 1")


@dataclass(frozen=True)
class _Descent:
    """What Adam and plain gradient descent share."""

    lr: float = 1e-3
    """Step size beta of the meta-update (paper, supervised: 0.001)."""
    cosine_iterations: int | None = None
    """Meta-iterations over which beta falls to a hundredth along a half cosine (Antoniou et al. 2019). Longer training
    repeats the schedule (Loshchilov & Hutter 2017). By default, it is constant."""
    gradient_clip: float | None = None
    """Bound on each number in the meta-gradient of the mean loss; None for no bound. The paper's code uses a sum over
    ways x queries divided by shots, so its 10 for MiniImagenet is 10 x shots / (ways x queries) here: 0.133 for 1 shot
    and 0.667 for 5."""
    norm_clip: float | None = None
    """Bound on the Euclidean length of the meta-gradient, all numbers together, after `gradient_clip`; None for none
    (Ravi, Larochelle 2017: 0.25)."""

    def __post_init__(self) -> None:
        """Raises InputError for a value outside its range."""
        require("lr", self.lr, self.lr > 0, "above 0")
        cosine, clip = self.cosine_iterations, self.gradient_clip
        require("cosine_iterations", str(cosine), cosine is None or cosine >= 1, "at least 1 or None")
        require("gradient_clip", str(clip), clip is None or clip > 0, "above 0 or None")
        norm = self.norm_clip
        require("norm_clip", str(norm), norm is None or norm > 0, "above 0 or None")


@dataclass(frozen=True)
class Adam(_Descent):
    """A meta-step by Adam (Kingma & Ba 2015; the paper's for supervised learning)."""

    rule: Literal["adam"] = "adam"
    """Name of this meta-step."""
    mean_decay: float = 0.9
    """Decay beta_1 of the running mean of the gradient (Kingma & Ba: 0.9; Actor-Mimic's code: 0.95)."""
    square_decay: float = 0.999
    """Decay beta_2 of the running mean of its square (Kingma & Ba: 0.999; Actor-Mimic's code: 0.95)."""
    epsilon: float = 1e-8
    """Constant added to the root of that mean (Kingma & Ba: 1e-8; Actor-Mimic's code: 0.01)."""

    def __post_init__(self) -> None:
        """Raises InputError for a value outside its range."""
        super().__post_init__()
        for name in ("mean_decay", "square_decay"):
            decay = getattr(self, name)
            require(name, decay, 0 <= decay < 1, "at least 0 and below 1")
        require("epsilon", self.epsilon, self.epsilon > 0, "above 0")


@dataclass(frozen=True)
class SGD(_Descent):
    """A meta-step by plain gradient descent (the paper's Algorithms 1 to 3 as written; Reptile)."""

    rule: Literal["sgd"] = "sgd"
    """Name of this meta-step."""


@dataclass(frozen=True)
class ProMP(_Descent):
    """Meta-steps by Adam on the clipped objective of proximal meta-policy search (Rothfuss et al. 2019, Algorithm 1).

    The inner update is computed again before each later step, with importance weights. `inner_objective` therefore has
    to be lvc (as in the paper) or dice; with one epoch, reinforce is possible too.
    """

    rule: Literal["promp"] = "promp"
    """Name of this meta-step."""
    epochs: int = 5
    """Steps of Adam on the episodes of one meta-iteration, N (its code: 5)."""
    clip: float = 0.3
    """Clip range epsilon: how far the adapted policy's probability ratio may move from 1 before it gains nothing more
    (equation 13; its code: 0.3)."""
    kl_penalty: float = 5e-4
    """Weight eta of the mean KL(old || new), in nats, of the policies that sampled the support steps (equation 13; its
    code: 5e-4, for random dynamics 1e-3)."""

    def __post_init__(self) -> None:
        """Raises InputError for a value outside its range."""
        super().__post_init__()
        require("epochs", self.epochs, self.epochs >= 1, "at least 1")
        require("clip", self.clip, 0 < self.clip < 1, "between 0 and 1")
        require("kl_penalty", self.kl_penalty, self.kl_penalty >= 0, "at least 0")


@dataclass(frozen=True)
class MetaConfig:
    """One meta-iteration (Finn, Abbeel, Levine 2017): what both kinds of learning share."""

    meta_batch_size: int = 40
    """Tasks in a meta-iteration, M (paper: 20 in navigation, 40 in locomotion)."""
    inner_steps: int = 1
    """Gradient steps of the inner update (paper: 1; Omniglot and MiniImagenet up to 5). 0 trains on all tasks at once:
    the paper's pretrained baseline."""
    inner_lr: float = 0.1
    """Step size alpha of the inner update (paper, Algorithm 3, line 7: 0.1)."""
    first_order: bool = False
    """First-order MAML: ignore the derivative of the inner update."""
    adapted: Adapted = "all"
    """Which parameters the inner update changes: all, only the last layer (Raghu et al. 2020, ANIL), or only the
    context (Zintgraf et al. 2019, CAVIA), which starts at 0 for each task and is not meta-learned."""
    learned_lr: LearnedLr = "no"
    """Learn inner step sizes together with theta, starting at `inner_lr`: one for each number (parameter; Li et al.
    2017, Meta-SGD), or one for each tensor and gradient step (tensor-and-step; Antoniou et al. 2019, MAML++)."""
    step: TrustRegion | Adam | SGD | ProMP = field(default_factory=TrustRegion)

    def __post_init__(self) -> None:
        """Raises InputError for a value outside its range."""
        require_choices(self)
        require("meta_batch_size", self.meta_batch_size, self.meta_batch_size >= 1, "at least 1")
        require("inner_steps", self.inner_steps, self.inner_steps >= 0, "at least 0")
        require("inner_lr", self.inner_lr, self.inner_lr > 0, "above 0")
        if self.learned_lr != "no" and self.inner_steps < 1:
            raise InputError("learned_lr needs inner_steps of at least 1, got 0: there is no step size to learn")
        if self.adapted == "context" and self.inner_steps < 1:
            raise InputError("adapted context needs inner_steps of at least 1, got 0: the context would stay at 0")


@dataclass(frozen=True)
class RLMeta(MetaConfig):
    """One meta-iteration of Algorithm 3: MAML for reinforcement learning."""

    episodes: int = 20
    """Episodes per task, K, before each gradient step and again after it (paper: 20)."""
    inner_objective: str = "reinforce"
    """Inner loss: reinforce (as in the paper); lvc, the likelihood ratio (Rothfuss et al. 2019); dice, the same with
    credit for later actions (Farquhar et al. 2019), which needs a hessian_fraction of 1 in a trust region; or
    module:function for your own loss (docs/extending.md)."""
    dice_lambda: float = 0.5
    """Lambda of dice: factor per time step on the credit of an action for changing the probability of a later one. 0 is
    lvc. 1 is DiCE with baselines (Foerster et al. 2018), which has the most noise, and no bias if the advantages have
    none (discount and gae_lambda 1)."""
    filtered_lr: bool = False
    """Multiply the inner step size of each number by a Wiener filter of its gradient, signal^2 / (signal^2 + noise^2)
    over the tasks of the last iterations, scaled to keep the length of the step along the signal. The filter is
    measured on the first gradient step, before adaptation, and applied to all steps."""
    normalised_gradient: bool = False
    """Divide the inner gradient by its length, over all numbers that the inner update changes. If all step sizes are
    equal, each step then has the length inner_lr, however steep the loss is."""
    adapted_std_factor: float | None = None
    """Factor by which the first inner update multiplies the standard deviation, so that the policy explores widely
    before it and acts precisely after it. Its logarithm is learned together with theta, for each action dimension,
    starting at this value. None, as in the paper, disables it."""
    discount: float = 0.99
    """Discount factor gamma per time step (rllab: 0.99)."""
    gae_lambda: float = 1.0
    """Lambda of generalised advantage estimation; 1 is the discounted return minus the baseline (rllab: 1)."""
    sampling_credit: float = 0.0
    """Weight of the credit that theta gets for the support episodes it samples (E-MAML: Stadie et al. 2018, equations 3
    and 4). 0, as in MAML, disables it. 1 gives the meta-gradient of the return after adaptation to K episodes, provided
    that the query's advantages are exact and the returns of all tasks have the same spread. Published code uses 1 / (K
    T) of it (docs/algorithm.md)."""
    baseline_observations: BaselineObservations = "raw"
    """Observations for the baseline's features: raw (rllab), or standardised, which makes the fit independent of their
    units. Both are clipped to +-10."""

    def __post_init__(self) -> None:
        """Raises InputError for a value outside its range."""
        super().__post_init__()
        require("episodes", self.episodes, self.episodes >= 1, "at least 1")
        factor = self.adapted_std_factor
        require("adapted_std_factor", str(factor), factor is None or factor > 0, "above 0 or None")
        for name in ("filtered_lr", "normalised_gradient", "adapted_std_factor"):
            if getattr(self, name) and self.inner_steps < 1:
                raise InputError(f"{name} needs inner_steps of at least 1, got 0: there is no inner update")
        if self.filtered_lr and self.episodes < 2:
            raise InputError("filtered_lr needs episodes of at least 2, got 1: it compares two halves of them")
        require("discount", self.discount, 0 < self.discount <= 1, "above 0 and at most 1")
        require("gae_lambda", self.gae_lambda, 0 <= self.gae_lambda <= 1, "from 0 to 1")
        require("dice_lambda", self.dice_lambda, 0 <= self.dice_lambda <= 1, "from 0 to 1")
        require("sampling_credit", self.sampling_credit, self.sampling_credit >= 0, "at least 0")
        objective = self.inner_objective
        is_known = objective in INNER_OBJECTIVES or ":" in objective
        require("inner_objective", repr(objective), is_known, f"{', '.join(INNER_OBJECTIVES)} or module:function")
        self._require_objective()
        if self.sampling_credit:
            self._require_credit()

    def _require_objective(self) -> None:
        """Raises InputError where the inner loss does not fit the other settings."""
        objective, rule = self.inner_objective, self.step
        fraction = rule.hessian_fraction if isinstance(rule, TrustRegion) else 1.0
        if objective == "dice" and fraction != 1:
            raise InputError(
                "inner_objective dice needs all steps of an episode in its Hessian, and step.hessian_fraction "
                f"{fraction} omits some: set it to 1"
            )
        if objective != "dice" and self.dice_lambda != RLMeta.dice_lambda:
            raise InputError(f"dice_lambda is for inner_objective dice, got {objective}: remove dice_lambda")
        if not self.inner_steps:
            return
        if objective == "reinforce" and isinstance(rule, ProMP) and rule.epochs > 1:
            raise InputError(
                "step promp repeats the inner update on the same episodes, which inner_objective reinforce does not "
                "reweight: set inner_objective to lvc, or step.epochs to 1"
            )
        if self.first_order and fraction != 1:
            raise InputError(
                f"step.hessian_fraction {fraction} thins the inner Hessian, which first_order ignores: set it to 1"
            )
        if self.first_order and objective == "dice" and not isinstance(rule, ProMP):
            raise InputError(
                "inner_objective dice differs from reinforce only in its Hessian, which first_order ignores: "
                "set inner_objective to reinforce"
            )

    def _require_credit(self) -> None:
        """Raises InputError unless there is sampling to credit, other tasks to compare with, and no credit already."""
        if self.inner_steps < 1:
            raise InputError("sampling_credit needs inner_steps of at least 1, got 0: there are no support episodes")
        if self.meta_batch_size < 2:
            raise InputError("sampling_credit needs meta_batch_size of at least 2: it compares a task with the others")
        if self.inner_objective in ("lvc", "dice"):
            raise InputError(
                f"sampling_credit needs inner_objective reinforce, got {self.inner_objective}: its second derivative "
                "already credits theta for what it samples, which would count twice"
            )


@dataclass(frozen=True)
class PolicyConfig:
    """The policy's network."""

    hidden_sizes: tuple[int, ...] = (100, 100)
    """Units of each hidden layer (paper: 100, 100)."""
    activation: Activation = "relu"
    """Activation of the hidden layers (paper: relu)."""
    context_size: int = 0
    """Number of context inputs that the network sees unchanged next to the observation, for adapted context (Zintgraf
    et al. 2019: 2 to 50). With adapted all, they are learned as well: a bias transformation (Finn, Yu et al. 2017)."""
    initial_std: float = 1.0
    """Standard deviation of each action dimension at the start, in units of the action (paper: 1)."""
    standardise: bool = True
    """Standardise observations with the mean and standard deviation over the initial policy's episodes (not in the
    paper; see docs/implementation_details.md)."""
    statistics_of: StatisticsOf = "network"
    """Episodes from which these statistics are computed: network, those of the untrained policy on raw observations; or
    noise, those of actions that do not depend on observations, and so not on their units."""
    observation_clip: float | None = 10.0
    """Bound on the absolute value of a standardised observation, in standard deviations (Stable-Baselines3's
    VecNormalize: 10); None for no bound. Raw observations are never clipped."""
    module: str | None = None
    """Your own network as module:Class, a torch.nn.Module from observations to features (docs/own_network.md). By
    default, a perceptron, with convolutions before it if observations contain pictures."""
    arguments: str = "{}"
    """Keyword arguments of your own network, as a JSON object such as {"width": 64}."""
    filters: tuple[int, ...] = (16, 16)
    """Filters of each convolution (3 x 3, stride 2) of pictures, before the hidden layers. An empty list shows pictures
    to the perceptron as rows of numbers."""

    def __post_init__(self) -> None:
        """Raises InputError for a value outside its range."""
        require_choices(self)
        for name in ("filters", "hidden_sizes"):
            sizes = getattr(self, name)
            require(name, str(sizes), all(size >= 1 for size in sizes), "all at least 1")
        require("context_size", self.context_size, self.context_size >= 0, "at least 0")
        require("initial_std", self.initial_std, self.initial_std > 0, "above 0")
        clip = self.observation_clip
        require("observation_clip", str(clip), clip is None or clip > 0, "above 0 or None")
        self._require_module()

    def _require_module(self) -> None:
        """Raises InputError if the user's own network or its arguments are not usable."""
        module = self.module
        require("module", repr(module), module is None or ":" in module, "module:Class or None")
        given = self.arguments
        try:
            arguments = json.loads(given)
        except (ValueError, RecursionError):
            arguments = None
        require("arguments", repr(given[:60]), isinstance(arguments, dict), 'a JSON object such as {"width": 64}')
        # One text for one value: configurations are compared with each other.
        object.__setattr__(self, "arguments", json.dumps(arguments, sort_keys=True))
        if module is None and self.arguments != PolicyConfig.arguments:
            raise InputError("network.arguments are for your own network: set network.module, or leave them out")
        if module is not None and self.context_size:
            raise InputError(
                "network.context_size is for the package's networks: give your own module a parameter named context"
            )


@dataclass(frozen=True)
class Imitation:
    """Training by imitation of experts instead of by rewards (Parisotto, Ba, Salakhutdinov 2016, Actor-Mimic)."""

    experts: str | None = None
    """Directory of an oracle's run in the same environment. With a task in its observation, the oracle is that task's
    expert. The student imitates it on the same `meta_batch_size` tasks in every iteration. By default,
    a run learns from rewards."""
    feature_weight: float = 0.01
    """Weight beta of the feature regression: squared distance of the expert's last hidden features from a linear map of
    the student's, one map a task (its code: 0.01); 0 leaves it out."""
    epsilon: float | None = None
    """Probability of a random action during training, for discrete actions; otherwise the student takes its likeliest
    one (its code: 0.1). If None, actions are sampled from the student's distribution."""
    updates: int = 20
    """Steps of Adam on the episodes of one iteration."""
    minibatch: int = 256
    """Time steps of each task in one step of Adam, drawn from those of the iteration (its code: 8 of each game)."""

    def __post_init__(self) -> None:
        """Raises InputError for a value outside its range."""
        require("feature_weight", self.feature_weight, self.feature_weight >= 0, "at least 0")
        epsilon = self.epsilon
        require("epsilon", str(epsilon), epsilon is None or 0 <= epsilon <= 1, "from 0 to 1, or None")
        require("updates", self.updates, self.updates >= 1, "at least 1")
        require("minibatch", self.minibatch, self.minibatch >= 1, "at least 1")


@dataclass(frozen=True)
class EvaluationConfig:
    """How a run is evaluated on held-out tasks: what both kinds of learning share."""

    tasks: int = 40
    """Held-out tasks (paper: 40)."""
    gradient_steps: int = 3
    """Gradient steps; reinforcement learning samples new episodes for each (paper: 3; navigation 4)."""
    seed: int = 0
    """Seed of the held-out tasks and of everything random in the evaluation; training never uses it."""
    validation_tasks: int = 20
    """Additional held-out tasks for choosing the step size of a run that was trained without inner updates."""
    inner_lrs: tuple[float, ...] = (0.01, 0.03, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
    """Candidates for this step size (paper: 0.1, navigation 0.5; random policy: half-cheetah 0.5, ant 1)."""

    def __post_init__(self) -> None:
        """Raises InputError for a value outside its range."""
        require("tasks", self.tasks, self.tasks >= 2, "at least 2")
        require("gradient_steps", self.gradient_steps, self.gradient_steps >= 0, "at least 0")
        require("seed", self.seed, self.seed >= 0, "at least 0")
        require("validation_tasks", self.validation_tasks, self.validation_tasks >= 1, "at least 1")
        lrs = self.inner_lrs
        require("inner_lrs", str(lrs), len(lrs) > 0 and min(lrs) > 0, "one or more, each above 0")


@dataclass(frozen=True)
class RLEvaluation(EvaluationConfig):
    """How a trained policy is evaluated."""

    episodes: int = 20
    """Episodes per task for each gradient step (paper: 20; navigation 40)."""
    later_lr_factor: float = 0.5
    """Factor on the inner step size after the first gradient step, or after the `inner_steps` used in training (paper's
    code: 0.5; ant direction 0.01)."""
    episodes_used: tuple[int, ...] | None = None
    """How many of these episodes a gradient step uses, one evaluation for each number; by default, all of them.
    The return is measured on all of them in any case."""

    def __post_init__(self) -> None:
        """Raises InputError for a value outside its range."""
        super().__post_init__()
        require("episodes", self.episodes, self.episodes >= 1, "at least 1")
        require("later_lr_factor", self.later_lr_factor, self.later_lr_factor > 0, "above 0")
        used = self.episodes_used
        if used is not None:
            in_range = 0 < len(used) == len(set(used)) and min(used) >= 1 and max(used) <= self.episodes
            require("episodes_used", str(used), in_range, f"different numbers from 1 to episodes, {self.episodes}")

    @property
    def step_episodes(self) -> int:
        """Episodes of each task that a gradient step uses, by the first of `episodes_used` if there are several."""
        return self.episodes_used[0] if self.episodes_used else self.episodes

    def by_episodes_used(self) -> list[Self]:
        """Settings of one evaluation for each number of episodes used; these settings alone if none is given."""
        return [replace(self, episodes_used=(number,)) for number in self.episodes_used or ()] or [self]

    def factor(self, step: int, trained_steps: int) -> float:
        """Factor on the step size that the policy was trained for, after `step` gradient steps.

        It is 1 in the first step, and in the others that the policy was trained for.
        """
        return 1.0 if step < max(trained_steps, 1) else self.later_lr_factor


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Everything that decides the result of a run: what both kinds of learning share."""

    kind: ClassVar[str]
    """Name of the kind of learning, as stored in a checkpoint."""
    meta: MetaConfig
    evaluation: EvaluationConfig
    iterations: int = 100
    """Meta-iterations; 0 leaves the random initialisation, the paper's random baseline."""
    seed: int = 0
    """Seed of everything random."""
    checkpoint_every: int = 10
    """Meta-iterations between checkpoints."""
    log_every: int = 1
    """Meta-iterations per row of the log, which contains their means."""

    def __post_init__(self) -> None:
        """Raises InputError for a value outside its range."""
        require("iterations", self.iterations, self.iterations >= 0, "at least 0")
        require("seed", self.seed, self.seed >= 0, "at least 0")
        require("checkpoint_every", self.checkpoint_every, self.checkpoint_every >= 1, "at least 1")
        require("log_every", self.log_every, self.log_every >= 1, "at least 1")

    @property
    def method(self) -> str:
        """Method of these settings: its name in the paper (Finn, Abbeel, Levine 2017), or the name of the variant."""
        raise NotImplementedError

    @property
    def problem(self) -> str:
        """The task distribution that the run learns. Only runs with the same one are compared."""
        raise NotImplementedError

    @property
    def modules(self) -> tuple[str, ...]:
        """Modules that the run imports by name. Importing them runs their code."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class RLConfig(RunConfig):
    """Everything that decides the result of a run of reinforcement learning."""

    kind: ClassVar[str] = "reinforcement"
    env_id: str
    """Environment with a task distribution, as gymnasium.make takes it."""
    num_envs: int | None = None
    """Sub-environments stepped at once; by default, as many as an iteration has episodes. Does not affect what is
    sampled."""
    start_from: str | None = None
    """Directory of a run whose policy this run starts from. It needs the same kind of network; other settings may
    differ. By default, weights are random."""
    observe_task: bool = False
    """Append the task to the observation, as for the paper's oracle."""
    max_episode_steps: int | None = None
    """Steps after which an episode is truncated; by default, the limit that the environment is registered with."""
    meta: RLMeta = field(default_factory=RLMeta)
    network: PolicyConfig = field(default_factory=PolicyConfig)
    evaluation: RLEvaluation = field(default_factory=RLEvaluation)
    imitation: Imitation = field(default_factory=Imitation)

    def __post_init__(self) -> None:
        """Raises InputError for a value outside its range."""
        super().__post_init__()
        require("num_envs", str(self.num_envs), self.num_envs is None or self.num_envs >= 1, "at least 1 or None")
        limit = self.max_episode_steps
        require("max_episode_steps", str(limit), limit is None or limit >= 1, "at least 1 or None")
        if self.network.module is None:
            require_context(self.meta.adapted, self.network.context_size)
        if self.imitates:
            self._require_imitation()

    def _require_imitation(self) -> None:
        """Raises InputError where a setting has no part in imitation."""
        if self.meta.inner_steps:
            raise InputError(
                f"imitation.experts is for training without inner updates, got {self.meta.inner_steps}: set "
                "meta.inner_steps to 0"
            )
        if self.meta.step.rule not in ("adam", "sgd"):
            raise InputError(
                f"imitation takes its steps by adam or sgd, got {self.meta.step.rule}: set meta.step to adam"
            )

    @property
    def imitates(self) -> bool:
        """Whether the policy is trained by imitation of experts."""
        return self.imitation.experts is not None

    @property
    def method(self) -> str:
        """random, maml, maml-oracle, pretrained or oracle (section 5.3), or a variant: first-order, anil, cavia, ...

        The paper has no name for maml-oracle, MAML with the task in the observation. A policy trained by imitation is
        mimic (Parisotto et al. 2016, Actor-Mimic), or mimic-oracle with the task in the observation. Other differences
        follow after hyphens: an inner objective other than the usual one, which is lvc for promp and reinforce
        otherwise (maml-lvc, anil-dice), and the inner step (maml-filtered, maml-normalised, maml-std-factor). With
        credit for the sampling, the name begins with e-, as in e-maml.
        """
        if self.iterations == 0:
            return "random"
        if self.imitates:
            return "mimic-oracle" if self.observe_task else "mimic"
        if self.meta.inner_steps == 0:
            return "oracle" if self.observe_task else "pretrained"
        meta, name = self.meta, variant(self.meta)
        objective, own = meta.inner_objective.rpartition(":")[2], "lvc" if meta.step.rule == "promp" else "reinforce"
        further = {
            "oracle": self.observe_task,
            objective: objective != own,
            "filtered": meta.filtered_lr,
            "normalised": meta.normalised_gradient,
            "std-factor": meta.adapted_std_factor is not None,
        }
        named = "-".join([name, *(part for part, is_there in further.items() if is_there)])
        return f"e-{named}" if meta.sampling_credit else named

    @property
    def problem(self) -> str:
        """The environment's id."""
        return self.env_id

    @property
    def modules(self) -> tuple[str, ...]:
        """The modules of the environment, and of the user's own loss and network."""
        named = (self.env_id, self.meta.inner_objective, self.network.module or "")
        return tuple(filter(None, (name.rpartition(":")[0] for name in named)))


def variant(meta: MetaConfig) -> str:
    """Name of the method with these settings: maml, or related methods such as anil-promp."""
    relatives = {
        "anil": meta.adapted == "last-layer",
        "cavia": meta.adapted == "context",
        "meta-sgd": meta.learned_lr == "parameter",
        "maml++": meta.learned_lr == "tensor-and-step",
        "first-order": meta.first_order,
        "promp": meta.step.rule == "promp",
    }
    return "-".join(name for name, is_there in relatives.items() if is_there) or "maml"


def needs_policy(rule: str) -> InputError:
    """The error for a meta-step rule that needs a policy, if there is none."""
    return InputError(f"meta.step {rule} needs a policy: for supervised learning, use adam or sgd")


def require_context(adapted: Adapted, context_size: int) -> None:
    """Raises InputError if the inner update adapts a context that the network does not have, or the reverse."""
    if adapted == "context" and not context_size:
        raise InputError("adapted is context, but the network has none: set network.context_size to at least 1")
    if adapted == "last-layer" and context_size:
        raise InputError(
            f"context_size of {context_size} is for an inner update that changes the context: set adapted to context "
            "or all"
        )


def require_choices(settings: Any) -> None:
    """Raises InputError for a setting of a dataclass whose value is not among those that its type allows."""
    for name, hint in get_type_hints(type(settings)).items():
        value, choices = getattr(settings, name), get_args(hint)
        if get_origin(hint) is Literal and value not in choices:
            raise InputError(f"{name} must be one of {', '.join(map(str, choices))}, got {value!r}")


def require(name: str, value: float | str, passed: bool, expected: str) -> None:
    """Raises InputError, naming the setting, unless its value passed the check and is finite."""
    if passed and value in (inf, -inf):
        passed, expected = False, f"{expected} and finite"
    if not passed:
        raise InputError(f"{name} must be {expected}, got {value}")
