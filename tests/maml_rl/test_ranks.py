import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from maml_rl import ranks as ranks_module
from maml_rl.config import PolicyConfig
from maml_rl.errors import InputError
from maml_rl.initial import build_policy, parameters
from maml_rl.ranks import ALONE, Launch, Ranks, Share, fair_cores
from maml_rl.rollouts import collect
from maml_rl.seeding import Draw, Phase
from maml_rl.tasks import sample_tasks, task_space, vectorize
from maml_rl.types import repeat

TRAINING = Path(__file__).with_name("train_on_ranks.py")
NAVIGATION = "maml_rl.envs:finn2017/Navigation2D-v0"


def shares(count: int, size: int) -> list[Share]:
    """The shares of all ranks."""
    return [Share(Ranks(Launch(rank, size, rank, size)), count) for rank in range(size)]


@pytest.mark.parametrize(("count", "size"), [(40, 1), (40, 3), (7, 7), (20, 8)])
def test_shares_are_contiguous_and_differ_by_at_most_one_task(count, size):
    parts = shares(count, size)
    assert [index for part in parts for index in part.indices] == list(range(count))
    lengths = {len(part.indices) for part in parts}
    assert max(lengths) - min(lengths) <= 1
    assert parts[-1].of(list(range(count))) == list(parts[-1].indices)


def test_a_single_process_has_no_share_and_too_many_ranks_are_refused():
    assert ALONE.share(1, "a meta-iteration of one task", "take more") is None
    with pytest.raises(InputError, match="3 ranks cannot share a meta-iteration of 2 tasks: start at most 2, or take"):
        Ranks(Launch(0, 3, 0, 3)).share(2, "a meta-iteration of 2 tasks", "take more")


def test_placed_parameters_begin_where_those_of_all_tasks_do():
    everything = torch.arange(20 * 5.0).reshape(20, 5)
    for part in shares(20, 6):
        own = everything[part.start : part.stop].clone()
        placed = part.placed({"a": own})["a"]
        assert torch.equal(placed, own)
        offsets = [(view.data_ptr() - everything.data_ptr()) % 64 for view in everything[part.start : part.stop]]
        base = placed.data_ptr() - 4 * 5 * part.lead
        assert [(view.data_ptr() - base) % 64 for view in placed] == offsets


@pytest.mark.parametrize(("episodes", "size"), [(5, 3), (16, 3), (5, 7)])
@pytest.mark.parametrize("num_envs", [4, 50])
def test_a_share_samples_what_a_single_process_samples_for_its_tasks(episodes, size, num_envs):
    envs = vectorize(NAVIGATION, num_envs, max_episode_steps=10)
    policy = build_policy(envs, PolicyConfig(hidden_sizes=(7, 5)), seed=0)
    tasks, draw = sample_tasks(task_space(envs), 7, seed=1), Draw(0, Phase.TRAINING)
    noise = torch.Generator().manual_seed(0)
    same = repeat(parameters(policy), 7)
    different = {name: value + torch.randn(value.shape, generator=noise) / 9 for name, value in same.items()}
    for params, is_adapted in ((same, False), (different, True)):
        everything = collect(envs, policy, params, tasks, episodes, draw)
        for part in shares(7, size):
            of_share = {name: value[part.start : part.stop] for name, value in params.items()}
            own = part.placed(of_share) if is_adapted else part.repeated(parameters(policy))
            sampled = collect(envs, policy, own, part.of(tasks), episodes, draw, part)
            for found, expected in zip(sampled, everything, strict=True):
                assert torch.equal(found, expected[part.start : part.stop])


def test_ranks_that_may_use_the_same_cores_of_a_machine_share_them():
    five, both = [0, 1, 2, 4, 5], [0, 1]
    allowed = [("a", five), ("b", five), ("a", five), ("b", both), ("b", both), ("b", both), ("c", both)]
    parts = [fair_cores(allowed, rank) for rank in range(len(allowed))]
    assert parts == [[0, 1], five, [2, 4, 5], [0], [0], [1], both]


def test_accelerators_of_a_machine_go_to_its_ranks_in_turn(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [Ranks(Launch(rank, 4, rank, 4)).device("cuda") for rank in range(3)] == ["cuda:0", "cuda:1", "cuda:0"]
    assert Ranks(Launch(1, 4, 1, 4)).device("cuda:0") == "cuda:0"
    assert (Ranks(Launch(1, 2, 0, 1)).device("cuda"), ALONE.device("cpu")) == ("cuda", "cpu")


def test_a_single_rank_gathers_only_its_own_value():
    assert ALONE.gather_objects({"a": 1}) == [{"a": 1}]
    assert ALONE.from_first(3) == 3
    ALONE.check_alike({"a": 1})
    with pytest.raises(KeyboardInterrupt), ranks_module.naming_the_ended(ALONE):
        raise KeyboardInterrupt


def test_three_ranks_equal_one_bit_for_bit(tmp_path):
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=3"]
    subprocess.run([*launcher, TRAINING, tmp_path], check=True, timeout=300, capture_output=True)
    alone = runpy.run_path(str(TRAINING))["trained"]()
    for rank in range(3):
        assert json.loads((tmp_path / f"{rank}.json").read_text()) == alone
