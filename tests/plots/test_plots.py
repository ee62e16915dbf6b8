"""Every figure draws what it can, says what it lacks, and leaves matplotlib as it found it."""

import dataclasses
import subprocess
import sys

import matplotlib
import numpy as np
import pytest
from matplotlib.text import Text

from everymode import plots
from everymode.plots.style import colour, percent
from everymode.tape import Tape

KINDS = ["answers", "bands", "coverage", "density", "field", "trajectories"]
OTHERS = [
    "calibration",
    "crossing",
    "demonstrations",
    "disagreement",
    "matrix",
    "merging",
    "modes",
    "policies",
    "quality",
    "scoreboard",
    "steps",
    "valley",
    "verdict",
    "ways",
]  # of a lesson, a comparison, a curve, a diagnosis, a calibration or policies, tested beside them
NEEDS = {"answers": "draws", "bands": "draws", "coverage": "scores"}  # the others need motion


def test_the_folder_is_the_registry():
    assert plots.kinds() == sorted([*KINDS, *OTHERS])
    assert all(plots.summary(kind) for kind in plots.kinds())


@pytest.mark.parametrize("kind", KINDS)
def test_a_figure_of_two_outputs_is_the_same_bytes_twice(kind, fork, tmp_path):
    before = dict(matplotlib.rcParams)
    first = plots.save(plots.draw(kind, fork), tmp_path / "first", kind)
    second = plots.save(plots.draw(kind, fork), tmp_path / "second", kind)
    assert [path.suffix for path in first] == [".png", ".svg"]
    assert first[0].read_bytes().startswith(b"\x89PNG")
    assert [a.read_bytes() == b.read_bytes() for a, b in zip(first, second, strict=True)] == [True, True]
    assert b"<dc:date>" not in first[1].read_bytes()
    assert dict(matplotlib.rcParams) == before


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "coverage"])
def test_a_figure_of_one_output(kind, table, tmp_path):
    path = plots.save(plots.draw(kind, table), tmp_path, kind)[0]
    assert path.stat().st_size > 10_000


@pytest.mark.parametrize("kind", KINDS)
def test_a_tape_that_lacks_a_field_is_told_which(kind):
    empty = Tape("an empty tape", ["x"], ["y"], np.zeros((2, 1)), np.zeros((2, 1)), np.zeros((1, 1)))
    with pytest.raises(ValueError, match=f"'an empty tape' has no {NEEDS.get(kind, 'motion')}"):
        plots.draw(kind, empty)


def test_an_unknown_figure_offers_the_nearest(fork):
    with pytest.raises(ValueError, match="'trajectories'"):
        plots.draw("trajectory", fork)


def test_figures_that_cannot_be_drawn_say_why(fork):
    with pytest.raises(ValueError, match="a family that is not 'mse'"):
        plots.draw("bands", dataclasses.replace(fork, draws={"mse": fork.draws["mse"]}, valid=None))
    moving = fork.motion["flow_matching"]
    still = dataclasses.replace(moving, field_times=np.zeros(0), field=np.zeros((0, *moving.grid.shape)))
    with pytest.raises(ValueError, match="needs a motion with a field"):
        plots.draw("field", dataclasses.replace(fork, motion={"diffusion": still}))


def test_several_probes_and_many_outputs(fork):
    several = Tape(
        "three probes",
        ["width", "age"],
        ["a", "b", "c"],
        np.random.default_rng(0).random((50, 2)),
        np.random.default_rng(1).random((50, 3)),
        np.array([[0.0, 1.0], [0.5, 1.0], [1.0, 1.0]]),
        draws={"mse": np.zeros((3, 1, 3)), "mdn": np.random.default_rng(2).random((3, 30, 3))},
    )
    drawn = plots.draw("answers", several).findobj(Text)
    texts = " ".join(text.get_text() for text in drawn if isinstance(text, Text))
    assert "width = 0.5, age = 1" in texts
    assert "first two of 3 outputs" in texts
    bands = plots.draw("bands", several)
    assert [axes.get_ylabel() for axes in bands.axes[:3]] == ["a", "b", "c"]
    assert bands.axes[2].get_xlabel().startswith("width   (one of 2 columns")


def test_the_regressor_is_named_as_the_average_and_its_validity_told(fork):
    axes = plots.draw("answers", fork).axes[1]
    assert axes.get_title() == "squared error\n0% valid"
    assert "the average of\nthe valid answers:\n0% valid" in [text.get_text() for text in axes.texts]


def test_bands_leave_the_gap_between_two_modes_empty(table):
    axes = plots.draw("bands", table).axes[0]
    x, gap = 0.6, 1.0  # the branches are at -0.8 and 2.56
    pieces = [path for group in axes.collections for path in group.get_paths() if len(np.asarray(path.vertices)) >= 4]
    assert not any(path.contains_point((x, gap)) for path in pieces)
    assert any(path.contains_point((x, -0.8)) for path in pieces)
    assert any(path.contains_point((x, 2.56)) for path in pieces)


def test_pyplot_is_never_imported():
    program = (
        "import sys, numpy as np; from everymode import plots; from everymode.tape import Tape;"
        "one = np.zeros((1, 1)); t = Tape('t', ['x'], ['y'], one, one, one, scores=[{'family': 'mse'}]);"
        "plots.draw('coverage', t); [plots.summary(kind) for kind in plots.kinds()];"
        "sys.exit('matplotlib.pyplot' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_a_family_keeps_its_colour_and_shares_do_not_round_to_all():
    assert colour("a family of the future") == colour("a family of the future")
    assert colour("mse") != colour("flow_matching")
    assert [percent(share) for share in (0, 0.001, 0.5, 0.999, 1)] == ["0%", "<1%", "50%", ">99%", "100%"]
