import io
from collections import Counter
from itertools import permutations

import numpy as np
import pytest
import torch
from PIL import Image

from maml_rl.errors import InputError
from maml_rl.seeding import Draw, Phase, uniforms
from maml_rl.supervised.few_shot import FewShot, distinct, turned
from maml_rl.supervised.images import ImageFile, ImageForm, ImageSplits

PHASES = (Phase.TRAINING, Phase.VALIDATION, Phase.EVALUATION)
PER_CLASS = 4


def encoded(pixels: np.ndarray) -> ImageFile:
    buffer = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(buffer, "PNG")
    return ImageFile("drawn.png", buffer.getvalue)


def number_of(x: torch.Tensor) -> torch.Tensor:
    """Which image it is: images of these tests hold their number in every pixel."""
    return (x[..., 0, 0, 0] * 255).round().long()


@pytest.fixture(scope="module")
def data() -> ImageSplits:
    """Four images of each of eight classes in each split: image j of class i of split k is 32 k + 4 i + j."""
    classes = {
        phase: {
            f"{phase.name}{i}": [encoded(np.full((2, 2), 32 * k + PER_CLASS * i + j)) for j in range(PER_CLASS)]
            for i in range(8)
        }
        for k, phase in enumerate(PHASES)
    }
    return ImageSplits("these", ImageForm((2, 2), "grey"), classes)


