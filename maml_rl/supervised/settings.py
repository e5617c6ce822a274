"""Settings of supervised meta-learning, each with its source."""

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from maml_rl.config import (
    SGD,
    Adam,
    EvaluationConfig,
    MetaConfig,
    RunConfig,
    needs_policy,
    require,
    require_choices,
    require_context,
    variant,
)
from maml_rl.errors import InputError

Algorithm = Literal["maml", "reptile", "meta-lstm"]
BatchNorm = Literal["transductive", "support"]
Architecture = Literal["mlp", "strided-conv", "pooled-conv", "fully-connected"]
Family = Literal["sinusoid", "function", "omniglot", "mini-imagenet", "images"]
Colours = Literal["binary", "grey", "rgb"]
PAPER_UNITS: dict[str, tuple[int, ...]] = {"mlp": (40, 40), "fully-connected": (256, 128, 64, 64)}  # A.1

_IMAGES = ("omniglot", "mini-imagenet", "images")
_SETTINGS_OF = (  # those that not every family has, with the families
    (("observe_task",), ("sinusoid",)),
    (("ways", "rotations", "colours"), _IMAGES),
    (("split",), ("omniglot",)),
    (("image_size", "fractions", "split_seed"), ("images",)),
)


@dataclass(frozen=True)
class LSTMConfig:
    """The LSTM that takes the place of the gradient step with algorithm meta-lstm (Ravi, Larochelle 2017)."""

    units: int = 20
    """Units of its first layer (their code: 20)."""
    preprocessing: float = 10.0
    """p: gradients and losses of size below e^-p are seen on a linear scale, larger ones on a logarithmic one (paper:
    10)."""
    forget_bias: tuple[float, float] = (4.0, 5.0)
    """Bounds of the forget gate's bias at the start, before the sigmoid: 4 to 5 keeps 0.982 to 0.993 of a weight in
    each step (their code)."""
    input_bias: tuple[float, float] = (-5.0, -4.0)
    """Bounds of the input gate's bias at the start, before the sigmoid: -5 to -4 is a step size of 0.007 to 0.018
    (their code)."""
    divided_gradient: bool = True
    """Whether the gradient of the mean loss is divided by the number of support examples once more, as in their code; a
    step size is then that many times smaller than in MAML."""

    def __post_init__(self) -> None:
        """Raises InputError for a value outside its range."""
        require("units", self.units, self.units >= 1, "at least 1")
        require("preprocessing", self.preprocessing, self.preprocessing > 0, "above 0")
        for name in ("forget_bias", "input_bias"):
            low, high = getattr(self, name)
            require(name, f"{low:g} {high:g}", low <= high, "a lower bound and a higher one")


@dataclass(frozen=True)
class SupervisedMeta(MetaConfig):
    """One meta-iteration of Algorithm 2 (Finn, Abbeel, Levine 2017), and its relatives."""

    meta_batch_size: int = 25
    """Tasks in a meta-iteration, M (paper: 25 sinusoids; 32 or 16 of Omniglot; 4 or 2 of MiniImagenet)."""
    inner_lr: float = 0.01
    """Step size alpha of the inner update on the mean loss over the support examples. The paper's code divides a sum
    over ways x shots by shots, so its alpha of 0.4 for 5 ways is 2.0 here."""
    algorithm: Algorithm = "maml"
    """How the meta-gradient is computed: maml, by differentiating the query loss after adaptation; reptile, as the
    change that adaptation made (Nichol et al. 2018); meta-lstm, as maml, with an LSTM in place of the gradient step,
    which ignores inner_lr (Ravi, Larochelle 2017)."""
    lstm: LSTMConfig = field(default_factory=LSTMConfig)
    first_order_iterations: int = 0
    """Meta-iterations at the start that leave out the derivative of the inner update: derivative-order annealing
    (Antoniou et al. 2019, MAML++)."""
    multi_step_iterations: int = 0
    """Meta-iterations over which the query losses after all gradient steps count, from equal weights to the last one
    alone (Antoniou et al. 2019, MAML++); 0 counts the last alone. It needs 2 inner steps or more."""
    batch_norm: BatchNorm = "transductive"
    """Statistics of batch normalisation for the query examples: transductive, their own (the paper's code); or support,
    those of the support examples, so that query examples do not affect each other."""
    chunk_size: int | None = None
    """Tasks differentiated at once; by default, all. It affects memory, and results by rounding only."""
    step: Adam | SGD = field(default_factory=Adam)

    def __post_init__(self) -> None:
        """Raises InputError for a value outside its range."""
        super().__post_init__()
        if self.step.rule not in ("adam", "sgd"):
            raise needs_policy(self.step.rule)
        for name in ("first_order_iterations", "multi_step_iterations"):
            require(name, getattr(self, name), getattr(self, name) >= 0, "at least 0")
        chunk = self.chunk_size
        require("chunk_size", str(chunk), chunk is None or chunk >= 1, "at least 1 or None")
        if self.multi_step_iterations and self.inner_steps < 2:
            raise InputError(f"multi_step_iterations needs inner_steps of at least 2, got {self.inner_steps}")
        if self.algorithm == "reptile":
            self._check_reptile()
        if self.algorithm == "meta-lstm":
            self._check_lstm()
        elif self.lstm != LSTMConfig():
            raise InputError(f"lstm has settings of the algorithm meta-lstm, not of {self.algorithm}")

    def _check_lstm(self) -> None:
        require("inner_steps", self.inner_steps, self.inner_steps >= 1, "at least 1 for meta-lstm")
        if self.first_order or self.first_order_iterations:
            raise InputError("meta-lstm always treats gradients as constants: set first_order and its iterations to no")
        if self.learned_lr != "no":
            raise InputError("meta-lstm has gates in place of step sizes: set learned_lr to no, or algorithm to maml")

    def _check_reptile(self) -> None:
        require("inner_steps", self.inner_steps, self.inner_steps >= 1, "at least 1 for Reptile")
        if self.adapted != "all":
            raise InputError("Reptile learns only what it adapts: set adapted to all")
        for name in ("first_order", "first_order_iterations", "multi_step_iterations"):
            if getattr(self, name):
                raise InputError(f"{name} has no meaning for Reptile, which takes no derivative of the inner update")
        if self.learned_lr != "no":
            raise InputError("Reptile learns no step sizes: set learned_lr to no, or algorithm to maml")


