"""Evaluations: what is counted, on which starts, and that nothing is chosen on what is reported."""

import json
from functools import partial

import numpy as np
import pytest
from PIL import Image
from tests.policies.fakes import Corridor, Scripted, outward

from everymode.errors import CheckpointError, DataError, SettingError
from everymode.metrics import wilson_interval
from everymode.policies.evaluation import EVALUATION_FILE, Evaluation, choose, evaluate
from everymode.policies.video import save_video

STRAIGHT = Scripted(lambda seen: 0.0)


@pytest.fixture(scope="module")
def evaluation() -> Evaluation:
    return evaluate(Scripted(outward), Corridor, 40, robots=8)


def test_the_numbers_are_those_of_the_episodes(evaluation):
    episodes = evaluation.rollouts.episodes
    assert [e.seed for e in episodes] == list(range(200_000, 200_040))
    assert evaluation.score.value == pytest.approx(np.mean([e.rewards.max() for e in episodes]))
    assert evaluation.final.value == pytest.approx(np.mean([e.rewards[-1] for e in episodes]))
    done = sum(e.success for e in episodes)
    assert (evaluation.success.low, evaluation.success.high) == wilson_interval(done, 40)
    assert evaluation.collided is not None
    assert evaluation.collided.value == 0
    assert evaluation.behaviour.commitment is not None
    assert evaluation.behaviour.commitment.value == 1
    assert evaluation.behaviour.ways_taken == 2


def test_successes_are_told_apart_from_all():
    lame = Scripted(lambda seen: 0.3 if seen[0] > 0 else 0.0)  # whoever begins on the left stays there
    found = evaluate(lame, Corridor, 40)
    done = [e for e in found.rollouts if e.success]
    assert 0 < len(done) < 40
    assert (found.behaviour.episodes, found.of_successes.episodes) == (40, len(done))
    assert (found.behaviour.no_way, found.of_successes.no_way) == (40 - len(done), 0)


def test_the_time_of_a_chunk_is_that_of_one_robot_alone():
    started = []

    class Watched(Scripted):
        def start(self, robots=1, *, random_state=None):
            running = super().start(robots, random_state=random_state)
            started.append((robots, running))
            return running

    found = evaluate(Watched(outward), Corridor, 4)
    (robots, rolled), (timed, alone) = started
    assert (robots, timed) == (4, 1)
    assert len(alone.seconds) > 50
    assert found.chunk_ms_median == pytest.approx(1000 * np.median(alone.seconds))
    assert found.chunk_ms_p95 >= found.chunk_ms_median
    assert rolled is not alone


def test_it_is_told_how_a_policy_was_run():
    late = Scripted(outward)
    late.delay = 2
    settings = evaluate(late, Corridor, 2).settings
    assert (settings["execution_horizon"], settings["delay"]) == (4, 2)


def test_it_is_chosen_on_one_block_and_reported_on_another():
    starts = []

    class Noted(Corridor):
        def reset(self, *, seed=None, options=None):
            starts.append(seed)
            return super().reset(seed=seed, options=options)

    choice = choose({"early": STRAIGHT, "late": Scripted(outward), "last": STRAIGHT}, Noted, 5)
    assert choice.name == "late"
    assert choice.score == choice.scores["late"] > choice.scores["last"]
    chosen_on = set(starts)
    assert chosen_on == set(range(100_000, 100_005))
    found = evaluate(Scripted(outward), Corridor, 5, best_of_checkpoints=choice.score)
    assert not chosen_on & {e.seed for e in found.rollouts}
    assert found.to_dict()["best_of_checkpoints"] == choice.score
    assert "best of checkpoints" in str(found)


def test_crashes_are_told_and_left_out():
    found = evaluate(Scripted(outward), partial(Corridor, crash_at=200_003), 10)
    assert (found.score.n, found.settings["episodes"]) == (9, 10)
    assert found.to_dict()["failures"] == [[200_003, "RuntimeError: the gears jammed"]]
    assert "1 more crashed" in found.title
    with pytest.raises(DataError, match="the gears jammed"):
        evaluate(Scripted(outward), partial(Corridor, crash_at=200_000), 1)


def test_an_evaluation_comes_back_from_its_folder(evaluation, tmp_path):
    evaluation.save(tmp_path)
    back = Evaluation.load(tmp_path)
    assert back.to_dict() == evaluation.to_dict() == json.loads((tmp_path / EVALUATION_FILE).read_text())
    assert str(back) == str(evaluation)
    assert [e.path.tolist() for e in back.rollouts] == [e.path.tolist() for e in evaluation.rollouts]
    (tmp_path / EVALUATION_FILE).write_text("{}")
    with pytest.raises(CheckpointError, match="damaged"):
        Evaluation.load(tmp_path)
    with pytest.raises(CheckpointError, match="policy eval"):
        Evaluation.load(tmp_path / "nowhere")


FRAMES = np.zeros((6, 33, 40, 3), dtype=np.uint8)
FRAMES[np.arange(6), :, 5 * np.arange(6)] = 255


def test_a_gif_has_its_frames_and_its_pace(tmp_path):
    with Image.open(save_video(FRAMES, tmp_path / "a.gif", rate=10)) as video:
        assert (video.n_frames, video.size, video.info["duration"]) == (6, (40, 33), 100)  # type: ignore[attr-defined]
        for index in range(6):
            video.seek(index)
            column = np.asarray(video.convert("L"))[10]
            assert column.argmax() == 5 * index


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # imageio-ffmpeg leaves its pipes open
def test_an_mp4_has_its_frames(tmp_path):
    import imageio_ffmpeg

    path = save_video(FRAMES, tmp_path / "a.mp4", rate=10)
    reader = imageio_ffmpeg.read_frames(str(path))
    assert next(reader)["size"] == (40, 34)
    assert sum(1 for _ in reader) == 6
    assert [p.name for p in tmp_path.iterdir()] == ["a.mp4"]


def test_what_is_no_video_is_refused(tmp_path):
    with pytest.raises(DataError, match="uint8"):
        save_video(FRAMES / 255, tmp_path / "a.gif")
    with pytest.raises(SettingError, match=r"\.mp4"):
        save_video(FRAMES, tmp_path / "a.avi")


def test_parts_of_a_task_are_counted_as_the_field_counts_them():
    class Twofold(Corridor):
        goals = 2  # the reward is the share of the way that is done

    lame = Scripted(lambda seen: 0.3 if seen[0] > 0 else 0.0)
    found = evaluate(lame, Twofold, 40)
    best = np.array([episode.best for episode in found.rollouts])
    assert list(found.reached) == ["p1", "p2"]
    assert found.reached["p1"].value == np.mean(best > 0.25)
    assert found.reached["p2"].value == np.mean(best > 0.75)
    assert 0 < found.reached["p2"].value < 1
    assert "p2" in str(found)


def test_parts_of_a_task_survive_a_file(tmp_path):
    class Twofold(Corridor):
        goals = 2

    found = evaluate(Scripted(outward), Twofold, 4)
    found.save(tmp_path)
    assert json.loads((tmp_path / EVALUATION_FILE).read_text())["reached"]["p2"]["n"] == 4
    assert Evaluation.load(tmp_path).reached["p1"].value == found.reached["p1"].value


def test_a_task_of_one_part_has_no_share_of_parts(evaluation):
    assert evaluation.reached == {}
    assert "p1" not in str(evaluation)
