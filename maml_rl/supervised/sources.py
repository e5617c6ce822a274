"""The tasks of a run: their settings, and the source that draws them."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib import import_module
from typing import Literal

from maml_rl.config import require
from maml_rl.errors import InputError
from maml_rl.seeding import Phase
from maml_rl.supervised.data_sets import image_folder, mini_imagenet, omniglot
from maml_rl.supervised.few_shot import FewShot
from maml_rl.supervised.images import Colours
from maml_rl.supervised.tasks import FunctionTasks, RegressionTask, Sinusoid, TaskBatch, TaskSource, chunks

Family = Literal["sinusoid", "function", "omniglot", "mini-imagenet", "images"]
_BLOCK_BYTES = 16e6  # of tasks drawn at once
_BLOCK_ITERATIONS = 100

_IMAGES = ("omniglot", "mini-imagenet", "images")
_SETTINGS_OF = (  # those that not every family has, with the families
    (("observe_task",), ("sinusoid",)),
    (("ways", "rotations", "colours"), _IMAGES),
    (("split",), ("omniglot",)),
    (("image_size", "fractions", "split_seed"), ("images",)),
)


@dataclass(frozen=True)
class TasksConfig:
    """A distribution of supervised tasks."""

    family: Family = "sinusoid"
    """sinusoid; function, regression tasks from a function of yours; omniglot, mini-imagenet, or images, a directory
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
    """What is kept of an image: binary, grey or rgb; if None, binary for omniglot (paper), else rgb."""
    image_size: int = 84
    """Height and width that the images of the family images are resized to, pixels."""
    fractions: tuple[float, float, float] = (0.64, 0.16, 0.2)
    """Shares of the classes of the family images for training, validation and test, if its directory has no train, val
    and test."""
    split_seed: int = 0
    """Seed of that division."""

    def __post_init__(self) -> None:
        """Raises InputError for a value outside its range."""
        require("ways", self.ways, self.ways >= 2, "at least 2")
        require("shots", self.shots, self.shots >= 1, "at least 1")
        require("queries", self.queries, self.queries >= 1, "at least 1")
        allowed = {"omniglot": (None, "binary", "grey"), "mini-imagenet": (None, "rgb")}.get(self.family)
        if allowed and self.colours not in allowed:
            raise InputError(f"{self.family} has images in {' or '.join(filter(None, allowed))}, not {self.colours}")
        require("image_size", self.image_size, self.image_size >= 1, "at least 1")
        if (self.family == "function") != (self.function is not None):
            raise InputError("the family function needs --tasks.function module:function, and no other family takes it")
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


def with_shots(source: TaskSource, shots: int, queries: int | None) -> TaskSource:
    """The same tasks, of the same images, with another number of support examples, and of query examples unless None.

    Those of a function stay as they are.
    """
    if isinstance(source, (FewShot, Sinusoid)):
        return replace(source, shots=shots, queries=queries or source.queries)
    return source


def task_source(config: TasksConfig, data: str | None) -> TaskSource:
    """The source of a run's tasks.

    Raises:
        InputError: If data or function are missing or cannot be used.
    """
    if config.family == "sinusoid":
        return Sinusoid(config.shots, config.queries, config.observe_task)
    if config.family == "function":
        return FunctionTasks(_function(config.function or ""))
    if config.family == "images" and data is None:
        raise InputError("the family images needs --data DIR, a directory with a folder of images for each class")
    directory = data or f"data/{config.family}"
    if config.family == "omniglot":
        images = omniglot(directory, "grey" if config.colours == "grey" else "binary", config.split)
    elif config.family == "mini-imagenet":
        images = mini_imagenet(directory)
    else:
        size, colours = (config.image_size, config.image_size), config.colours or "rgb"
        images = image_folder(directory, size, colours, config.fractions, config.split_seed)
    return FewShot(images, config.ways, config.shots, config.queries, config.rotations)


def _function(name: str) -> RegressionTask:
    module, _, attribute = name.partition(":")
    try:
        function: RegressionTask = getattr(import_module(module), attribute)
    except (ImportError, AttributeError, SyntaxError, TypeError, ValueError) as error:
        raise InputError(f"tasks.function {name!r} cannot be imported ({error}): give module:function") from error
    if not callable(function):
        raise InputError(f"tasks.function {name!r} is no function but {function!r}: give module:function")
    return function


def training_batches(source: TaskSource, seed: int, meta_batch_size: int, start: int) -> Iterator[TaskBatch]:
    """The meta-batch of each iteration from `start` on; iteration i has the tasks from i M to i M + M - 1.

    Several are drawn at once, which is faster and changes nothing.
    """
    block = 1
    while True:
        first = start * meta_batch_size
        drawn = source.batch(seed, Phase.TRAINING, range(first, first + block * meta_batch_size))
        yield from chunks(drawn, meta_batch_size)
        start += block
        size = sum(examples.element_size() * examples.numel() for examples in drawn) / block
        block = max(1, min(_BLOCK_ITERATIONS, int(_BLOCK_BYTES / size)))
