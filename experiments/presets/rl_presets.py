"""Settings of experiments by name: the published ones, and better ones."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from maml_rl.config import Adam, Imitation, PolicyConfig, ProMP, RLConfig, RLEvaluation, RLMeta, TrustRegion
from maml_rl.experiments.presets.preset import Preset

_FINN = "Finn, Abbeel, Levine 2017"
_ROTHFUSS = "Rothfuss et al. 2019 (ProMP)"
_ZINTGRAF = "Zintgraf et al. 2019 (CAVIA)"
_NAGABANDI = "Nagabandi et al. 2019"
_DUAN = "Duan et al. 2016 (RL^2)"
_PARISOTTO = "Parisotto, Ba, Salakhutdinov 2016 (Actor-Mimic)"
_META_WORLD = "Yu et al. 2019 and McLean et al. 2025 (Meta-World), from their code"


CUSTOM = "custom"
"""Preset for environments that come without settings, and the default of `maml-rl train --env-id`."""
UNNAMED = "module:My-v0"
"""Placeholder for the environment's id in that preset."""


# Measured without a bound on observations, and kept so (docs/implementation_details.md).
_UNBOUNDED = PolicyConfig(observation_clip=None)
_RAW = replace(_UNBOUNDED, standardise=False)
_NAVIGATION = RLConfig(
    env_id="maml_rl.envs:finn2017/Navigation2D-v0",
    iterations=100,
    meta=RLMeta(meta_batch_size=20, episodes=20, inner_lr=0.5, step=TrustRegion(max_kl=0.01, hessian_fraction=0.25)),
    network=_RAW,
    evaluation=RLEvaluation(episodes=40, later_lr_factor=0.3),
)
_DIRECTION = RLConfig(
    env_id="maml_rl.envs:finn2017/HalfCheetahDir-v0",
    iterations=100,
    meta=RLMeta(meta_batch_size=40, episodes=20, inner_lr=0.1, step=TrustRegion(max_kl=0.02, hessian_fraction=0.25)),
    network=_UNBOUNDED,
)
_VELOCITY = RLConfig(
    env_id="maml_rl.envs:finn2017/HalfCheetahVel-v0",
    iterations=475,
    meta=RLMeta(meta_batch_size=40, episodes=10, inner_lr=0.1, step=TrustRegion(max_kl=0.01, hessian_fraction=0.25)),
    network=_UNBOUNDED,
)
_ANT_VELOCITY = RLConfig(
    env_id="maml_rl.envs:finn2017/AntVel-v0",
    iterations=375,
    meta=RLMeta(meta_batch_size=40, episodes=20, inner_lr=0.1, step=TrustRegion(max_kl=0.01, hessian_fraction=0.25)),
    network=_UNBOUNDED,
)
_ANT_DIRECTION = replace(
    _ANT_VELOCITY,
    env_id="maml_rl.envs:finn2017/AntDir-v0",
    iterations=575,
    meta=replace(_ANT_VELOCITY.meta, episodes=40),
    evaluation=RLEvaluation(episodes=40),
)
_PUBLISHED = "published settings, raw observations; but exact curvature on a quarter of the steps, exactly K episodes"
_STANDARDISED = "changed: observations standardised, lambda 0.97"
_DIRECTION_STANDARDISED = replace(
    _DIRECTION, iterations=130, meta=replace(_DIRECTION.meta, meta_batch_size=20, gae_lambda=0.97)
)
_VELOCITY_STANDARDISED = replace(
    _VELOCITY,
    meta=replace(_VELOCITY.meta, gae_lambda=0.97, step=TrustRegion(max_kl=0.01, cg_damping=0.1, hessian_fraction=0.25)),
)
# A step of the published size is large on raw observations but small on standardised ones. So the inner step size and
# the trust region are three and five times the published ones (docs/implementation_details.md).
_ANT_META = replace(
    _ANT_VELOCITY.meta,
    meta_batch_size=20,
    inner_lr=0.3,
    gae_lambda=0.97,
    step=TrustRegion(max_kl=0.05, cg_damping=0.1, hessian_fraction=0.25),
)
_ANT_DIRECTION_META = replace(
    _ANT_META, meta_batch_size=10, episodes=40, step=TrustRegion(max_kl=0.15, cg_damping=0.1, hessian_fraction=0.25)
)
# Two tasks differ by a sign, which one context number can hold. With one number the normalised step has the derivative
# 0, so the first-order meta-gradient is exact (docs/ant_notebook.md).
_SIGN: dict[str, Any] = {
    "adapted": "context",
    "inner_lr": 3.0,
    "normalised_gradient": True,
    "adapted_std_factor": 1.0,
    "first_order": True,
}
_ANT_DIRECTION_CAVIA = replace(
    _ANT_DIRECTION,
    iterations=150,
    meta=replace(_ANT_DIRECTION_META, **_SIGN, step=TrustRegion(max_kl=0.15, cg_damping=0.1)),
    network=replace(_UNBOUNDED, context_size=1),
    evaluation=RLEvaluation(episodes=40, later_lr_factor=0.01),
)
_DIRECTION_CAVIA = replace(
    _DIRECTION_STANDARDISED,
    meta=replace(_DIRECTION_STANDARDISED.meta, **_SIGN, step=TrustRegion(max_kl=0.02)),
    network=replace(_UNBOUNDED, context_size=1),
    evaluation=RLEvaluation(later_lr_factor=0.01),
)
_ROTHFUSS_MAML = RLConfig(
    env_id="maml_rl.envs:rothfuss2019/HalfCheetahDir-v0",
    iterations=1000,
    meta=RLMeta(meta_batch_size=40, episodes=20, inner_lr=0.1, gae_lambda=0.97),
    network=replace(_UNBOUNDED, hidden_sizes=(64, 64), activation="tanh"),
)
_ZINTGRAF_MAML = RLConfig(
    env_id="maml_rl.envs:zintgraf2019/HalfCheetahDir-v0",
    iterations=500,
    meta=RLMeta(meta_batch_size=40, episodes=20, inner_lr=0.1, discount=0.95, gae_lambda=0.97),
    network=_UNBOUNDED,
)
# The context reaches the policy only through its columns of the first layer, so its step size is larger. The step sizes
# of the half-cheetah are from Ben-Iwhiwhu et al. 2022 (github.com/dlpbc/nm-metarl), who ran CAVIA's code as a baseline.
_ZINTGRAF_CAVIA = replace(
    _ZINTGRAF_MAML,
    meta=replace(_ZINTGRAF_MAML.meta, adapted="context", inner_lr=10.0),
    network=replace(_UNBOUNDED, hidden_sizes=(200, 200), context_size=50),
    evaluation=RLEvaluation(later_lr_factor=1.0),
)
_NAVIGATION_CAVIA = replace(
    _NAVIGATION,
    meta=replace(_NAVIGATION.meta, adapted="context", inner_lr=1.0),
    network=replace(_RAW, context_size=5),
)
# Tasks, episodes, network and discount are those of Yu et al. 2019 (garage, maml_trpo_metaworld_ml10.py). Their inner
# step size of 1e-4 is for advantages that are not normalised; 0.1 is that of McLean et al. 2025 (metaworld-algorithms,
# mamltrpo.py), who normalise them as this package does.
_REACH = RLConfig(
    env_id="maml_rl.envs:mclean2025/ML1-reach-v3",
    iterations=50,
    meta=RLMeta(meta_batch_size=20, episodes=10, inner_lr=0.1, gae_lambda=0.97),
    # Some components hardly vary while the policy is random, and by far more once it moves the objects.
    network=PolicyConfig(hidden_sizes=(128, 128), activation="tanh", observation_clip=10.0),
    evaluation=RLEvaluation(tasks=20, gradient_steps=1, episodes=10),
)
# Nothing in it depends on the units of observations or rewards (docs/implementation_details.md).
_CUSTOM = RLConfig(
    env_id=UNNAMED,
    iterations=100,
    meta=RLMeta(
        meta_batch_size=20,
        episodes=20,
        inner_lr=0.1,
        gae_lambda=0.97,
        baseline_observations="standardised",
        step=TrustRegion(max_kl=0.02, cg_damping=0.1),
    ),
    network=PolicyConfig(statistics_of="noise"),
)
# The control step is five times as long as in HalfCheetahDir, and the reward the same in all tasks: settings of custom.
_PAYLOAD = replace(_CUSTOM, env_id="maml_rl.envs:maml_rl/HalfCheetahPayload-v0", iterations=300)
_REVERSED_MOTOR = replace(_PAYLOAD, env_id="maml_rl.envs:maml_rl/HalfCheetahReversedMotor-v0", iterations=150)
_MOTOR_GAIN = replace(_PAYLOAD, env_id="maml_rl.envs:maml_rl/HalfCheetahMotorGain-v0", iterations=80)
_MOTOR_GAIN_CAVIA = replace(
    _MOTOR_GAIN,
    meta=replace(_MOTOR_GAIN.meta, **_SIGN),
    network=replace(_MOTOR_GAIN.network, context_size=1),
    evaluation=RLEvaluation(later_lr_factor=0.01),
)
_ANT_MOTOR_GAIN = replace(
    _ANT_DIRECTION, env_id="maml_rl.envs:maml_rl/AntMotorGain-v0", iterations=80, meta=_ANT_DIRECTION_META
)
_ANT_MOTOR_GAIN_CAVIA = replace(_ANT_DIRECTION_CAVIA, env_id=_ANT_MOTOR_GAIN.env_id, iterations=80)
# With two context numbers the second derivative teaches theta which way they should go; with one, it is 0.
_WALKER_MOTOR_GAIN_CAVIA = replace(
    _MOTOR_GAIN_CAVIA,
    env_id="maml_rl.envs:maml_rl/WalkerMotorGain-v0",
    iterations=150,
    meta=replace(_MOTOR_GAIN_CAVIA.meta, first_order=False),
    network=replace(_MOTOR_GAIN_CAVIA.network, context_size=2),
)
# Episodes of 1000 steps: half as many of them as custom has.
_CRIPPLED = replace(
    _CUSTOM,
    env_id="maml_rl.envs:nagabandi2019/AntCrippledLeg-v0",
    iterations=200,
    meta=replace(_CUSTOM.meta, episodes=10),
    evaluation=RLEvaluation(tasks=3, episodes=10),
)
_SMALL = replace(_RAW, hidden_sizes=(32,), activation="tanh")
# No pull changes what later ones pay, so with lambda 0 their rewards, which would only be noise, are left out.
_BANDIT = RLConfig(
    env_id="maml_rl.envs:duan2016/BernoulliBandit-v0",
    iterations=20,
    meta=RLMeta(meta_batch_size=20, episodes=20, inner_lr=1.0, gae_lambda=0.0, step=TrustRegion(hessian_fraction=0.25)),
    network=_SMALL,
)
_TABULAR = RLConfig(
    env_id="maml_rl.envs:duan2016/TabularMDP-v0",
    iterations=40,
    meta=RLMeta(
        meta_batch_size=20,
        episodes=20,
        inner_lr=3.0,
        gae_lambda=0.9,
        step=TrustRegion(max_kl=0.05, hessian_fraction=0.25),
    ),
    network=_SMALL,
)
# A network as large as the experts', as in Actor-Mimic's study of several games; the steps of Adam are its code's.
_GRIDWORLD = RLConfig(
    env_id="maml_rl.envs:parisotto2016/GridWorldSources-v0",
    iterations=30,
    meta=RLMeta(meta_batch_size=13, inner_steps=0, episodes=10, gae_lambda=0.97, step=TrustRegion(max_kl=0.02)),
    network=_RAW,
    evaluation=RLEvaluation(tasks=13),
)
_GRIDWORLD_MIMIC = replace(
    _GRIDWORLD,
    iterations=120,
    meta=replace(_GRIDWORLD.meta, episodes=4, step=Adam(lr=2.5e-4, mean_decay=0.95, square_decay=0.95, epsilon=0.01)),
    imitation=Imitation(experts="runs/gridworld-experts", epsilon=0.1, updates=25, minibatch=8),
)

