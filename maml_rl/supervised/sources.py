"""The tasks of a run, from its settings."""

from collections.abc import Iterator
from dataclasses import replace

from maml_rl.errors import InputError
from maml_rl.imports import import_named
from maml_rl.seeding import Phase
from maml_rl.supervised.data_sets import image_folder, mini_imagenet, omniglot
from maml_rl.supervised.few_shot import FewShot
from maml_rl.supervised.settings import TasksConfig
from maml_rl.supervised.task_batches import FunctionTasks, Sinusoid, TaskBatch, TaskSource, chunks

_BLOCK_BYTES = 16e6  # of tasks drawn at once
_BLOCK_ITERATIONS = 100


def with_shots(source: TaskSource, shots: int, queries: int | None) -> TaskSource:
    """The same tasks with other numbers of examples; those of a function stay as they are.

    Args:
        source: The tasks.
        shots: Support examples of a task, or of each of its classes.
        queries: Query examples of a task, or of each of its classes; as they are if None.
    """
    if isinstance(source, (FewShot, Sinusoid)):
        return replace(source, shots=shots, queries=queries or source.queries)
    return source


def task_source(config: TasksConfig, data: str | None) -> TaskSource:
    """The source of a run's tasks.

    Args:
        config: Settings.
        data: Directory of the images, for families that have some; data/FAMILY if None.

    Raises:
        InputError: If data or function are missing or cannot be used.
    """
    if config.family == "sinusoid":
        return Sinusoid(config.shots, config.queries, config.observe_task)
    if config.family == "function":
        return FunctionTasks(import_named("tasks.function", config.function or ""))
    if config.family == "images" and data is None:
        raise InputError("the family images needs data, a directory with a folder of images for each class")
    directory = data or f"data/{config.family}"
    if config.family == "omniglot":
        images = omniglot(directory, "grey" if config.colours == "grey" else "binary", config.split)
    elif config.family == "mini-imagenet":
        images = mini_imagenet(directory)
    else:
        size, colours = (config.image_size, config.image_size), config.colours or "rgb"
        images = image_folder(directory, size, colours, config.fractions, config.split_seed)
    return FewShot(images, config.ways, config.shots, config.queries, config.rotations)


def training_batches(source: TaskSource, seed: int, meta_batch_size: int, start: int) -> Iterator[TaskBatch]:
    """The meta-batch of each iteration from `start` on; iteration i has tasks i M to i M + M - 1.

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
