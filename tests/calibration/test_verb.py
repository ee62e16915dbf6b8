"""The verb on eruptions of Old Faithful: what it writes, what it remarks, and what it refuses."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import everymode as em
from everymode import plots
from everymode.calibration import VERDICTS
from everymode.cli import main
from everymode.problems.geyser import Geyser


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A run on 200 of the 299 eruptions, and tables to ask about."""
    folder = tmp_path_factory.mktemp("geyser")
    table = Geyser().table().drop_duplicates(ignore_index=True)
    table[:150].to_csv(folder / "train.csv", index=False)
    table[150:].to_csv(folder / "new.csv", index=False)
    table[100:].to_csv(folder / "mixed.csv", index=False)
    table[150:][["waiting"]].to_csv(folder / "questions.csv", index=False)
    table[150:].assign(duration=lambda rows: rows["duration"] + 2).to_csv(folder / "longer.csv", index=False)
    size = ("--family", "mdn", "--steps", 200, "--width", 16, "--depth", 1, "--device", "cpu", "--quiet")
    argv = ("everymode", "fit", folder / "train.csv", "--target", "duration", "--given", "waiting", *size)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [*map(str, argv), "--out", str(folder / "run")])
        with pytest.raises(SystemExit) as stop:
            main()
    assert not stop.value.code
    return folder


@pytest.fixture
def call(capfd, monkeypatch, folder):
    """Call a verb from another folder; return the exit code, stdout and stderr."""

    def run(*argv: object) -> tuple[int, str, str]:
        monkeypatch.chdir(folder)
        monkeypatch.setattr(sys, "argv", ["everymode", *map(str, argv)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as stop:
            main()
        return int(stop.value.code or 0), *capfd.readouterr()

    return run


@pytest.fixture
def calibrate(call):
    return lambda *argv: call("calibrate", *argv)


def test_it_writes_a_report_beside_the_model_and_never_over_another(calibrate, folder):
    before = {path: path.read_bytes() for path in (folder / "run").iterdir() if path.is_file()}
    code, out, err = calibrate("run", "new.csv", "-n", 50)
    assert code == 0, err
    assert out.startswith("verdict: ")
    assert err == ""
    written = folder / "run" / "calibration"
    assert {path.name for path in written.iterdir()} == {"calibration.html", "calibration.json", "figures"}
    assert {path.name for path in (written / "figures").iterdir()} == {"calibration.png", "calibration.svg"}
    kept = (written / "calibration.json").read_text()
    told = json.loads(kept)
    assert told["verdict"] in VERDICTS
    assert (told["targets"], told["n_draws"], told["density"]) == (["duration"], 50, "log-density")
    assert told["rows_seen_in_training"] == 0
    assert "share in the 90% region" in (written / "calibration.html").read_text()
    code, out, err = calibrate("run", "new.csv", "-n", 50, "--json", "--quiet")
    assert (json.loads(out), err) == (told, "")  # the same seed, the same answer
    assert (folder / "run" / "calibration-2").is_dir()
    assert (written / "calibration.json").read_text() == kept
    assert {path: path.read_bytes() for path in before} == before
    assert calibrate("run", "new.csv", "--out", "run")[0] == 2
    assert "run exists already" in calibrate("nothing", "nothing.csv", "--out", "run")[2]  # before anything is read


def test_rows_that_the_run_was_trained_on_are_counted(calibrate):
    _, out, err = calibrate("run", "mixed.csv", "-n", 50, "--json", "--out", "seen")
    told = json.loads(out)
    assert told["rows_seen_in_training"] == 50
    assert f"50 of {told['rows']} rows are in the table that the run was trained on" in told["remarks"][-1]
    assert "they flatter it. Give rows that it has not seen." in err


def test_other_answers_are_told_from_the_draws(calibrate):
    told = json.loads(calibrate("run", "longer.csv", "-n", 50, "--json", "-q", "--out", "longer")[1])
    assert told["verdict"] in ("shifted", "answers are missing")
    assert not next(check["inside"] for check in told["checks"] if check["name"] == "PIT of duration")


def test_a_table_without_a_column_is_refused(calibrate):
    code, out, err = calibrate("run", "questions.csv", "--out", "refused")
    assert (code, out) == (2, "")
    assert "questions.csv lacks duration: the run tells duration given waiting, and needs them all." in err
    assert not Path("refused").exists()
    assert calibrate("run", "nothing.csv")[0] == 2


def test_conformal_regions_of_questions_and_what_is_promised(call, folder):
    """Those of `em.Conformal` on the same rows; nothing else is promised of the run's own rows."""
    code, out, err = call("conformal", "run", "new.csv", "--given", "waiting=80", "--level", 0.8, "-n", 200, "--json")
    assert code == 0, err
    told = json.loads(out)
    rows = pd.read_csv(folder / "new.csv")
    model = em.load(folder / "run", device="cpu")
    regions = em.Conformal(model, rows[["waiting"]], rows["duration"], level=0.8, n_draws=200)
    assert (told["level"], told["threshold"]) == (0.8, regions.threshold_)
    assert (told["rows"], told["rows_seen_in_training"]) == (len(rows), 0)
    parts = [[part["duration_low"], part["duration_high"]] for part in told["regions"]]
    np.testing.assert_allclose(parts, regions.predict_interval(pd.DataFrame({"waiting": [80]}))[0])
    assert len(parts) >= 2  # short ones and long ones, and not what lies between
    assert told["columns"] == ["row", "waiting", "duration_low", "duration_high"]
    code, out, err = call("conformal", "run", "mixed.csv", "--given-file", "questions.csv", "-n", 50)
    assert out.splitlines()[0] == "row,waiting,duration_low,duration_high"
    assert "50 of" in err
    assert "nothing is promised" in err
    code, _, err = call("conformal", "run", "new.csv", "--given", "waiting=80", "--level", 0.999, "-n", 50)
    assert code == 2
    assert "needs at least 999 rows" in err


def test_the_figure_has_the_band_and_bold_lines_where_it_is_left(folder):
    x, y = em.problems.get("fork").sample(300, seed=0)
    draws = em.problems.get("fork").sample_given(x, 50, seed=1)
    for given, bold in ((draws, False), (draws + np.array([1.0, 0.0]), True)):
        found = em.calibrate_draws(y, given, x=x, names=["across", "along"])
        assert plots.kinds_for(found) == ["calibration"]
        figure = plots.draw("calibration", found)
        lines = {line.get_label(): line for line in figure.axes[0].lines}
        assert (lines["across"].get_linewidth() > 2) == bold
        heights = np.asarray(lines["across"].get_ydata())
        assert heights[0] == heights[-1] == 0
        assert (heights.max() > 0.1) == bold  # draws that are too high: answers rank low
    many = em.calibrate_draws(np.tile(y, 10), np.tile(draws, (1, 1, 10)))
    assert plots.draw("calibration", many).axes[0].texts[0].get_text() == "too many targets"
