"""Episodes: the same starts for all, every robot its own, and a crash that takes nothing along."""

from functools import partial

import numpy as np
import pytest
from tests.policies.fakes import Corridor, Scripted, outward

from everymode.errors import DataError, SettingError
from everymode.policies.episodes import Rollouts
from everymode.policies.rollouts import block, roll_out

SEEDS = range(200_000, 200_011)


def same(first: Rollouts, second: Rollouts) -> bool:
    return len(first) == len(second) and all(
        a.seed == b.seed
        and a.way == b.way
        and all(
            np.array_equal(getattr(a, name), getattr(b, name)) for name in ("rewards", "actions", "leaning", "path")
        )
        for a, b in zip(first, second, strict=True)
    )


def test_what_happens_does_not_depend_on_how_many_robots_run_side_by_side():
    alone = roll_out(Scripted(outward), Corridor, SEEDS, robots=1)
    assert [episode.seed for episode in alone] == list(SEEDS)
    for robots in (3, 32):
        assert same(alone, roll_out(Scripted(outward), Corridor, SEEDS, robots=robots))
    assert {episode.way for episode in alone} == {0, 1}


def test_every_policy_begins_where_the_others_do():
    first, second = (roll_out(Scripted(lambda seen, to=to: to), Corridor, SEEDS) for to in (0.2, -0.2))
    assert [a.path[0, 0] for a in first] == [b.path[0, 0] for b in second]
    assert len({a.path[0, 0] for a in first}) == len(SEEDS)
    assert {a.path[0, 0] for a in roll_out(Scripted(outward), Corridor, SEEDS, options={"symmetric": True})} == {0.0}


def test_robots_that_begin_later_plan_with_the_others():
    started = []

    class Watched(Scripted):
        def start(self, robots=1, *, random_state=None):
            started.append(super().start(robots))
            return started[-1]

    episodes = roll_out(Watched(outward), Corridor, SEEDS, robots=4)
    calls = np.array(started[0].calls)
    assert set(calls) <= {
        0,
        4,
    }  # all four, or none; and each episode began with a plan and has a seam every fourth step
    assert all(np.flatnonzero(episode.planned).tolist() == [0, 4, 8] for episode in episodes)
    assert len(episodes.seconds) == np.count_nonzero(calls)


def test_a_crash_is_told_and_the_rest_goes_on():
    broken = partial(Corridor, crash_at=SEEDS[2])
    found = roll_out(Scripted(outward), broken, SEEDS, robots=2)
    (crash,) = found.failures
    assert (crash.seed, crash.error, crash.steps) == (SEEDS[2], "RuntimeError: the gears jammed", 3)
    whole = roll_out(Scripted(outward), Corridor, SEEDS, robots=2)
    kept = [episode for episode in whole if episode.seed != SEEDS[2]]
    assert same(Rollouts("", tuple(kept)), Rollouts("", found.whole))


def test_several_processes_find_the_same():
    found = roll_out(Scripted(outward), Corridor, SEEDS, robots=2, jobs=2)
    assert same(found, roll_out(Scripted(outward), Corridor, SEEDS))


def test_episodes_come_back_from_a_file(tmp_path):
    found = roll_out(Scripted(outward), partial(Corridor, crash_at=SEEDS[0]), SEEDS, robots=2)
    back = Rollouts.load(found.save(tmp_path / "episodes.npz"))
    assert same(found, back)
    assert [e.error for e in back] == [e.error for e in found]
    assert (back.way_names, back.rate, len(back.seconds)) == (found.way_names, found.rate, len(found.seconds))
    content = (tmp_path / "episodes.npz").read_bytes()
    (tmp_path / "episodes.npz").write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match="damaged"):
        Rollouts.load(tmp_path / "episodes.npz")


def test_blocks_of_seeds_do_not_meet():
    assert not set(block("choose", 100_000)) & set(block("report", 100_000))
    with pytest.raises(SettingError, match="report"):
        block("reports", 5)


def test_one_start_many_times_has_draws_of_its_own_each_time():
    drawn = []

    class Drawing(Scripted):
        def start(self, robots=1, *, random_state=None):
            running = super().start(robots)
            running.reset = lambda robots, *, random_state: drawn.extend(random_state)
            return running

    found = roll_out(Drawing(outward), Corridor, [5, 5, 6, 5], random_state=3)
    assert [episode.seed for episode in found] == [5, 5, 6, 5]
    assert len(set(drawn)) == 4
    first = drawn.copy()
    drawn.clear()
    roll_out(Drawing(outward), Corridor, [6, 5, 5, 5], random_state=3)
    assert set(drawn) == set(first)