RL_PRESETS = {
    "navigation": Preset(
        _NAVIGATION,
        "2D navigation to a goal in [-0.5, 0.5]^2",
        f"{_FINN}, Figure 4; evaluated with 0.3 of the inner lr after the first step",
        "-40, -11, -4, -3 on the paper's tasks after 0, 1, 2, 3 gradient steps (five seeds); paper: -40, -12, -3, -3",
    ),
    "half-cheetah-dir": Preset(
        _DIRECTION_STANDARDISED,
        "half-cheetah, run forward or backward",
        f"{_FINN}, Figure 5; {_STANDARDISED}, 20 tasks, 130 iterations",
        "-31 to -22, 430 to 479, 441 to 465, 434 to 466 on the paper's tasks (three seeds); paper: -51, 293, 313, 316",
    ),
    "half-cheetah-dir-cavia": Preset(
        _DIRECTION_CAVIA,
        "half-cheetah, run forward or backward: CAVIA with one context number and a normalised gradient",
        f"{_ZINTGRAF}, 1 context number, gradient normalised, inner lr 3; otherwise as half-cheetah-dir",
        "-68 to -30, 506 to 578, 505 to 577, 505 to 578 on the paper's tasks (three seeds); paper's MAML: -51, 293, "
        "313, 316",
    ),
    "half-cheetah-vel": Preset(
        _VELOCITY_STANDARDISED,
        "half-cheetah, goal velocity in [0, 2] m/s",
        f"{_FINN}, Figure 5; {_STANDARDISED}, damping 0.1",
        "-122, -73, -51, -52 on the paper's tasks (one seed); paper: -130, -79, -67, -61",
    ),
    "ant-vel": Preset(
        replace(_ANT_VELOCITY, iterations=240, meta=_ANT_META),
        "ant, goal velocity in [0, 3] m/s",
        f"{_FINN}, Figure 5; {_STANDARDISED}, 20 tasks, inner lr 0.3, maximum KL 0.05, damping 0.1, 240 iterations",
        "39, 106, 125, 129 on the paper's tasks (one seed); paper: 31, 97, 100, 101",
    ),
    "ant-dir": Preset(
        replace(_ANT_DIRECTION, iterations=260, meta=_ANT_DIRECTION_META),
        "ant, run forward or backward",
        f"{_FINN}, Figure 5; {_STANDARDISED}, 10 tasks, inner lr 0.3, maximum KL 0.15, damping 0.1, 260 iterations",
        "0, 398, 399, 395 on the paper's tasks (one seed); paper: 9, 499 (600 forward, 398 backward), 501, 499",
    ),
    "ant-dir-cavia": Preset(
        _ANT_DIRECTION_CAVIA,
        "ant, run forward or backward: CAVIA with one context number and a normalised gradient",
        f"{_ZINTGRAF}, 1 context number, gradient normalised, inner lr 3; otherwise as ant-dir",
        "2 to 3, 580 to 607, 579 to 609, 584 to 608 on the paper's tasks (three seeds); paper's MAML: 9, 499, 501, 499",
    ),
    "ant-goal": Preset(
        replace(_ANT_VELOCITY, env_id="maml_rl.envs:finn2017/AntGoal-v0", iterations=240, meta=_ANT_META),
        "ant, goal position in [-3, 3]^2 m",
        f"environment of the code of {_FINN}, no published result; settings of ant-vel",
        "not measured",
    ),
    "half-cheetah-dir-raw": Preset(
        replace(_DIRECTION, network=_RAW),
        "half-cheetah, run forward or backward",
        f"{_FINN}, Figure 5, {_PUBLISHED}",
        "paper: -51, 293, 313, 316",
    ),
    "half-cheetah-vel-raw": Preset(
        replace(_VELOCITY, network=_RAW),
        "half-cheetah, goal velocity in [0, 2] m/s",
        f"{_FINN}, Figure 5, {_PUBLISHED}",
        "paper: -129.5, -78.6, -66.6, -60.8",
    ),
    "ant-vel-raw": Preset(
        replace(_ANT_VELOCITY, network=_RAW),
        "ant, goal velocity in [0, 3] m/s",
        f"{_FINN}, Figure 5, {_PUBLISHED}",
        "not measured; paper: 31, 97, 100, 101",
    ),
    "ant-dir-raw": Preset(
        replace(_ANT_DIRECTION, network=_RAW),
        "ant, run forward or backward",
        f"{_FINN}, Figure 5, {_PUBLISHED}",
        "not measured; paper: 9, 499, 501, 499",
    ),
    "navigation-cavia": Preset(
        _NAVIGATION_CAVIA,
        "2D navigation to a goal in [-0.5, 0.5]^2: CAVIA",
        f"{_ZINTGRAF}, 5 context numbers, inner lr 1; otherwise as navigation",
        "in a short trial -40, -16, -11, -10, close to MAML's -39, -15, -11, -9 (three seeds, 25 iterations, 10 x 10 "
        "episodes)",
    ),
    "metaworld-ml1-reach": Preset(
        _REACH,
        "Sawyer arm, reach one of 50 hidden goals (needs the extra metaworld)",
        f"{_META_WORLD}; {_STANDARDISED}",
        "not measured",
    ),
    "metaworld-ml10": Preset(
        replace(_REACH, env_id="maml_rl.envs:mclean2025/ML10-v3", iterations=75),
        "Sawyer arm, 10 manipulations with 50 hidden goals each (needs the extra metaworld)",
        f"{_META_WORLD}; {_STANDARDISED}; 15 M env steps as McLean et al.",
        "not measured",
    ),
    "half-cheetah-payload": Preset(
        _PAYLOAD,
        "half-cheetah, run forward with an unknown payload of up to 7 kg",
        f"task: chosen here; network and batch: {_FINN}, otherwise as custom, 300 iterations",
        "not measured",
    ),
    "half-cheetah-reversed-motor": Preset(
        _REVERSED_MOTOR,
        "half-cheetah, run forward with one motor that turns the wrong way",
        f"task: chosen here; network and batch: {_FINN}, otherwise as custom, 150 iterations",
        "not measured",
    ),
    "half-cheetah-motor-gain": Preset(
        _MOTOR_GAIN,
        "half-cheetah, run forward with all motors weaker, or turning the wrong way",
        f"task: chosen here; network and batch: {_FINN}, otherwise as custom, 80 iterations",
        "not measured",
    ),
    "half-cheetah-motor-gain-cavia": Preset(
        _MOTOR_GAIN_CAVIA,
        "half-cheetah, run forward with all motors weaker, or turning the wrong way: CAVIA with one context number and "
        "a normalised gradient",
        f"{_ZINTGRAF}, 1 context number, gradient normalised, inner lr 3; otherwise as half-cheetah-motor-gain",
        "-30 to -12, 283 to 315, 281 to 321, 285 to 321 on held-out tasks (three seeds)",
    ),
    "ant-motor-gain": Preset(
        _ANT_MOTOR_GAIN,
        "ant, run forward with all motors weaker, or turning the wrong way",
        f"task: chosen here; network and batch: {_FINN}, otherwise as ant-dir, 80 iterations",
        "not measured",
    ),
    "ant-motor-gain-cavia": Preset(
        _ANT_MOTOR_GAIN_CAVIA,
        "ant, run forward with all motors weaker, or turning the wrong way: CAVIA with one context number and a "
        "normalised gradient",
        f"{_ZINTGRAF}, 1 context number, gradient normalised, inner lr 3; otherwise as ant-dir-cavia, 80 iterations",
        "98, 340, 341, 342 on held-out tasks (one seed)",
    ),
    "walker-motor-gain-cavia": Preset(
        _WALKER_MOTOR_GAIN_CAVIA,
        "walker, run forward with all motors weaker, or turning the wrong way: CAVIA with two context numbers and a "
        "normalised gradient",
        f"{_ZINTGRAF}, 2 context numbers, gradient normalised, inner lr 3; otherwise as half-cheetah-motor-gain, 150 "
        "iterations, since episodes before adaptation are short",
        "13 to 39, 393 to 439, 395 to 439, 394 to 441 on held-out tasks (two seeds)",
    ),
    "ant-crippled": Preset(
        _CRIPPLED,
        "ant, run forward with one of three legs crippled",
        f"task: {_NAGABANDI}; network and batch: {_FINN}, otherwise as custom, 10 episodes, 200 iterations",
        "not measured",
    ),
    "half-cheetah-disabled-joint": Preset(
        replace(
            _CRIPPLED,
            env_id="maml_rl.envs:nagabandi2019/HalfCheetahDisabledJoint-v0",
            evaluation=RLEvaluation(tasks=5, episodes=10),
        ),
        "half-cheetah, run forward with one of five joints disabled",
        f"task: {_NAGABANDI}; network and batch: {_FINN}, otherwise as custom, 10 episodes, 200 iterations",
        "not measured",
    ),
    CUSTOM: Preset(
        _CUSTOM,
        "your own environment, --env-id module:My-v0, whatever the units of its observations and rewards",
        f"network and batch: {_FINN}; changed: observations standardised and clipped, also for the baseline, "
        "lambda 0.97, damping 0.1",
        "depends on the environment",
    ),
    "bernoulli-bandit": Preset(
        _BANDIT,
        "bandit of 5 arms that pay 1 or 0, 10 pulls an episode",
        f"task: {_DUAN}, section 3.1; settings: chosen here",
        "5.3, 8.1 to 8.3, 8.3 to 8.4, 8.3 to 8.5 (three seeds); the best arm of these tasks: 8.5",
    ),
    "gaussian-bandit": Preset(
        replace(_BANDIT, env_id="maml_rl.envs:duan2016/GaussianBandit-v0", iterations=30),
        "bandit of 5 arms with normal rewards, 10 pulls an episode",
        f"task: {_DUAN}, section 3.1, with other rewards; settings: chosen here",
        "5.3, 8.1 to 8.2, 8.0 to 8.1, 8.2 to 8.3 (three seeds); the best arm of these tasks: 8.5",
    ),
    "gridworld-oracle": Preset(
        replace(_GRIDWORLD, observe_task=True, evaluation=replace(_GRIDWORLD.evaluation, gradient_steps=0)),
        "gridworld of 13 visible goals: TRPO on all of them, with the goal's number in the observation as well",
        f"in place of a game of {_PARISOTTO}; settings: chosen here; maml_rl.experiments.paper.gridworld_experts makes "
        "such a run from exact values",
        "that run: -3.7",
    ),
    "gridworld-mimic": Preset(
        _GRIDWORLD_MIMIC,
        "gridworld of 13 visible goals: Actor-Mimic, imitates runs/gridworld-experts, which python -m "
        "maml_rl.experiments.paper.gridworld_experts runs/gridworld-experts makes",
        f"{_PARISOTTO}: loss, epsilon, minibatch and steps of Adam of its code; room and length: chosen here",
        "KL from the experts 0.08 to 0.09 nats, return -3.7 to -4.1 (two seeds); experts: -3.7",
    ),
    "gridworld-transfer": Preset(
        replace(
            _GRIDWORLD,
            env_id="maml_rl.envs:parisotto2016/GridWorldTargets-v0",
            meta=replace(_GRIDWORLD.meta, meta_batch_size=12),
            evaluation=replace(_GRIDWORLD.evaluation, tasks=12),
        ),
        "gridworld of 12 new goals: TRPO from random weights, or with --start-from from those of gridworld-mimic",
        f"in place of a new game of {_PARISOTTO}; settings: chosen here",
        "-33 to -31 at first, -4.3 to -4.0 in the end; from gridworld-mimic -4.7 to -4.3, -3.8 to -3.7 (two seeds)",
    ),
    "tabular-mdp": Preset(
        _TABULAR,
        "random process of 10 states and 5 actions, 10 steps an episode",
        f"task: {_DUAN}, section 3.2; settings: chosen here",
        "10.1 to 10.7, 14.9 to 15.4, 15.4 to 16.1, 15.9 to 16.5 (three seeds); the best actions in these tasks: 22.5",
    ),
}


