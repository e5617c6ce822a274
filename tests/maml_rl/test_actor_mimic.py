"""Actor-Mimic: known optima, gradients, and runs that resume and load like any other."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from maml_rl.actor_mimic import Experts, MimicLearner, imitated
from maml_rl.config import Adam, Imitation, PolicyConfig, RLConfig, RLEvaluation, RLMeta, TrustRegion
from maml_rl.errors import InputError
from maml_rl.experiments.runs.evaluating import evaluate
from maml_rl.experiments.runs.training import resume, train
from maml_rl.initial import build_policy, parameters
from maml_rl.machine import Machine
from maml_rl.reinforcement import make_envs
from maml_rl.run import Run, load_run, new_run, open_learner, save_run
from maml_rl.seeding import Draw, Phase
from maml_rl.tasks import source_tasks
from maml_rl.types import Params, State

ONE_THREAD = Machine(threads=1)
NAVIGATION = "maml_rl.envs:finn2017/Navigation2D-v0"
META = RLMeta(meta_batch_size=2, inner_steps=0, episodes=4, step=Adam(lr=0.01))
LINEAR = PolicyConfig(hidden_sizes=(), standardise=False)
SMALL = PolicyConfig(hidden_sizes=(6,), standardise=False)
ORACLE = RLConfig(
    env_id=NAVIGATION,
    observe_task=True,
    iterations=1,
    max_episode_steps=5,
    meta=replace(META, step=TrustRegion()),
    network=SMALL,
    evaluation=RLEvaluation(tasks=2, gradient_steps=0, episodes=2),
)


def student(experts: Path | str, **settings: Any) -> RLConfig:
    """Settings of an imitation with small numbers."""
    evaluation = RLEvaluation(tasks=2, gradient_steps=1, episodes=2, validation_tasks=2, inner_lrs=(0.1, 0.2))
    imitation = Imitation(str(experts), updates=3, minibatch=16)
    own = {"observe_task": False, "iterations": 4, "meta": META, "evaluation": evaluation, "imitation": imitation}
    return replace(ORACLE, **own | settings)


def oracle_run(directory: Path, config: RLConfig = ORACLE, seed: int = 1) -> Path:
    """The run of an oracle with random weights that are far from the student's."""
    with closing(make_envs(config, 1)) as envs:
        policy = build_policy(envs, config.network, seed)
    save_run(directory, Run(config, State(parameters(policy), {}, 1), dict(policy.named_buffers())))
    return directory


@contextmanager
def taught(
    config: RLConfig, write: Callable[[Params], None] = lambda _: None, machine: Machine = ONE_THREAD
) -> Iterator[MimicLearner]:
    """The learner of an imitation whose experts have the network of the settings, with weights that `write` changes."""
    observing = replace(config, observe_task=True)
    with closing(make_envs(observing, 1)) as envs:
        oracle = build_policy(envs, config.network, 7)
    params = parameters(oracle)
    write(params)
    envs = make_envs(config, config.meta.meta_batch_size * config.meta.episodes)
    experts = Experts(oracle, params, envs.get_attr("task_space")[0], appends_task=not config.observe_task)
    with MimicLearner(config, envs, build_policy(envs, config.network, config.seed), experts, machine) as learner:
        yield learner


def iterated(learner: MimicLearner, count: int) -> tuple[State, list[dict[str, float]]]:
    """The state after some iterations, and the metrics of each."""
    state, rows = learner.initial(), []
    for _ in range(count):
        state, metrics = learner.iterate(state)
        rows.append(metrics.values)
    return state, rows


# Known optima


