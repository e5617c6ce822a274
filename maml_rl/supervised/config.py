"""Settings of supervised meta-learning, with source beside each."""

from dataclasses import dataclass
from typing import Literal

from maml_rl.config import require
from maml_rl.errors import InputError

Algorithm = Literal["maml", "reptile"]
Adapted = Literal["all", "last-layer"]
LearnedLr = Literal["no", "parameter", "layer-and-step"]
Optimizer = Literal["adam", "sgd"]
BatchNorm = Literal["transductive", "support"]


@dataclass(frozen=True)
class MethodConfig:
    """One meta-iteration of Algorithm 2 (Finn, Abbeel, Levine 2017), and its relatives."""

    algorithm: Algorithm = "maml"
    """How the meta-gradient comes about: maml, by differentiating the query loss after adaptation; reptile, as the
    distance that adaptation went (Nichol et al. 2018)."""
    meta_batch_size: int = 25
    """Tasks in a meta-iteration, M (paper: 25 sinusoids; 32 or 16 of Omniglot; 4 or 2 of MiniImagenet)."""
    inner_steps: int = 1
    """Gradient steps of the inner update; 0 trains on all tasks at once, the paper's pretrained baseline."""
    inner_lr: float = 0.01
    """Step size alpha of the inner update on the mean loss over the support examples. The paper's code divides a sum
    over ways x shots by shots, so its alpha of 0.4 for 5 ways is 2.0 here."""
    first_order: bool = False
    """Leave out the derivative of the inner update: first-order MAML."""
    first_order_iterations: int = 0
    """Meta-iterations at the start that leave it out: derivative-order annealing (Antoniou et al. 2019, MAML++)."""
    adapted: Adapted = "all"
    """Which parameters the inner update changes: all but those of batch normalisation (paper's code), or those of the
    last layer, of a module of one's own the layer that it defines last (Raghu et al. 2020, ANIL)."""
    learned_lr: LearnedLr = "no"
    """Step sizes learned beside theta, beginning with `inner_lr`: one for each number (parameter; Li et al. 2017,
    Meta-SGD), or one for each tensor and gradient step (layer-and-step; Antoniou et al. 2019, MAML++)."""
    multi_step_iterations: int = 0
    """Meta-iterations over which the query losses after all gradient steps count, from equal weights to the last one
    alone (Antoniou et al. 2019, MAML++); 0 counts the last alone. It needs 2 inner steps or more."""
    batch_norm: BatchNorm = "transductive"
    """Statistics of batch normalisation for the query examples: transductive, their own (the paper's code); or support,
    those of the support examples, so that no query example knows of another."""
    optimizer: Optimizer = "adam"
    """Optimiser of theta: adam (paper), or sgd, plain gradient descent (Reptile)."""
    outer_lr: float = 1e-3
    """Step size beta of the meta-update (paper: 0.001)."""
    cosine_iterations: int | None = None
    """Meta-iterations over which beta falls along a half cosine to a hundredth (Antoniou et al. 2019); training that is
    longer repeats it (Loshchilov & Hutter 2017). Constant if None."""
    gradient_clip: float | None = None
    """Bound on each number of the gradient of the mean query loss; None for none. The paper's code bounds that of a sum
    over ways x queries divided by shots: its 10 for MiniImagenet is 10 x shots / (ways x queries) here, so 0.133 for 1
    shot and 0.667 for 5."""
    chunk_size: int | None = None
    """Tasks differentiated at once, on which memory depends, and rounding; all if None."""

    def __post_init__(self) -> None:
        """Raises InputError for a value outside its range."""
        require("meta_batch_size", self.meta_batch_size, self.meta_batch_size >= 1, "at least 1")
        require("inner_steps", self.inner_steps, self.inner_steps >= 0, "at least 0")
        require("inner_lr", self.inner_lr, self.inner_lr > 0, "above 0")
        for name in ("first_order_iterations", "multi_step_iterations"):
            require(name, getattr(self, name), getattr(self, name) >= 0, "at least 0")
        require("outer_lr", self.outer_lr, self.outer_lr > 0, "above 0")
        for name in ("cosine_iterations", "chunk_size"):
            value = getattr(self, name)
            require(name, str(value), value is None or value >= 1, "at least 1 or None")
        clip = self.gradient_clip
        require("gradient_clip", str(clip), clip is None or clip > 0, "above 0 or None")
        if self.multi_step_iterations and self.inner_steps < 2:
            raise InputError(f"multi_step_iterations needs inner_steps of at least 2, got {self.inner_steps}")
        if self.learned_lr != "no" and self.inner_steps < 1:
            raise InputError("learned_lr needs inner_steps of at least 1, got 0: there is no step whose size it learns")
        if self.algorithm == "reptile":
            self._check_reptile()

    def _check_reptile(self) -> None:
        require("inner_steps", self.inner_steps, self.inner_steps >= 1, "at least 1 for Reptile")
        if self.adapted != "all":
            raise InputError("Reptile learns only what it adapts: set adapted to all")
        for name in ("first_order", "first_order_iterations", "multi_step_iterations"):
            if getattr(self, name):
                raise InputError(f"{name} has no meaning for Reptile, which takes no derivative of the inner update")
        if self.learned_lr != "no":
            raise InputError("Reptile learns no step sizes: set learned_lr to no, or algorithm to maml")