# Environment, what it is, and the published returns after adaptation of ProMP and of MAML, if any.
_ROTHFUSS_TASKS = {
    "half-cheetah-dir": ("HalfCheetahDir", "half-cheetah", "run forward or backward", (312, 262, 120)),
    "half-cheetah-vel": ("HalfCheetahVel", "half-cheetah", "goal velocity in [0, 3] m/s", None),
    "ant-dir": ("AntDir", "ant", "run forward or backward", None),
    "walker-dir": ("WalkerDir", "walker", "run forward or backward", None),
    "walker-random-parameters": (
        "WalkerRandomParameters",
        "walker",
        "run forward under unknown dynamics",
        (318, 305, 160),
    ),
    "hopper-random-parameters": (
        "HopperRandomParameters",
        "hopper",
        "run forward under unknown dynamics",
        (262, 230, 160),
    ),
}


_ROTHFUSS_MEASURED = {
    "half-cheetah-dir": "340 after one step at 120 M env steps, seed 1",
    "half-cheetah-dir-maml": "260 after one step at 120 M env steps, seed 1",
}


def _rothfuss(name: str) -> dict[str, Preset[RLConfig]]:
    """ProMP, and what its authors compare it with: MAML by TRPO, which differs only in the inner loss."""
    environment, robot, goal, returns = _ROTHFUSS_TASKS[name]
    dynamics = environment.endswith("RandomParameters")
    maml = replace(_ROTHFUSS_MAML, env_id=f"maml_rl.envs:rothfuss2019/{environment}-v0")
    maml = replace(maml, meta=replace(maml.meta, inner_lr=0.05 if dynamics else 0.1))
    rule = ProMP(kl_penalty=1e-3 if dynamics else 5e-4)
    promp = replace(maml, meta=replace(maml.meta, inner_objective="lvc", step=rule))
    presets = {}
    for i, (suffix, config, method) in enumerate([("", promp, "ProMP"), ("-maml", maml, "MAML")]):
        expected = _ROTHFUSS_MEASURED.get(f"{name}{suffix}", "not measured")
        if returns is not None:
            expected += (
                f"; published: about {returns[i]} after adaptation at {returns[2]} M env steps, read off a figure"
            )
        presets[f"promp-{name}{suffix}"] = Preset(
            config, f"{robot} as in ProMP, {goal}: {method}", f"{_ROTHFUSS}, its {method}; {_STANDARDISED}", expected
        )
    return presets


