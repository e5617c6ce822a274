"""What a task changes in a model, and what is refused."""

import mujoco
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete

from maml_rl.envs.batched import stacked_tasks
from maml_rl.envs.mujoco.variations import QUANTITIES, Variation, Variations

ARM = """
<mujoco>
  <option gravity="0 0 -10"/>
  <worldbody>
    <geom name="floor" type="plane" size="1 1 1" friction="0.5 0.01 0.001"/>
    <body name="upper" pos="0 0 1">
      <joint name="shoulder" axis="0 1 0" damping="2" stiffness="3" armature="0.1" frictionloss="0.2"/>
      <geom name="upper" type="capsule" fromto="0 0 0 0 0 -0.4" size="0.05" mass="2"/>
      <body name="lower" pos="0 0 -0.4">
        <joint name="elbow" axis="0 1 0" damping="1"/>
        <geom name="lower" type="capsule" fromto="0 0 0 0 0 -0.3" size="0.04" mass="1" friction="1.0 0.01 0.001"/>
        <body name="load" pos="0 0 -0.3"><inertial pos="0 0 0" mass="0" diaginertia="0 0 0"/></body>
      </body>
    </body>
    <body name="ball" pos="1 0 1"><freejoint name="free"/><geom size="0.1"/></body>
  </worldbody>
  <actuator>
    <motor joint="shoulder" gear="10" ctrlrange="-1 1"/>
    <motor name="bend" joint="elbow" gear="5" ctrlrange="-1 1"/>
  </actuator>
  <sensor><jointpos name="angle" joint="elbow"/><framepos name="hand" objtype="body" objname="load"/></sensor>
</mujoco>
"""


@pytest.fixture(scope="module")
def arm() -> mujoco.MjModel:
    return mujoco.MjModel.from_xml_string(ARM)


def changed(arm: mujoco.MjModel, task: object, **varied: Variation) -> mujoco.MjModel:
    """The model of one task."""
    variations = Variations(arm, varied)
    assert variations.space.contains(task)
    (model,) = variations.models(stacked_tasks(variations.space, [task]))
    return model


def compiled(*replacements: tuple[str, str]) -> mujoco.MjModel:
    """The arm, compiled from its file with some text replaced."""
    xml = ARM
    for old, new in replacements:
        assert old in xml
        xml = xml.replace(old, new)
    return mujoco.MjModel.from_xml_string(xml)


def assert_same(found: mujoco.MjModel, expected: mujoco.MjModel) -> None:
    """Checks that all numbers of two models agree up to rounding."""
    for field in dir(expected):
        value = getattr(expected, field)
        if isinstance(value, np.ndarray) and value.dtype.kind in "fiub":
            np.testing.assert_allclose(getattr(found, field), value, rtol=1e-12, atol=1e-14, err_msg=field)
    np.testing.assert_array_equal(found.opt.gravity, expected.opt.gravity)