@pytest.mark.parametrize("phase", PHASES)
def test_a_task_has_different_classes_of_its_split_and_different_images(data: ImageSplits, phase: Phase) -> None:
    batch = FewShot(data, ways=3, shots=2, queries=1).batch(0, phase, range(200))
    assert [tuple(part.shape) for part in batch] == [(200, 6, 1, 2, 2), (200, 6), (200, 3, 1, 2, 2), (200, 3)]
    support, query = number_of(batch.support_x), number_of(batch.query_x)
    assert torch.equal(torch.cat([support, query], 1).unique(), torch.arange(32) + 32 * PHASES.index(phase))
    for task in range(200):
        classes = {label: set() for label in range(3)}  # type: ignore[var-annotated]
        for numbers, labels in ((support, batch.support_y), (query, batch.query_y)):
            for number, label in zip(numbers[task].tolist(), labels[task].tolist(), strict=True):
                classes[label].add(number // PER_CLASS)
        assert [len(found) for found in classes.values()] == [1, 1, 1]  # each label is one class, in support and query
        assert len(set.union(*classes.values())) == 3  # and no other label's
        assert len({*support[task].tolist(), *query[task].tolist()}) == 9  # no image is twice in a task


def test_classes_labels_and_images_are_drawn_equally_often(data: ImageSplits) -> None:
    batch = FewShot(data, ways=2, shots=1, queries=1).batch(0, Phase.TRAINING, range(6000))
    pairs = Counter(zip((number_of(batch.support_x) // PER_CLASS).flatten().tolist(), [0, 1] * 6000, strict=True))
    assert len(pairs) == 16
    # 6000 / 8 = 750 of each, with standard deviation sqrt(6000 x 1/8 x 7/8) = 26.
    assert all(abs(count - 750) < 5 * 26 for count in pairs.values())
    images = Counter(number_of(batch.query_x).flatten().tolist())
    assert all(abs(images[number] - 375) < 5 * 19.3 for number in range(32))


def test_a_task_is_a_function_of_seed_phase_and_index(data: ImageSplits) -> None:
    source = FewShot(data, ways=3, shots=2, queries=2)
    together = source.batch(4, Phase.TRAINING, range(30))
    alone = source.batch(4, Phase.TRAINING, [29, 3])
    for one, other in zip(alone, together, strict=True):
        assert torch.equal(one, other[[29, 3]])
    assert not torch.equal(source.batch(5, Phase.TRAINING, range(30)).support_x, together.support_x)


def test_tasks_are_the_same_on_every_platform(data: ImageSplits) -> None:
    batch = FewShot(data, ways=3, shots=1, queries=1).batch(0, Phase.EVALUATION, [0, 1000])
    assert (number_of(batch.support_x) - 64).tolist() == [[26, 10, 7], [19, 22, 10]]
    assert (number_of(batch.query_x) - 64).tolist() == [[25, 9, 4], [18, 21, 9]]


def test_pixels_are_from_zero_to_one() -> None:
    files = [encoded(np.full((2, 2), value)) for value in (0, 255)]
    data = ImageSplits("these", ImageForm((2, 2), "grey"), {Phase.TRAINING: {"a": files, "b": files}})
    batch = FewShot(data, ways=2).batch(0, Phase.TRAINING, range(20))
    assert batch.support_x.dtype == torch.float32
    assert batch.support_x.unique().tolist() == [0.0, 1.0]


def test_each_class_of_a_task_is_turned_as_a_whole() -> None:
    corner = np.array([[255, 0], [0, 0]])
    classes = {str(i): [encoded(corner)] * 4 for i in range(5)}
    data = ImageSplits("these", ImageForm((2, 2), "binary"), {Phase.TRAINING: classes})
    batch = FewShot(data, ways=5, shots=2, queries=1, rotations=True).batch(0, Phase.TRAINING, range(400))
    where = batch.support_x.flatten(2).argmax(2).view(400, 5, 2)
    assert torch.equal(where[..., 0], where[..., 1])
    assert torch.equal(where[..., 0], batch.query_x.flatten(2).argmax(2))
    counts = where[..., 0].flatten().bincount()
    assert all(abs(count - 500) < 5 * 19.4 for count in counts.tolist())  # sqrt(2000 x 1/4 x 3/4) = 19.4
    assert (where[:, 0, 0] != where[:, 1, 0]).any()  # classes of a task are turned independently
    plain = FewShot(data, ways=5, shots=2, queries=1).batch(0, Phase.TRAINING, range(20))
    assert not plain.support_x.flatten(2).argmax(2).any()


def test_a_quarter_turn_is_anticlockwise() -> None:
    image = np.array([[1, 2], [3, 4]], dtype=np.uint8).reshape(1, 1, 1, 2, 2)
    quarters = np.arange(4)
    found = turned(np.repeat(image, 4, 0), quarters)[:, 0, 0]
    assert found.tolist() == [[[1, 2], [3, 4]], [[2, 4], [1, 3]], [[4, 3], [2, 1]], [[3, 1], [4, 2]]]
    assert image.ravel().tolist() == [1, 2, 3, 4]


def test_distinct_numbers_by_hand() -> None:
    # 0.5 x 4 = 2; then 0.7 x 3 = 2 of the left {0, 1, 3} is 3; then 0.6 x 2 = 1 of {0, 1} is 1; then the 0 left.
    assert distinct(np.array([0.5, 0.7, 0.6, 0.9]), np.int64(4)).tolist() == [2, 3, 1, 0]


def test_every_ordered_choice_is_equally_likely() -> None:
    numbers = uniforms(Draw(0, Phase.TRAINING), range(24_000), 3)
    found = Counter(map(tuple, distinct(numbers, np.int64(4)).tolist()))
    assert set(found) == set(permutations(range(4), 3))
    # 1000 of each of 24, standard deviation 31: chi squared of 23 degrees of freedom is below 58 but for 1 in 10,000.
    assert sum((count - 1000) ** 2 / 1000 for count in found.values()) < 58


def test_sets_of_different_sizes_are_drawn_from_within_each() -> None:
    sizes = np.array([3, 50, 7])
    found = distinct(uniforms(Draw(0, Phase.TRAINING), range(3), 3), sizes)
    assert (found < sizes[:, None]).all()
    assert sorted(found[0].tolist()) == [0, 1, 2]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"ways": 9}, "9 ways are too many: the training split of these has 8 classes"),
        ({"shots": 3, "queries": 2}, "3 shots and 2 queries are too many: class 'TRAINING0' of these has 4 images"),
        ({"shots": 0}, "at least 1 way, shot and query, got 5, 0 and 1"),
    ],
)
def test_tasks_that_the_images_do_not_allow_are_refused(
    data: ImageSplits, settings: dict[str, int], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        FewShot(data, **settings)  # type: ignore[arg-type]


def test_too_few_validation_classes_do_not_prevent_training(data: ImageSplits) -> None:
    few = dict(list(data.classes[Phase.VALIDATION].items())[:2])
    source = FewShot(ImageSplits("these", data.form, {**data.classes, Phase.VALIDATION: few}), ways=3)
    assert source.batch(0, Phase.TRAINING, [0]).support_y.tolist() == [[0, 1, 2]]
    with pytest.raises(InputError, match="3 ways are too many: the validation split of these has 2 classes"):
        source.batch(0, Phase.VALIDATION, [0])


def test_images_that_are_not_square_are_not_turned() -> None:
    files = [encoded(np.zeros((2, 3)))] * 2
    data = ImageSplits("these", ImageForm((2, 3), "grey"), {Phase.TRAINING: {"a": files}})
    with pytest.raises(InputError, match="only square images can be rotated, those of these are 2 x 3"):
        FewShot(data, ways=1, rotations=True)
    with pytest.raises(InputError, match="these has no classes for evaluation"):
        FewShot(data, ways=1).batch(0, Phase.EVALUATION, [0])