def _zintgraf(name: str, environment: str, goal: str) -> dict[str, Preset[RLConfig]]:
    """CAVIA, and what its authors compare it with: MAML with a smaller network, all else equal."""
    presets = {}
    for suffix, config, method in (("", _ZINTGRAF_CAVIA, "CAVIA"), ("-maml", _ZINTGRAF_MAML, "MAML")):
        presets[f"cavia-{name}{suffix}"] = Preset(
            replace(config, env_id=f"maml_rl.envs:zintgraf2019/{environment}-v0"),
            f"half-cheetah as in CAVIA, {goal}: {method}",
            f"{_ZINTGRAF}, its {method}; {_STANDARDISED}",
            "not measured",
        )
    return presets


# Returns in the paper of pretrained, oracle and random after 0, 1, 2, ... gradient steps.
_PAPER_BASELINES = {
    "navigation": ("-41, -20, -12, -8, -7", "-2", "-83, -58, -54, -47, -43"),
    "half-cheetah-dir": ("-43, -25, -13, 20", "443", "-36, 22, 62, 86"),
    "half-cheetah-vel": ("-158, -135, -128, -134", "-54", "-255, -254, -247, -231"),
    "ant-vel": ("-2, 6, 8, 9", "108", "-79, -63, -49, -36"),
    "ant-dir": ("3, 1, 7, 7", "525", "3, 9, 16, 26"),
}


