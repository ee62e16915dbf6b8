"""Two blocks and two zones: how blocks move when they are pushed, which way was gone, and what averaging does."""

from __future__ import annotations

import numpy as np
import pytest

from everymode.policies import environments

REACH = 0.15  # from the pusher's centre to a block's, at contact
SYMMETRIC = {"symmetric": True}


def placed(pusher, first=(0.0, 0.0), second=(0.8, 0.8)):
    """Return an environment with these positions, and zones out of the way."""
    environment = environments.make("BlockPush")
    environment.reset(seed=0)
    environment.position = np.array(pusher, dtype=float)
    environment.blocks = np.array([first, second], dtype=float)
    environment.zones = np.array([[-0.9, 0.9], [-0.9, 0.6]])
    environment._first_at = environment.blocks.copy()
    return environment


def test_a_block_pushed_through_its_centre_goes_straight(drive):
    environment = placed((-0.3, 0.0))
    drive(environment, [(0.2, 0.0)])
    assert environment.blocks[0] == pytest.approx([0.2 + REACH, 0.0])
    assert environment.blocks[1].tolist() == [0.8, 0.8]


def test_within_the_cone_of_friction_a_block_sticks_and_beyond_it_slips(drive):
    """The tangent of the angle between move and normal is 0.4 and 0.6; the coefficient of friction is 0.5."""
    for slope, sticks in ((0.4, True), (0.6, False)):
        normal = np.array([1.0, slope]) / np.hypot(1.0, slope)
        environment = placed(-REACH * normal)
        drive(environment, [environment.position + np.array([0.04, 0.0])])
        assert (abs(environment.blocks[0, 1]) < 2e-3) == sticks, slope
        assert environment.blocks[0, 0] > 0.03


def test_a_block_never_moves_by_itself_nor_is_it_drawn(drive):
    environment = placed((-REACH, 0.0))
    drive(environment, [(-0.5, 0.0)])
    assert environment.blocks.tolist() == [[0.0, 0.0], [0.8, 0.8]]


def test_a_block_pushes_the_other_one(drive):
    environment = placed((-0.3, 0.0), second=(0.3, 0.0))
    drive(environment, [(0.1, 0.0)])
    assert environment.blocks == pytest.approx(np.array([[0.25, 0.0], [0.45, 0.0]]))


def test_nothing_overlaps_whatever_the_pusher_does():
    rng = np.random.default_rng(0)
    environment = placed((0.0, -0.6), first=(-0.3, 0.0), second=(0.3, 0.0))
    environment.max_steps = 10**6
    velocity = np.zeros(2)
    for step in range(2000):
        if step % 20 == 0:
            velocity = rng.uniform(-0.6, 0.6, 2)
        environment.step(velocity)
        first, second = environment.blocks
        assert np.hypot(*(first - second)) > 0.2 - 1e-5
        assert np.hypot(*(environment.blocks - environment.position).T).min() > REACH - 1e-5
        assert np.abs(environment.blocks).max() <= 0.9 + 1e-12


def test_blocks_in_zones_are_counted_once_a_zone_and_name_the_way():
    environment = placed((0.0, -0.9), first=(-0.3, 0.5), second=(0.3, 0.5))
    environment.zones = np.array([[0.3, 0.6], [-0.3, 0.65]])
    environment.blocks[1] = [0.3, 0.3]
    _, reward, ended, _, info = environment.step([0.0, 0.0])
    assert (reward, ended, info["blocks_in"], environment.way) == (0.0, False, 0, -1)
    environment.blocks[0] = [-0.3, 0.56]
    _, reward, ended, _, info = environment.step([0.0, 0.0])
    assert (reward, ended, info["blocks_in"], info["is_success"]) == (0.5, False, 1, False)
    assert environment.way_names[environment.way] == "A2 B1"
    environment.blocks[1] = [0.3, 0.51]
    _, reward, ended, _, info = environment.step([0.0, 0.0])
    assert (reward, ended, info["blocks_in"], info["is_success"]) == (1.0, True, 2, True)
    assert environment.way_names[environment.way] == "A2 B1"


def test_it_leans_to_the_block_that_was_moved_and_the_zone_it_was_moved_to():
    environment = environments.make("BlockPush", noise=0.0)
    for seed in range(12):
        way, leanings = seed % 4, []
        environment.reset(seed=seed)
        while environment.way < 0:
            leanings.append(environment.leaning)
            environment.step(environment.intend(way))
        decided = leanings.index(way)
        assert leanings == [-1] * decided + [way] * (len(leanings) - decided)
        assert 5 < decided < len(leanings) - 5


def test_a_symmetric_start_is_its_own_mirror_image():
    environment = environments.make("BlockPush")
    for seed in range(5):
        pusher, first, second, one, two = environment.reset(seed=seed, options=SYMMETRIC)[0].reshape(5, 2)
        assert pusher[0] == 0
        assert second.tolist() == [-first[0], first[1]]
        assert two.tolist() == [-one[0], one[1]]


def test_the_average_of_all_ways_moves_no_block():
    environment = environments.make("BlockPush", noise=0.0)
    for seed in range(3):
        chunks = [environment.demonstrate(1, seed, way=way, symmetric=True).actions[:40] for way in range(4)]
        environment.reset(seed=seed, options=SYMMETRIC)
        for action in np.mean(chunks, axis=0):
            environment.step(action)
        assert np.array_equal(environment.blocks, environment._first_at)
        moved = environment.demonstrate(1, seed, way=0, symmetric=True).observations["state"][[0, 40], 2:6]
        assert np.abs(np.diff(moved, axis=0)).max() > 0.2