def test_a_blind_student_of_contradicting_experts_learns_the_mean_action_and_a_wider_deviation() -> None:
    # The expert of goal g acts by N(3 g, 0.5^2) everywhere. In each dimension the minimiser of the sum of
    # KL(N(m_i, s^2) || N(m, d^2)) is m = mean(m_i), d^2 = s^2 + mean((m_i - m)^2).
    def write(params: Params) -> None:
        params["weight_0"][:] = torch.tensor([[0.0, 0, 3, 0], [0, 0, 0, 3]])
        params["log_std"][:] = np.log(0.5)

    config = student("unused", network=LINEAR)
    # Near the optimum the steps of Adam do not shrink: a cosine makes the last ones small.
    meta = replace(META, episodes=50, step=Adam(lr=0.1, cosine_iterations=30))
    imitation = replace(config.imitation, updates=15, minibatch=128, feature_weight=0.0)
    with taught(replace(config, meta=meta, imitation=imitation), write) as learner:
        state, rows = iterated(learner, 30)
        goals = torch.from_numpy(np.stack(learner.tasks))
        here = learner.policy(state.meta, torch.tensor([[0.0, 0.0], [0.1, -0.1]]))
    wanted = 3 * goals.mean(0)
    variance = 0.25 + (3 * goals - wanted).square().mean(0)
    torch.testing.assert_close(here.mean, wanted.expand(2, 2), atol=0.05, rtol=0)
    torch.testing.assert_close(here.log_std[0].exp().square(), variance, rtol=0.03, atol=0)
    # What is left: mean over tasks of the KL at the optimum, sum over dimensions of log(d / s), here exact.
    assert rows[-1]["mimic/kl"] == pytest.approx(float((variance.sqrt() / 0.5).log().sum()), rel=0.02)


def test_a_blind_student_of_discrete_experts_learns_the_mean_of_their_distributions() -> None:
    def write(params: Params) -> None:
        params["weight_0"][:] = torch.cat([torch.zeros(5, 1), 4 * torch.eye(5)], 1)  # softmax of 4 times the means

    config = student("unused", network=LINEAR, env_id="maml_rl.envs:duan2016/BernoulliBandit-v0")
    meta = replace(META, meta_batch_size=3, step=Adam(lr=0.05, cosine_iterations=40))
    with taught(replace(config, meta=meta, imitation=replace(config.imitation, updates=10)), write) as learner:
        state, _ = iterated(learner, 40)
        wanted = torch.stack([torch.softmax(4 * torch.from_numpy(task), 0) for task in learner.tasks]).mean(0)
        found = learner.policy(state.meta, torch.ones(1, 1)).parameters()[0].softmax(-1)[0]
    torch.testing.assert_close(found, wanted.float(), atol=0.005, rtol=0)


def test_the_cross_entropy_of_a_perfect_student_is_the_entropy_of_its_experts() -> None:
    config = student("unused", observe_task=True, env_id="maml_rl.envs:parisotto2016/GridWorldSources-v0")
    with taught(replace(config, meta=replace(META, meta_batch_size=13))) as learner:
        state = learner.initial()._replace(meta=dict(learner.experts.params))
        values = learner.iterate(state)[1].values
    assert values["mimic/kl"] == pytest.approx(0.0, abs=1e-6)
    assert values["mimic/cross_entropy"] == pytest.approx(values["mimic/expert_entropy"], abs=1e-6)
    assert values["mimic/expert_entropy"] > 1.0  # of at most log 4


def test_the_maps_of_the_features_are_learned_with_the_student_and_left_out_with_weight_0() -> None:
    config = student("unused")
    imitation = replace(config.imitation, updates=30, feature_weight=1.0)
    meta = replace(META, step=Adam(lr=0.02))
    with taught(replace(config, meta=meta, imitation=imitation)) as learner:
        _, rows = iterated(learner, 8)
    assert rows[-1]["mimic/feature_distance"] < 0.2 * rows[0]["mimic/feature_distance"]
    with taught(replace(config, imitation=replace(imitation, feature_weight=0.0))) as learner:
        state, (values,) = iterated(learner, 1)
    assert not any(name.startswith("features") for name in state.optimizer)
    assert "mimic/feature_distance" not in values