# Tasks that differ by the dynamics: before its first gradient step, pretrained is domain randomisation.
_NOT_MEASURED = ("not measured",) * 3
_DYNAMICS = {
    "half-cheetah-payload": _NOT_MEASURED,
    "half-cheetah-reversed-motor": _NOT_MEASURED,
    "half-cheetah-motor-gain": (
        "224 to 274, 218 to 253, 216 to 261, 220 to 270 on held-out tasks (three seeds)",
        "266 to 373 on held-out tasks (three seeds)",
        "not measured",
    ),
    "half-cheetah-disabled-joint": _NOT_MEASURED,
    "ant-motor-gain": (
        "405 before the first step on held-out tasks (one seed)",
        "401 on held-out tasks",
        "not measured",
    ),
    "ant-crippled": _NOT_MEASURED,
}


def _baselines(name: str, expected: Sequence[str]) -> dict[str, Preset[RLConfig]]:
    """What the paper compares a MAML preset with, all else equal: policy, sampler, optimiser and number of episodes.

    An iteration without inner updates samples once, not before and after each update. So there are more iterations
    here, for the same number of env steps, except where episodes end early.
    """
    maml = RL_PRESETS[name]
    config = maml.config
    trpo = replace(
        config,
        iterations=config.iterations * (config.meta.inner_steps + 1),
        meta=replace(config.meta, inner_steps=0),
    )
    oracle = replace(trpo, observe_task=True, evaluation=replace(config.evaluation, gradient_steps=0))
    descriptions = {
        "pretrained": (trpo, "trained on all tasks at once, fine-tuned with the best step size on validation tasks"),
        "oracle": (oracle, "trained on all tasks at once, with the task in the observation"),
        "random": (replace(trpo, iterations=0), "not trained, fine-tuned with the best step size on validation tasks"),
    }
    presets = {}
    for (baseline, (settings, description)), reached in zip(descriptions.items(), expected, strict=True):
        source = f"{_FINN}, {baseline}; otherwise as {name}"
        presets[f"{name}-{baseline}"] = Preset(settings, f"{maml.task}: {description}", source, reached)
    return presets


