"""The obstacle: where paths collide, which way they went, and why the average of two ways fails."""

from __future__ import annotations

import numpy as np
import pytest

from everymode.policies import environments
from everymode.policies.environments.driving import TOP_SPEED

SYMMETRIC = {"symmetric": True}


def test_a_symmetric_start_has_one_axis_and_others_have_none():
    environment = environments.make("Obstacle")
    for seed in range(20):
        robot, obstacle, goal = environment.reset(seed=seed, options=SYMMETRIC)[0].reshape(3, 2)
        assert robot[0] == obstacle[0] == goal[0]
        assert robot[1] < obstacle[1] < goal[1]
        robot, obstacle, goal = environment.reset(seed=seed)[0].reshape(3, 2)
        assert len({robot[0], obstacle[0], goal[0]}) == 3


def test_straight_on_collides(drive):
    environment = environments.make("Obstacle")
    environment.reset(seed=0, options=SYMMETRIC)
    _, reward, ended, _, info = drive(environment, [environment.goal])
    assert ended
    assert info == {"is_success": False, "collided": True}
    assert reward == 0
    assert np.hypot(*(environment.position - environment.discs[0, :2])) < environment.radius


@pytest.mark.parametrize(("side", "way"), [(-1, "left"), (1, "right")])
def test_a_corner_beside_the_obstacle_leads_round(drive, side, way):
    environment = environments.make("Obstacle")
    environment.reset(seed=0, options=SYMMETRIC)
    x, y, radius = environment.discs[0]
    beside = [x + side * (radius + 0.01), environment.position[1]]
    drive(environment, [beside])
    assert environment.way_names[environment.leaning] == way
    assert environment.way == -1
    _, reward, ended, _, info = drive(environment, [[beside[0], y + radius], environment.goal])
    assert ended
    assert info["is_success"]
    assert reward == 1
    assert environment.way_names[environment.way] == way


def test_a_step_through_a_thin_part_collides():
    """The path between two positions counts, not only the positions."""
    environment = environments.make("Obstacle", difficulty=0)
    environment.reset(seed=0, options=SYMMETRIC)
    x, y, radius = environment.discs[0]
    step = TOP_SPEED / environment.rate
    depth = radius - np.sqrt(radius**2 - (step / 3) ** 2)  # of a chord shorter than a step
    environment.position = np.array([x - radius + depth / 2, y - step / 2])
    assert environment.step([0, TOP_SPEED])[4]["collided"]


def test_no_step_is_longer_than_the_top_speed():
    environment = environments.make("Obstacle")
    environment.reset(seed=0)
    before = environment.position
    environment.step([TOP_SPEED, -TOP_SPEED])
    assert np.hypot(*(environment.position - before)) == pytest.approx(TOP_SPEED / environment.rate)


def test_the_weights_are_those_asked_for_and_one_way_alone_can_be():
    assert set(environments.demonstrate("Obstacle", 20, weights=1.0).ways) == {0}
    ways = environments.demonstrate("Obstacle", 100, weights=0.2).ways
    assert 0.08 < (ways == 0).mean() < 0.35


@pytest.mark.parametrize("difficulty", [0.0, 1.0])
def test_demonstrators_arrive_at_every_difficulty_with_the_most_noise(difficulty):
    environment = environments.make("Obstacle", difficulty=difficulty, noise=0.1)
    demonstrations = environment.demonstrate(100, seed=1000)
    last = demonstrations.episode_ends - 1
    robot, _, goal = demonstrations.observations["state"][last].reshape(-1, 3, 2).swapaxes(0, 1)
    assert (np.hypot(*(robot - goal).T) < 0.15).all()  # the goal's radius and a step


@pytest.mark.parametrize("difficulty", [0.0, 0.5, 1.0])
def test_the_average_of_both_ways_collides(difficulty):
    """What minimises squared error at a symmetric start drives into the obstacle before the next look, 8 steps on."""
    environment = environments.make("Obstacle", difficulty=difficulty, noise=0.0)
    for seed in range(20):
        chunks = [environment.demonstrate(1, seed, way=way, symmetric=True).actions[:8] for way in (0, 1)]
        environment.reset(seed=seed, options=SYMMETRIC)
        collided = [environment.step(action)[4]["collided"] for action in (chunks[0] + chunks[1]) / 2]
        assert any(collided), f"seed {seed}: {environment.position} beside {environment.discs[0]}"