@dataclass(frozen=True)
class NetworkConfig:
    """Which network of the paper, and its size."""

    architecture: Architecture = "mlp"
    """mlp (5.1, sinusoid); strided-conv or fully-connected (Omniglot); pooled-conv (MiniImagenet), all A.1."""
    hidden_sizes: tuple[int, ...] | None = None
    """Units of each hidden layer of mlp and fully-connected; by default the paper's, 40 40 and 256 128 64 64."""
    filters: int = 64
    """Filters of each of the four convolutions (paper: 64 for Omniglot, 32 for MiniImagenet)."""
    context_size: int = 0
    """Context numbers that the mlp sees next to its input, for adapted context (Zintgraf et al. 2019: 5 for the
    sinusoid). With adapted all they are learned as well."""

    def __post_init__(self) -> None:
        """Raises InputError for a layer without units."""
        require_choices(self)
        if min((*self.units, self.filters)) < 1:
            raise InputError(f"every layer needs at least 1 unit, got {self.units} and {self.filters} filters")
        require("context_size", self.context_size, self.context_size >= 0, "at least 0")
        if self.context_size and self.architecture != "mlp":
            raise InputError(f"context_size is a setting of the architecture mlp, not of {self.architecture}")

    @property
    def units(self) -> tuple[int, ...]:
        """Units of each hidden layer that is not a convolution."""
        return PAPER_UNITS.get(self.architecture, ()) if self.hidden_sizes is None else self.hidden_sizes