# Tasks and episodes of each in an iteration, and iterations.
_MIMICS = {"half-cheetah-dir": (2, 20, 100), "half-cheetah-vel": (20, 10, 60), "ant-vel": (20, 10, 60)}

_MIMICS_MEASURED = {
    "half-cheetah-dir": "-26 to -10, 123 to 168, 214 to 252, 259 to 276 on the paper's tasks (three seeds)",
    "half-cheetah-vel": "-149 to -147, -143 to -129, -126 to -118, -114 to -108 on the paper's tasks (three seeds)",
    "ant-vel": "33 to 35, 49 to 66, 64 to 76, 69 to 87 on the paper's tasks (three seeds)",
}


def _mimic(name: str) -> Preset[RLConfig]:
    """Actor-Mimic with the oracle of a MAML preset as its expert, all else equal, evaluated like the preset's
    pretrained."""
    maml, (tasks, episodes, iterations) = RL_PRESETS[name], _MIMICS[name]
    config = maml.config
    meta = replace(config.meta, inner_steps=0, meta_batch_size=tasks, episodes=episodes, step=Adam())
    return Preset(
        replace(config, iterations=iterations, meta=meta, imitation=Imitation(experts=f"trained/{name}-oracle")),
        f"{maml.task}: Actor-Mimic, imitates {name}-oracle on {tasks} tasks, fine-tuned with the best step size on "
        "validation tasks",
        f"{_PARISOTTO}, student-driven; loss and settings: chosen here; otherwise as {name}",
        _MIMICS_MEASURED[name],
    )


for _name in _ROTHFUSS_TASKS:
    RL_PRESETS |= _rothfuss(_name)
RL_PRESETS |= _zintgraf("half-cheetah-dir", "HalfCheetahDir", "run forward or backward")
RL_PRESETS |= _zintgraf("half-cheetah-vel", "HalfCheetahVel", "goal velocity in [0, 2] m/s")
for _name, _returns in _PAPER_BASELINES.items():
    RL_PRESETS |= _baselines(_name, [f"paper: {_text}" for _text in _returns])
for _name, _expected in _DYNAMICS.items():
    RL_PRESETS |= _baselines(_name, _expected)
_ORACLE = RL_PRESETS["ant-vel-oracle"]  # its return on training tasks hardly rises from iteration 160 on
RL_PRESETS["ant-vel-oracle"] = _ORACLE._replace(config=replace(_ORACLE.config, iterations=260))
RL_PRESETS |= {f"{_name}-mimic": _mimic(_name) for _name in _MIMICS}