def test_the_gradient_is_that_of_the_mean_over_tasks() -> None:
    config = student("unused")
    plain = replace(META, step=Adam(lr=1.0, mean_decay=0.0, square_decay=0.0, epsilon=1e12))
    imitation = Imitation("unused", updates=1, minibatch=20, feature_weight=0.3)
    with taught(replace(config, meta=plain, imitation=imitation)) as learner:
        state = learner.initial()
        after, _ = learner.iterate(state)
        # With such an epsilon and no decay, a step of Adam is minus the gradient divided by epsilon.
        moment = {name: after.optimizer[f"adam.first.{name}"] for name in [*state.meta, "features.maps"]}
        lessons = recorded_lessons(learner, state)
    given = {name: value.clone().requires_grad_() for name, value in state.meta.items()}
    maps = state.optimizer["features.maps"].clone().requires_grad_()
    loss = torch.zeros(())
    for m, lesson in enumerate(lessons):
        generator = Draw(config.seed, Phase.TRAINING, 0).generator(4, m)  # type: ignore[arg-type]
        rows = lesson.rows(torch.from_numpy(generator.integers(len(lesson.observations), size=20)))
        features = learner.policy.features(given, rows.observations)
        kl = rows.expert.kl(learner.policy(given, rows.observations)).mean()
        distance = (features @ maps[m].T - rows.features).square().sum(1).mean()
        loss = loss + (kl + 0.3 * distance) / 2
    loss.backward()
    for name, value in given.items():
        torch.testing.assert_close(moment[name], value.grad, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(moment["features.maps"], maps.grad, atol=1e-6, rtol=1e-5)


def recorded_lessons(learner: MimicLearner, state: State) -> list[Any]:
    """The lessons of the iteration from a state."""
    from maml_rl import actor_mimic

    found: list[Any] = []
    original = actor_mimic._lessons
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(actor_mimic, "_lessons", lambda *given: found.extend(original(*given)) or list(found))
        learner.iterate(state)
    return found


def test_a_student_that_explores_takes_its_likeliest_action_except_with_probability_epsilon() -> None:
    config = student("unused", env_id="maml_rl.envs:duan2016/BernoulliBandit-v0")
    config = replace(config, meta=replace(META, episodes=100), max_episode_steps=10)
    with taught(replace(config, imitation=replace(config.imitation, epsilon=0.2))) as learner:
        actions: list[torch.Tensor] = []
        state = learner.initial()
        likeliest = int(learner.policy(state.meta, torch.ones(1, 1)).parameters()[0].argmax())
        with pytest.MonkeyPatch.context() as patch:
            from maml_rl import actor_mimic

            original = actor_mimic.collect
            patch.setattr(
                actor_mimic, "collect", lambda *given: actions.append(original(*given).actions) or original(*given)
            )
            learner.iterate(state)
    shares = torch.bincount(actions[0].reshape(-1), minlength=5) / actions[0].numel()
    wanted = torch.full((5,), 0.04)
    wanted[likeliest] = 0.84
    torch.testing.assert_close(shares, wanted, atol=0.04, rtol=0)  # 2000 actions: standard error 0.008


# Runs


def equal(one: State, other: State) -> bool:
    """Whether two states are the same, bit for bit."""
    ours, theirs = one.meta | one.optimizer, other.meta | other.optimizer
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_run_resumes_bit_for_bit_and_needs_its_experts_only_to_train(tmp_path: Path) -> None:
    experts = oracle_run(tmp_path / "oracle")
    config = student(experts)
    whole = train(config, tmp_path / "whole", ONE_THREAD)
    train(replace(config, iterations=2), tmp_path / "parts", Machine(threads=2))
    assert equal(resume(tmp_path / "parts", 4, machine=ONE_THREAD).state, whole.state)
    shutil.rmtree(experts)
    run = load_run(tmp_path / "whole")
    assert run.config.method == "mimic"
    evaluation = evaluate(tmp_path / "whole", machine=ONE_THREAD)
    chosen = evaluation.curves[0].validation
    assert chosen is not None  # as for a pretrained run
    assert chosen.inner_lrs == (0.1, 0.2)
    with run.open(ONE_THREAD) as learner, pytest.raises(InputError, match="open its learner with open_learner"):
        learner.iterate(run.state)
    with pytest.raises(InputError, match="oracle"):
        resume(tmp_path / "whole", 5, machine=ONE_THREAD)


def test_a_student_of_pictures_learns_from_experts_of_pictures_and_tasks(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "environments")  # holds space_environments.py
    forking = replace(ONE_THREAD, processes=1, start_method="fork")
    network = PolicyConfig(hidden_sizes=(4,), filters=(2,))
    oracle = replace(ORACLE, env_id="space_environments:OfPictures-v0", max_episode_steps=None, network=network)
    train(oracle, tmp_path / "oracle", forking)
    of_pictures = {"env_id": oracle.env_id, "max_episode_steps": None, "network": network}
    config = student(tmp_path / "oracle", **of_pictures)
    config = replace(config, imitation=replace(config.imitation, feature_weight=0.1))
    whole = train(config, tmp_path / "whole", forking)
    assert "network.filters_0_0" in whole.state.meta
    assert "features.maps" in whole.state.optimizer
    train(replace(config, iterations=2), tmp_path / "parts", forking)
    assert equal(resume(tmp_path / "parts", 4, machine=forking).state, whole.state)


def test_an_imitation_continues_a_policy_and_a_policy_an_imitation(tmp_path: Path) -> None:
    experts = oracle_run(tmp_path / "oracle")
    train(student(experts), tmp_path / "mimic", ONE_THREAD)
    rewards = replace(
        student(experts), imitation=Imitation(), meta=ORACLE.meta, start_from=str(tmp_path / "mimic"), iterations=1
    )
    with open_learner(rewards, ONE_THREAD) as learner:
        begun = new_run(learner, rewards).state.meta
        assert learner.iterate(new_run(learner, rewards).state)[0].iteration == 1
    reached = load_run(tmp_path / "mimic").state.meta
    assert all(torch.equal(begun[name], reached[name]) for name in begun)
    again = student(experts, start_from=str(tmp_path / "mimic"))
    assert train(again, tmp_path / "again", ONE_THREAD).state.iteration == 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"observe_task": False},
            "is a run of the method pretrained, but an expert has to observe the task: give a run of the",
        ),
        ({"iterations": 0}, "is a run of the method random"),
        ({"meta": RLMeta()}, "is a run of the method maml-oracle"),
        ({"env_id": "maml_rl.envs:finn2017/AntVel-v0"}, "is a run in maml_rl.envs:finn2017/AntVel-v0, but the student"),
    ],
)
def test_a_run_that_has_no_experts_for_the_tasks_is_refused(tmp_path: Path, change: Any, message: str) -> None:
    experts = oracle_run(tmp_path / "oracle")
    run = load_run(experts)
    save_run(experts, run._replace(config=replace(run.rl_config, **change)))
    with pytest.raises(InputError, match=message) as refused:
        train(student(experts), tmp_path / "out", ONE_THREAD)
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "out").exists()