def number(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


@pytest.mark.parametrize(
    ("variation", "task", "replacements"),
    [
        (
            Variation("damping", 0.0, 4.0, of="elbow"),
            number(0.5),
            [('axis="0 1 0" damping="1"', 'axis="0 1 0" damping="0.5"')],
        ),
        (
            Variation("damping", 0.0, 4.0, by="factor"),
            number(0.5),
            [('damping="2"', 'damping="1.0"'), ('0" damping="1"', '0" damping="0.5"')],
        ),
        (
            Variation("stiffness", 0.0, 4.0, of="shoulder", by="change"),
            number(1.5),
            [('stiffness="3"', 'stiffness="4.5"')],
        ),
        (Variation("armature", 0.0, 4.0, of="shoulder"), number(0.25), [('armature="0.1"', 'armature="0.25"')]),
        (
            Variation("friction loss", 0.0, 4.0, of="shoulder"),
            number(0.5),
            [('frictionloss="0.2"', 'frictionloss="0.5"')],
        ),
        (Variation("friction", 0.0, 4.0, of="floor"), number(0.75), [('friction="0.5 ', 'friction="0.75 ')]),
        (
            Variation("torsional friction", 0.0, 4.0, of="floor"),
            number(0.25),
            [('friction="0.5 0.01', 'friction="0.5 0.25')],
        ),
        (
            Variation("rolling friction", 0.0, 4.0, of="floor"),
            number(0.5),
            [('friction="0.5 0.01 0.001', 'friction="0.5 0.01 0.5')],
        ),
        (Variation("gear", 0.0, 20.0, of="bend"), number(7.5), [('gear="5"', 'gear="7.5"')]),
        (
            Variation("gear", 0.0, 2.0, by="factor", numbers="each"),
            number(0.5, 2.0),
            [('gear="10"', 'gear="5.0"'), ('gear="5"', 'gear="10"')],
        ),
        (Variation("gear", 0.0, 0.0, numbers="one"), np.int64(1), [('gear="5"', 'gear="0"')]),
        (
            Variation("gear", 0.0, 1.0, by="factor", numbers="one"),
            {"actuator": np.int64(0), "factor": number(0.25)},
            [('gear="10"', 'gear="2.5"')],
        ),
        (
            Variation("position x", -1.0, 1.0, of="load"),
            number(0.25),
            [('name="load" pos="0 0 -0.3"', 'name="load" pos="0.25 0 -0.3"')],
        ),
        (
            Variation("position y", -1.0, 1.0, of="lower"),
            number(0.5),
            [('name="lower" pos="0 0 -0.4"', 'name="lower" pos="0 0.5 -0.4"')],
        ),
        (
            Variation("position z", -1.0, 1.0, of="upper", by="change"),
            number(0.5),
            [('name="upper" pos="0 0 1"', 'name="upper" pos="0 0 1.5"')],
        ),
        (Variation("mass", 0.0, 4.0, of="upper"), number(3.0), [('mass="2"', 'mass="3"')]),
        (Variation("mass", 0.0, 4.0, of="lower", by="factor"), number(0.5), [('mass="1"', 'mass="0.5"')]),
        (Variation("mass", 0.0, 4.0, of="load"), number(1.5), [('mass="0" diag', 'mass="1.5" diag')]),
        (Variation("gravity", 0.0, 10.0), number(5.0), [('gravity="0 0 -10"', 'gravity="0 0 -5"')]),
    ],
)
def test_a_task_makes_the_model_that_the_compiler_makes_of_the_changed_file(arm, variation, task, replacements):
    model, expected = changed(arm, task, part=variation), compiled(*replacements)
    assert_same(model, expected)


def test_everything_that_varies_is_tested_here_or_with_the_robots():
    assert set(QUANTITIES) == {
        *("mass", "position x", "position y", "position z", "friction", "torsional friction", "rolling friction"),
        *("gear", "damping", "stiffness", "armature", "friction loss", "gravity"),
        *("slope", "delay", "joint offset", "sensor offset"),
    }


def test_a_slope_of_30_degrees_turns_gravity():
    arm = mujoco.MjModel.from_xml_string(ARM)
    model = changed(arm, number(np.pi / 6), slope=Variation("slope", -1.0, 1.0))
    # Uphill in x: half of gravity pulls back, the rest presses on the ground.
    np.testing.assert_allclose(model.opt.gravity, [-5.0, 0.0, -10 * np.sqrt(3) / 2], rtol=1e-6)
    sideways = mujoco.MjModel.from_xml_string(ARM.replace('gravity="0 0 -10"', 'gravity="3 4 0"'))
    model = changed(sideways, number(np.pi / 6), slope=Variation("slope", -1.0, 1.0))
    assert np.linalg.norm(model.opt.gravity) == pytest.approx(5.0)


def test_several_parts_are_a_dict_and_change_one_model(arm):
    varied = {
        "load": Variation("mass", 0.0, 4.0, of="load"),
        "reach": Variation("position x", -1.0, 1.0, of="load"),
        "weak": Variation("gear", 0.0, 1.0, by="factor", numbers="one"),
        "late": Variation("delay", 1, 3),
    }
    variations = Variations(arm, varied)
    assert variations.space == Dict(
        load=Box(0, 4, (1,), np.float32),
        reach=Box(-1, 1, (1,), np.float32),
        weak=Dict(actuator=Discrete(2), factor=Box(0, 1, (1,), np.float32)),
        late=Discrete(3, start=1),
    )
    weak = {"actuator": np.int64(1), "factor": number(0.5)}
    tasks = [
        {"load": number(1.5), "reach": number(0.5), "weak": weak, "late": np.int64(3)},
        {"load": number(0.0), "reach": number(0.0), "weak": weak | {"factor": number(1.0)}, "late": np.int64(1)},
    ]
    rows = stacked_tasks(variations.space, tasks)
    first, second = variations.models(rows)
    at = ('name="load" pos="0 0 -0.3"', 'name="load" pos="0.5 0 -0.3"')
    assert_same(first, compiled(at, ('mass="0" diag', 'mass="1.5" diag'), ('gear="5"', 'gear="2.5"')))
    assert_same(second, compiled(('name="load" pos="0 0 -0.3"', 'name="load" pos="0 0 -0.3"')))
    assert variations.delays(rows).tolist() == [3, 1]
    assert variations.longest_delay == 3
    assert variations.name(tasks[0]) == "load 1.50 kg, reach 0.50 m, weak bend x 0.50, late 3 control steps"
    assert variations.description == "dynamics"


def test_a_model_is_built_once_for_a_task_and_the_robot_is_not_changed(arm):
    before = {name: np.copy(getattr(arm, name)) for name in ("body_mass", "body_invweight0", "actuator_gear")}
    variations = Variations(arm, {"load": Variation("mass", 0.0, 4.0, of="load")})
    first, again, other = variations.models(np.array([[1.0], [1.0], [2.0]], np.float32))
    assert first is again
    assert first is not other
    for name, values in before.items():
        np.testing.assert_array_equal(getattr(arm, name), values)


def test_a_task_of_a_narrower_type_is_the_same_task(arm):
    load = Variations(arm, {"load": Variation("mass", 0.0, 4.0, of="load")})
    broken = Variations(arm, {"broken": Variation("gear", 0.0, 0.0, numbers="one")})
    for variations, task, narrow in ((load, [1.5], np.float16), (broken, 1, np.int8)):
        given = np.asarray(task, narrow)[()]
        assert variations.space.contains(given)
        expected = variations.models(stacked_tasks(variations.space, [np.asarray(task, variations.space.dtype)]))
        assert variations.models(stacked_tasks(variations.space, [given])) == expected


def test_tasks_that_do_not_change_the_model_share_the_robots_own(arm):
    variations = Variations(arm, {"late": Variation("delay", 0, 2)})
    assert variations.models(np.array([0, 2])) is arm
    assert variations.space == Discrete(3)
    assert not variations.have_offsets


def test_offsets_are_those_of_joints_and_sensors(arm):
    varied = {
        "joints": Variation("joint offset", -1.0, 1.0, numbers="each"),
        "hand": Variation("sensor offset", -1.0, 1.0, of="hand"),
    }
    variations = Variations(arm, varied)
    tasks = [{"joints": number(0.25, -0.5), "hand": number(0.75)}, {"joints": number(1, 1), "hand": number(0)}]
    # Joints shoulder, elbow and free; sensors angle and hand.
    expected = [[0.25, -0.5, 0, 0, 0.75], [1, 1, 0, 0, 0]]
    np.testing.assert_array_equal(variations.offsets(stacked_tasks(variations.space, tasks)), expected)


@pytest.mark.parametrize(
    ("variation", "description"),
    [
        (Variation("mass", 0.0, 4.0, of="load"), "part (kg)"),
        (Variation("friction", 0.5, 2.0, by="factor"), "part (factor)"),
        (Variation("gear", 0.0, 0.0, numbers="one"), "part"),
        (Variation("gear", 0.0, 1.0, numbers="one"), "part"),
        (Variation("gear", 0.0, 1.0), "part"),
        (Variation("delay", 0, 2), "part (control steps)"),
    ],
)
def test_a_task_is_described_with_its_unit(arm, variation, description):
    assert Variations(arm, {"part": variation}).description == description


@pytest.mark.parametrize(
    ("variation", "message"),
    [
        (
            Variation("geom_type", 0, 1),
            r"part: 'geom_type' cannot vary between tasks, expected .* mass, position x",
        ),
        (
            Variation("mass", 0, 1, of="lod"),
            r"part: there is no body 'lod' to vary mass of, .* upper, lower",
        ),
        (Variation("damping", 0, 1, of="free"), r"there is no joint 'free' .* expected one of shoulder, elbow$"),
        (Variation("gear", 0, 1, of="elbow"), r"there is no actuator 'elbow' .* expected one of shoulder, bend$"),
        (
            Variation("friction", 0, 1, of="hand"),
            r"there is no geom 'hand' .* of floor, upper, lower, geom 3",
        ),
        (Variation("sensor offset", 0, 1, of="hip"), r"there is no sensor 'hip' .* expected one of angle, hand$"),
        (Variation("position x", 0, 1, of="ball"), r"part: body 'ball' has a free joint, which decides its position"),
        (Variation("gear", 0, 1, of=("bend", "bend")), r"part: expected different actuator names, at least one, got"),
        (Variation("mass", 1, 1, of="load"), r"part: expected finite numbers low < high, got 1 and 1"),
        (Variation("mass", 2, 1, of="load"), r"part: expected finite numbers low < high, got 2 and 1"),
        (Variation("mass", 0, np.inf, of="load"), r"part: expected finite numbers low < high, got 0 and inf"),
        (Variation("mass", -1, 1, of="load"), r"part: mass must be at least 0, got -1"),
        (Variation("mass", -3, 1, of="upper", by="change"), r"part: mass must be at least 0, got -1"),
        (Variation("mass", 0, 2, of="load", by="factor"), r"part: changes nothing of load, whose mass stays 0"),
        (Variation("slope", 0, 2, by="factor"), r"part: changes nothing of the world, whose slope stays 0"),
        (
            Variation("gear", 1, 1, of="bend", by="factor", numbers="one"),
            r"nothing of bend, whose gear stays 5",
        ),
        (
            Variation("joint offset", 0, 0, numbers="one"),
            r"nothing of shoulder, elbow, whose joint offset",
        ),
        (Variation("delay", 0.5, 2), r"part: expected a delay of low to high whole control steps, at least 0"),
        (Variation("delay", -1, 2), r"part: expected a delay of low to high whole control steps, at least 0"),
        (Variation("delay", 0, 2, of="bend"), r"part: expected a delay of low to high whole control steps"),
        (
            ("mass", 0, 1, "load"),
            r"part: expected a Variation\(quantity, low, high, ...\), got \('mass', 0, 1, 'load'\)",
        ),
        (Variation("mass", "0", 1, of="load"), r"part: expected numbers low < high, got '0'"),
        (Variation("mass", 0, 1, of=3), r"part: expected of to be a name or a list of names, got 3"),
        (Variation("mass", 0, 1, of="load", by="times"), r"part: expected by value, factor or change, got 'times'"),
        (Variation("mass", 0, 1, of="load", numbers="all"), r"part: expected numbers shared, each or one, got 'all'"),
    ],
)
def test_an_invalid_variation_is_refused_in_one_line(arm, variation, message):
    with pytest.raises(ValueError, match=message) as raised:
        Variations(arm, {"part": variation})
    assert "\n" not in str(raised.value)


def test_no_variation_is_refused(arm):
    with pytest.raises(ValueError, match="expected at least one variation, got none"):
        Variations(arm, {})


def test_a_model_without_sensors_says_so():
    model = mujoco.MjModel.from_xml_string("<mujoco><worldbody/></mujoco>")
    with pytest.raises(ValueError, match="there is no sensor 'a' to vary sensor offset of, the model has none"):
        Variations(model, {"part": Variation("sensor offset", 0, 1, of="a")})
