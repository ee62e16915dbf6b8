"""`everymode lesson`: its table, its slope, its files, and where it speaks."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from everymode.cli import lesson as verb
from everymode.cli import main
from everymode.lessons import Crossing, Merging


@pytest.fixture
def call(capfd, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(verb._QUICK, "crossing", {"separations": [3.0, 4.0], "chains": 50, "budget": 1500})
    few = {"components": [1, 8], "rows": 300, "draws": 200, "steps": 10, "batch_size": 32}
    monkeypatch.setitem(verb._QUICK, "merging", few)

    def run(*argv):
        monkeypatch.setattr(sys, "argv", ["everymode", "lesson", *map(str, argv)])
        code = 0
        capfd.readouterr()
        try:
            main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        return code, *capfd.readouterr()

    return run


def test_crossing_prints_its_table_and_slope_and_writes_a_run(call):
    code, out, err = call("crossing", "--quick", "--out", "run", "--seed", 3)
    assert code == 0
    assert sorted(path.name for path in Path("run").iterdir()) == ["crossing.png", "crossing.svg", "lesson.json"]
    written = json.loads(Path("run/lesson.json").read_text())
    found = Crossing.from_dict(written)
    assert found.settings["seed"] == 3
    assert f"slope of the log crossing time on the squared separation: {found.slope['value']:.4f}" in out
    assert "figure: run/crossing.png" in out
    assert "50 of 50" in out
    assert "separation 3: 50 of 50 chains crossed" in err
    assert written["machine"]["argv"][:2] == ["everymode", "lesson"]


def test_json_is_all_of_stdout_and_quiet_is_quiet(call):
    code, out, err = call("crossing", "--quick", "--json", "--quiet")
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert found["lesson"] == "crossing"
    assert "paths" not in found
    assert Path(found["run"]).parent == Path("runs/lesson")
    assert (Path(found["run"]) / "crossing.png").is_file()


def test_merging_of_a_family_of_ones_choice(call):
    code, out, _ = call("merging", "--quick", "--family", "flow_matching", "--out", "run")
    assert code == 0
    assert "mixture of 8" in out
    assert "flow_matching" in out
    assert "BIC chooses 8 components; there are 8 modes." in out
    assert Merging.from_dict(json.loads(Path("run/lesson.json").read_text())).model["family"] == "flow_matching"
    assert Path("run/merging.svg").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("merging", "--family", "difusion"), "'diffusion'"),
        (("crossing", "--family", "mse"), "--family belongs to the lesson merging"),
        (("melting",), "'melting' is not one of"),
        ((), "Missing argument"),
    ],
)
def test_what_cannot_be_done_is_one_sentence_and_leaves_nothing(call, argv, message):
    code, out, err = call(*argv)
    assert (code, out) == (2, "")
    assert message in " ".join(err.split())
    assert not list(Path().iterdir())


def test_a_run_never_overwrites_another(call):
    Path("run").mkdir()
    Path("run/notes.txt").write_text("mine")
    code, _, err = call("crossing", "--quick", "--out", "run")
    assert code == 2
    assert "never overwrites" in err
    assert [path.name for path in Path("run").iterdir()] == ["notes.txt"]


def test_the_lessons_of_the_command_are_those_of_the_library():
    from everymode import lessons, plots

    for lesson in verb.Lesson:
        assert callable(getattr(lessons, lesson))
        assert lesson in plots.kinds()