def test_experts_of_other_spaces_and_missing_ones_are_refused(tmp_path: Path) -> None:
    experts = oracle_run(tmp_path / "oracle")
    run = load_run(experts)
    other = run.state._replace(meta=run.state.meta | {"log_std": torch.zeros(3)})
    save_run(experts, run._replace(state=other))
    with pytest.raises(InputError, match=r"does not match its tasks and network: log_std should be \(2,\)"):
        train(student(experts), tmp_path / "out", ONE_THREAD)
    with pytest.raises(InputError, match="nowhere"):
        train(student(tmp_path / "nowhere"), tmp_path / "out", ONE_THREAD)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"meta": RLMeta(step=Adam())}, "imitation.experts is for training without inner updates, got 1"),
        ({"meta": RLMeta(inner_steps=0)}, "imitation takes its steps by adam or sgd, got trust-region"),
    ],
)
def test_settings_that_do_not_fit_imitation_are_refused(settings: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        replace(student("unused"), **settings)


def test_random_moves_are_for_discrete_actions_and_a_task_has_one_expert(tmp_path: Path) -> None:
    experts = oracle_run(tmp_path / "oracle")
    config = student(experts)
    greedy = replace(config, imitation=replace(config.imitation, epsilon=0.1))
    with pytest.raises(InputError, match=r"imitation\.epsilon is for discrete actions, but the actions are in Box"):
        train(greedy, tmp_path / "out", ONE_THREAD)
    space = load_space("maml_rl.envs:finn2017/HalfCheetahDir-v0")
    assert source_tasks(space, 2, Draw(0, Phase.TRAINING)) == [0, 1]
    with pytest.raises(InputError, match=r"Discrete\(2\) has 2 tasks, not 3: set meta.meta_batch_size to at most 2"):
        source_tasks(space, 3, Draw(0, Phase.TRAINING))


def load_space(env_id: str) -> Any:
    """p(T) of an environment."""
    with closing(make_envs(replace(ORACLE, env_id=env_id, observe_task=False), 1)) as envs:
        return envs.get_attr("task_space")[0]


def test_without_feature_maps_only_the_kl_is_measured() -> None:
    with taught(student("unused")) as learner:
        state = learner.initial()
        (lesson, *_) = recorded_lessons(learner, state)
        without = imitated(learner.policy, state.meta, lesson, None)
    assert float(without.features) == 0.0
    assert float(without.kl) > 0.0