@dataclass(frozen=True)
class TasksConfig:
    """A distribution of supervised tasks."""

    family: Family = "sinusoid"
    """sinusoid; function, regression tasks from your own function; omniglot, mini-imagenet, or images, a directory
    with a directory of images for each class."""
    function: str | None = None
    """module:function of the family function: (seed, index) to support_x, support_y, query_x, query_y."""
    ways: int = 5
    """Classes of a task, N; regression has none."""
    shots: int = 10
    """Support examples of a task, or of each of its classes, K (paper: 10 sinusoid; 1 or 5 images)."""
    queries: int = 10
    """Query examples of a task, or of each of its classes (paper: K; MiniImagenet 15)."""
    observe_task: bool = False
    """Whether the sinusoid's inputs end with amplitude and phase, as the paper's oracle has them."""
    rotations: bool = False
    """Whether each class of a task is turned by a random multiple of 90 degrees (paper: Omniglot)."""
    split: Literal["random", "vinyals"] = "random"
    """Omniglot's characters for training, validation and test: random (paper: 1100, 100, 423), or by alphabets (Vinyals
    et al. 2016: 1028, 172, 423)."""
    colours: Colours | None = None
    """What is kept of an image: binary, grey or rgb; by default, binary for omniglot (paper), else rgb."""
    image_size: int = 84
    """Height and width that the images of the family images are resized to, pixels."""
    fractions: tuple[float, float, float] = (0.64, 0.16, 0.2)
    """Shares of the classes of the family images for training, validation and test, if its directory has no train, val
    and test."""
    split_seed: int = 0
    """Seed of that division."""

    def __post_init__(self) -> None:
        """Raises InputError for a value outside its range."""
        require_choices(self)
        require("ways", self.ways, self.ways >= 2, "at least 2")
        require("shots", self.shots, self.shots >= 1, "at least 1")
        require("queries", self.queries, self.queries >= 1, "at least 1")
        allowed = {"omniglot": (None, "binary", "grey"), "mini-imagenet": (None, "rgb")}.get(self.family)
        if allowed and self.colours not in allowed:
            raise InputError(f"{self.family} has images in {' or '.join(filter(None, allowed))}, not {self.colours}")
        require("image_size", self.image_size, self.image_size >= 1, "at least 1")
        if (self.family == "function") != (self.function is not None):
            raise InputError("function must be module:function for the family function, and None for the others")
        require("split_seed", self.split_seed, self.split_seed >= 0, "at least 0")
        for names, families in _SETTINGS_OF:
            for name in names:
                if self.family not in families and getattr(self, name) != getattr(TasksConfig, name):
                    raise InputError(
                        f"{name} is a setting of {' and '.join(families)}, not of the family {self.family}"
                    )

    @property
    def is_classification(self) -> bool:
        """Whether targets are labels."""
        return self.family not in ("sinusoid", "function")


@dataclass(frozen=True)
class SupervisedEvaluation(EvaluationConfig):
    """How a trained initialisation is evaluated."""

    tasks: int = 600
    """Held-out tasks (paper: 600)."""
    gradient_steps: int = 10
    """Gradient steps (paper: 10; Omniglot 3 for 5 ways)."""
    shots: tuple[int, ...] = ()
    """Support examples of a task, or of each class, one evaluation for each number; as in training if none."""
    queries: int | None = None
    """Query examples of a task, or of each class; by default, as in training."""
    validation_tasks: int = 200
    """Additional held-out tasks, on which the step size is chosen for a network trained without inner updates."""
    inner_lrs: tuple[float, ...] = (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03)
    """Candidates for this step size, which is chosen for each number of shots separately."""

    def __post_init__(self) -> None:
        """Raises InputError for a value outside its range."""
        super().__post_init__()
        require("shots", str(self.shots), all(shots >= 1 for shots in self.shots), "all at least 1")
        require("queries", str(self.queries), self.queries is None or self.queries >= 1, "at least 1 or None")


@dataclass(frozen=True, kw_only=True)
class SupervisedConfig(RunConfig):
    """Everything that decides the result of a run on supervised tasks."""

    kind: ClassVar[str] = "supervised"
    tasks: TasksConfig
    data: str | None = None
    """Directory of the images, for families that have some; by default, data/FAMILY."""
    iterations: int = 60_000
    """Meta-iterations (paper: 60,000; sinusoid 70,000)."""
    checkpoint_every: int = 1000
    """Meta-iterations between checkpoints."""
    log_every: int = 100
    """Meta-iterations per row of the log, which contains their means."""
    meta: SupervisedMeta = field(default_factory=SupervisedMeta)
    network: NetworkConfig = field(default_factory=NetworkConfig)
    evaluation: SupervisedEvaluation = field(default_factory=SupervisedEvaluation)

    def __post_init__(self) -> None:
        """Raises InputError for a value outside its range."""
        super().__post_init__()
        require_context(self.meta.adapted, self.network.context_size)

    @property
    def method(self) -> str:
        """random, maml, pretrained, oracle, or a relative: first-order, reptile, meta-lstm, anil, meta-sgd, ..."""
        if self.iterations == 0:
            return "random"
        if self.meta.algorithm != "maml":
            return self.meta.algorithm
        if self.meta.inner_steps == 0:
            return "oracle" if self.tasks.observe_task else "pretrained"
        name = variant(self.meta)
        if self.meta.multi_step_iterations and name in ("maml", "first-order"):
            return "maml++"
        annealed = self.meta.first_order_iterations >= self.iterations
        return "first-order" if name == "maml" and annealed else name

    @property
    def problem(self) -> str:
        """The family of tasks, and how many classes a task has."""
        ways = f", {self.tasks.ways}-way" if self.tasks.is_classification else ""
        return f"{self.tasks.function or self.tasks.family}{ways}"

    @property
    def modules(self) -> tuple[str, ...]:
        """The module of the user's own task function."""
        return tuple(filter(None, ((self.tasks.function or "").rpartition(":")[0],)))
