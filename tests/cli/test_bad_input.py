"""What a user can get wrong: one clear sentence and exit code 2 on the command line, a ValueError in Python."""

from __future__ import annotations

import contextlib
import pickle
import re
import resource
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import safetensors.torch
import torch

import everymode as em
from everymode.cli import main
from everymode.errors import CheckpointError, DataError, FileError, SettingError
from everymode.training import STATE_FILE, TrainingSettings, train

SMALL = ("--steps", 20, "--width", 16, "--depth", 1, "--batch-size", 16, "--device", "cpu")
MODEL = "model.safetensors"


@pytest.fixture
def refuse(capfd, monkeypatch, tmp_path):
    """Call the command; it must end with 2 and one sentence on stderr, which is returned."""
    monkeypatch.chdir(tmp_path)

    def run(*argv: object) -> str:
        monkeypatch.setattr(sys, "argv", ["everymode", *map(str, argv)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as stop:
            main()
        out, err = capfd.readouterr()
        assert stop.value.code == 2, err
        assert out == ""
        assert err.startswith("everymode: ")
        assert err.count("\n") == 1, err
        assert err[-2] in ".)", err
        assert "Traceback" not in err
        return err.removeprefix("everymode: ").rstrip("\n")

    return run


def table(rows=60, **columns) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"speed": rng.uniform(size=rows), "mass": rng.normal(size=rows), "y": rng.normal(size=rows)})
    return frame.assign(**columns)


def cell(name: str, *rows: int, value: float = np.nan, size: int = 60) -> pd.DataFrame:
    frame = table(size)
    frame.loc[list(rows), name] = value
    return frame


@pytest.fixture(scope="module")
def model() -> em.OneToManyRegressor:
    frame = table(kind=["a", "b", "c"] * 20)
    fitted = em.OneToManyRegressor(steps=20, width=16, depth=1, batch_size=16, random_state=0, device="cpu")
    return fitted.fit(frame[["speed", "kind"]], frame["y"])


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A finished run with the columns speed, kind and a target y."""
    folder = tmp_path_factory.mktemp("run")
    table(kind=["ant", "bee", "cat"] * 20).drop(columns="mass").to_csv(folder / "table.csv", index=False)
    argv = ("everymode", "fit", folder / "table.csv", "--target", "y", "--out", folder / "run", "--quiet", *SMALL)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [str(word) for word in argv])
        with pytest.raises(SystemExit) as stop:
            main()
    assert not stop.value.code
    return folder / "run"


# Tables --------------------------------------------------------------------------------------------------------------

TABLES = {
    "an empty cell of x": (cell("mass", 7), (), r"1 row\(s\), the first at 7; column\(s\) mass"),
    "NaN in several rows": (cell("speed", 3, 5, 41), (), r"in 3 row\(s\), the first at 3, 5, 41; column\(s\) speed"),
    "NaN in the target": (cell("y", 2), (), r"the first at 2; column\(s\) y"),
    "an infinite cell": (cell("mass", 9, value=np.inf), (), r"infinite cells in 1 row\(s\), the first at 9; .* mass"),
    "minus infinity in the target": (cell("y", 0, value=-np.inf), (), r"the first at 0; column\(s\) y"),
    "no rows": (table().head(0), (), r"has no rows"),
    "one row": (table().head(1), (), r"Found 1 sample .*at least 2 are needed"),
    "a constant target": (table(y=2.5), (), r"target y is 2.5 in every row: there is nothing to predict"),
    "target given too": (table(), ("--given", "speed,y"), r"y cannot be both target and given"),
    "target named twice": (table(), ("--target", "y"), r"target names y more than once"),
    "an unknown given": (table(), ("--given", "sped"), r"Unknown given column 'sped'. Did you mean 'speed'\?"),
    "an unknown target": (table(), ("--target", "Y2"), r"Unknown target column 'Y2'. .*Known: speed, mass, y"),
    "text as target": (
        table(y=["left", "right"] * 30),
        (),
        r"target 'y' holds text .* such as 'left', 'right', 'left'",
    ),
    "truth values as target": (table(y=[True, False] * 30), (), r"target 'y' holds text or truth values where numbers"),
    "the target alone": (table()[["y"]], (), r"no column is left to condition on"),
}


@pytest.mark.parametrize("verb", ["fit", "compare"])
@pytest.mark.parametrize("case", TABLES)
def test_a_table_that_cannot_be_used(refuse, case, verb):
    frame, more, said = TABLES[case]
    frame.to_csv("table.csv", index=False)
    size = SMALL if verb == "fit" else ("--budget", 20, "--width", 16)
    if case == "one row" and verb == "compare":
        said = r"1 row\(s\) cannot be split"
    message = refuse(verb, "table.csv", "--target", "y", *more, *size)
    assert re.search(said, message), message
    assert not Path("runs").exists()


@pytest.mark.parametrize("ending", ["csv", "tsv", "parquet", "npz"])
def test_columns_of_the_same_name(refuse, ending):
    path = Path(f"table.{ending}")
    if ending == "npz":
        np.savez(path, speed=np.zeros((9, 2)), speed_0=np.ones(9), y=np.arange(9))
    elif ending == "parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        arrays = [pa.array(np.arange(9.0))] * 3
        pq.write_table(pa.Table.from_arrays(arrays, names=["speed_0", "speed_0", "y"]), path)
    else:
        sign = {"csv": ",", "tsv": "\t"}[ending]
        path.write_text("\n".join(sign.join(row) for row in (["speed_0", "speed_0", "y"], *([["1", "2", "3"]] * 9))))
    message = refuse("fit", path, "--target", "y", *SMALL)
    assert "columns of the same name: speed_0" in message


FILES = {
    "absent.csv": (None, r"there is no file absent.csv"),
    "table.xlsx": (b"PK", r"table.xlsx is no table that can be read: give a .csv, .tsv, .parquet or .npz file"),
    "table.parquet": (b"speed,y\n1,2\n", r"table.parquet cannot be read as a table"),
    "table.npz": (b"speed,y\n1,2\n", r"table.npz cannot be read as a table"),
    "table.csv": (b"\x89PNG\r\n\x1a\n\xff\xfe\x00", r"table.csv cannot be read as a table"),
    "empty.csv": (b"", r"empty.csv cannot be read as a table"),
    "ragged.csv": (b"a,b\n1,2\n1,2,3\n", r"ragged.csv cannot be read as a table"),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_another_kind(refuse, name):
    content, said = FILES[name]
    if content is not None:
        Path(name).write_bytes(content)
    message = refuse("fit", name, "--target", "y", *SMALL)
    assert re.search(said, message), message
    assert not Path("runs").exists()


def test_a_folder_where_a_table_belongs(refuse):
    Path("folder.csv").mkdir()
    assert "there is no file folder.csv" in refuse("fit", "folder.csv", "--target", "y", *SMALL)


def test_arrays_of_an_npz(refuse):
    np.savez("lengths.npz", x=np.zeros(5), y=np.zeros(6))
    assert "the arrays differ in length: x 5, y 6." in refuse("fit", "lengths.npz", "--target", "y")
    np.savez("deep.npz", x=np.zeros((5, 4, 3)), y=np.zeros(5))
    assert "array 'x' has shape (5, 4, 3); a table takes (rows,) and (rows, k)." in refuse(
        "fit", "deep.npz", "--target", "y"
    )
    np.savez("objects.npz", x=np.array([{}, {}], dtype=object), y=np.zeros(2))
    assert "objects.npz cannot be read as a table" in refuse("fit", "objects.npz", "--target", "y")  # nothing unpickled


# Settings ------------------------------------------------------------------------------------------------------------

CUDA = pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
SETTINGS = [
    (("--width", 2), r"width=2 is out of range: give a whole number at least 4"),
    (("--depth", 0), r"depth=0 is out of range"),
    (("--steps", 0), r"steps=0 is out of range: give a whole number at least 1"),
    (("--steps", -5), r"steps=-5 is out of range"),
    (("--batch-size", 0), r"batch_size=0 is out of range"),
    (("--learning-rate", 0), r"learning_rate=0(.0)? is out of range: give a number above 0"),
    (("--learning-rate", "nan"), r"learning_rate=nan is out of range"),
    (("--learning-rate", 11), r"learning_rate=11(.0)? is out of range: .* at most 10"),
    (("--max-seconds", 0), r"max_seconds=0(.0)? is out of range"),
    (("--precision", "half"), r"precision='half': .*Known: auto, float32, bf16"),
    (("--family", "flow_machine"), r"Unknown family 'flow_machine'. Did you mean 'flow_matching'"),
    (("--set", "path=linaer"), r"'linaer'. Did you mean 'linear'"),
    (("--set", "path=3"), r"path"),
    (("--set", "solver=huen"), r"'huen'. Did you mean 'heun'"),
    (("--set", "solver=4"), r"solver"),
    (("--set", "coupling=independant"), r"'independant'. Did you mean 'independent'\?"),
    (("--set", "time_sampling=normal"), r"time_sampling='normal'"),
    (("--set", "steps=0"), r"steps=0 is out of range"),
    (("--set", "steps=2.5"), r"steps=2.5 is out of range: give a whole number"),
    (("--set", "steps=many"), r"steps='many' is out of range"),
    (("--set", "step=3"), r"Unknown setting of family 'flow_matching' 'step'. Did you mean 'steps'"),
    (("--set", "path"), r"--set 'path': write it as name=value"),
    (("--set", "=cosine"), r"--set '=cosine': write it as name=value"),
    (("--family", "mse", "--set", "path=cosine"), r"Unknown setting of family 'mse' 'path'"),
    pytest.param(("--device", "cuda"), r"device='cuda': torch sees no CUDA device here", marks=CUDA),
    (("--device", "gpu"), r"Unknown device 'gpu'. .*Known: auto, cpu, cuda, mps"),
]


@pytest.mark.parametrize(("argv", "said"), SETTINGS, ids=lambda value: " ".join(map(str, value))[:40])
def test_a_setting_out_of_range(refuse, argv, said):
    table().to_csv("table.csv", index=False)
    message = refuse("fit", "table.csv", "--target", "y", *SMALL, *argv)
    assert re.search(said, message), message
    assert not list(Path().glob("runs/fit/*/model.safetensors"))


def test_a_setting_out_of_range_leaves_no_run_behind(refuse):
    table().to_csv("table.csv", index=False)
    for argv in (
        ("--family", "nope"),
        ("--set", "path=nope"),
        ("--set", "steps=0"),
        ("--steps", 0),
        ("--learning-rate", "nan"),
    ):
        refuse("fit", "table.csv", "--target", "y", *SMALL, *argv)
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"validation_fraction": 0.95}, r"validation_fraction=0.95 is out of range: give a number .*at most 0.9"),
        ({"validation_fraction": -0.1}, r"validation_fraction=-0.1 is out of range"),
        ({"patience": 0}, r"patience=0 is out of range"),
        ({"weight_decay": -1}, r"weight_decay=-1 is out of range"),
        ({"learning_rate": "fast"}, r"learning_rate='fast' is out of range"),
        ({"steps": True}, r"steps=True is out of range"),
        ({"width": 10.5}, r"width=10.5 is out of range: give a whole number"),
        ({"width": "wide"}, r"width='wide' is out of range"),
        ({"family": "flow"}, r"Unknown family 'flow'. Did you mean .*'mean_flow'"),
        ({"family": 3}, r"Unknown family '3'"),
        ({"precision": 16}, r"precision=16"),
        ({"max_seconds": -1}, r"max_seconds=-1 is out of range"),
    ],
)
def test_a_setting_of_the_estimator(settings, said):
    frame = table()
    chosen = {"steps": 20, "width": 16, "depth": 1, "random_state": 0, **settings}
    with pytest.raises(SettingError, match=said):
        em.OneToManyRegressor(**chosen).fit(frame[["speed"]], frame["y"])


def test_settings_of_a_family_are_checked_when_it_is_made():
    for settings in ({"steps": 0}, {"path": "nope"}, {"solver": "nope"}, {"coupling": "nope"}, {"time_sampling": "x"}):
        with pytest.raises(SettingError, match=next(iter(settings))):
            em.FlowMatching(**settings)


# Data in Python ------------------------------------------------------------------------------------------------------


def fit(X, Y, **settings):
    return em.OneToManyRegressor(
        **{"steps": 3, "device": "cpu", "width": 16, "depth": 1, "random_state": 0, **settings}
    ).fit(X, Y)


def spoiled(values, *place, value=np.nan):
    values = np.array(values, dtype=float)
    values[place] = value
    return values


X2, Y1 = np.random.default_rng(0).normal(size=(20, 2)), np.random.default_rng(1).normal(size=20)
IMAGES = np.random.default_rng(2).normal(size=(20, 1, 4, 4))


@pytest.mark.parametrize(
    ("X", "Y", "said"),
    [
        (spoiled(X2, 4, 1), Y1, r"X|data.* 1 row\(s\), the first at 4; column\(s\) column 1"),
        (X2, spoiled(Y1, 6), r"1 row\(s\), the first at 6"),
        (X2, spoiled(Y1, 6, value=np.inf), r"1 row\(s\), the first at 6"),
        (table()[["speed"]], cell("y", 6)["y"], r"Y holds empty, NaN .* first at 6; column\(s\) y"),
        (cell("mass", 6)[["mass"]], table()["y"], r"X holds empty, NaN .* first at 6; column\(s\) mass"),
        (spoiled(IMAGES, 3, 0, 1, 2), Y1, r"1 row\(s\), the first at 3"),
        (X2, Y1[:19], r"X has 20 rows, but Y has shape \(19,\)"),
        (table()[["speed"]], np.zeros((59, 3)), r"X has 60 rows, but Y has shape \(59, 3\)"),
        (X2, np.zeros((20, 2, 2, 2, 2)), r"Y has shape \(20, 2, 2, 2, 2\): give"),
        (X2[:1], Y1[:1], r"1 sample"),
        (X2[:0], Y1[:0], r"0 sample"),
        (X2, np.full(20, 3.0), r"target column 0 is 3 in every row"),
        (X2, np.stack([Y1, 0 * Y1], axis=1), r"target column 1 is 0 in every row"),
        (X2, np.zeros((20, 4, 2)), r"every value of Y is 0: there is nothing to predict"),
        (X2, np.array(["left", "right"] * 10), r"Y holds text where numbers belong: .*'left'"),
        (X2, None, r"requires y to be passed"),
        (np.array([["a", "b"]] * 20), Y1, r"'a'"),
        (Y1, Y1, r"1D array"),
        ({}, Y1, r"X holds no parts"),
        ({"state": X2, "past": X2[:19]}, Y1, r"state.*20.*past.*19"),
        ({"state": X2, "past": np.array(["a"] * 20)}, Y1, r"past.*text|text.*past"),
        ({"state": X2, "past": Y1}, Y1, r"X\['past'\] has shape \(20,\)"),
        ({"state": X2, "past": spoiled(X2, 5, 0)}, Y1, r"1 row\(s\), the first at 5"),
    ],
)
def test_data_that_cannot_be_used(X, Y, said):
    with pytest.raises(ValueError, match=said):
        fit(X, Y)


def test_new_rows_that_do_not_fit_the_model():
    model = fit(X2, Y1)
    with pytest.raises(ValueError, match=r"X has 3 features, .* expecting 2 features"):
        model.sample(np.zeros((4, 3)))
    with pytest.raises(ValueError, match=r"first at 1; column\(s\) column 0"):
        model.predict(spoiled(X2[:3], 1, 0))
    with pytest.raises(SettingError, match=r"n=0 is out of range"):
        model.sample(X2, 0)
    images = fit(IMAGES, Y1)
    with pytest.raises(ValueError, match=r"\(20, 1, 5, 4\).*\(1, 4, 4\)"):
        images.sample(np.zeros((20, 1, 5, 4)))
    parts = fit({"state": X2, "image": IMAGES}, Y1)
    with pytest.raises(DataError, match="x lacks image; it must hold state, image"):
        parts.sample({"state": X2})
    with pytest.raises(DataError, match=r"state.*20.*image.*19"):
        parts.sample({"state": X2, "image": IMAGES[:19]})
    with pytest.raises(DataError, match="dict"):
        parts.sample(X2)


def test_a_category_that_was_never_seen(model, run, refuse):
    frame = pd.DataFrame({"speed": [0.1, 0.2], "kind": ["a", "d"]})
    for ask in (model.sample, model.predict):
        with pytest.raises(
            DataError, match=r"column 'kind' holds a category never seen in training: 'd'.* Known: a, b, c"
        ):
            ask(frame)
    message = refuse("sample", run, "--given", "speed=0.5", "--given", "kind=cta")
    assert message == (
        "column 'kind' holds a category never seen in training: 'cta'. The nearest known: cat. Known: ant, bee, cat."
    )


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ((), r"say what is known: --given speed=..., or --given-file"),
        (("--given", "speed=1", "--given-file", "x.csv"), r"say what is known"),
        (("--given", "speed=1"), r"--given lacks kind: the model was fitted on speed, kind"),
        (("--given", "speed=1", "--given", "knid=cat"), r"Unknown given column 'knid'. Did you mean 'kind'\?"),
        (("--given", "speed", "--given", "kind=cat"), r"--given 'speed': write it as name=value"),
        (("--given", "speed=fast", "--given", "kind=cat"), r"--given speed=fast: column 'speed' holds numbers"),
        (("--given", "speed=nan", "--given", "kind=cat"), r"NaN"),
        (("--given-file", "absent.csv"), r"there is no file absent.csv"),
        (("--given-file", "lacks.csv"), r"Unknown given column 'kind'.* Known: speed"),
        (("--given", "speed=1", "--given", "kind=cat", "--out", "draws.txt"), r"ends in .csv or .parquet"),
        (("--given", "speed=1", "--given", "kind=cat", "-n", 0), r"n=0 is out of range"),
        (("--given", "speed=1", "--given", "kind=cat", "--known", "x=1"), r"Unknown target column of --known 'x'. .*y"),
        (("--given", "speed=1", "--given", "kind=cat", "--known", "y=high"), r"--known y=high: give a number"),
        (("--given", "speed=1", "--given", "kind=cat", "--known", "y"), r"--known 'y': write it as name=value"),
        (("--given", "speed=1", "--given", "kind=cat", "--known", "y=1"), r"known leaves nothing to draw"),
        (("--given", "speed=1", "--given", "kind=cat", "--known", "y=inf"), r"known holds 1 infinite value"),
        (("--given", "speed=1", "--given", "kind=cat", "--temperature", 0), r"temperature=0.0 is out of range"),
    ],
)
def test_questions_that_cannot_be_answered(refuse, run, argv, said):
    pd.DataFrame({"speed": [1.0]}).to_csv("lacks.csv", index=False)
    message = refuse("sample", run, *argv)
    assert re.search(said, message), message


def test_an_unknown_figure(refuse, run):
    message = refuse("plot", run, "--kind", "band")
    assert "'band'" in message
    assert "Did you mean 'bands'" in message
    assert not (run / "figures").exists()


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (("--nfe", "0"), r"nfe=0"),
        (("--nfe", "two"), r"--nfe two: give whole numbers"),
        (("--method", "huen"), r"'huen'.*heun"),
        (("--problem", "forc"), r"'forc'.*fork"),
        (("--problem", "grid"), r"name the problem that its table is of"),
    ],
)
def test_steps_that_cannot_be_measured(refuse, run, argv, said):
    message = refuse("steps", run, *argv)
    assert re.search(said, message), message
    assert not (run / "steps.json").exists()


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (("--into", "mean_flo"), r"'mean_flo'.*mean_flow"),
        (("--into", "mean_flow", "--rows", 0), r"rows=0"),
        (("--into", "mean_flow", "--width", 1), r"width=1"),
        (("--into", "mean_flow", "--set", "instant=2"), r"instant=2"),
    ],
)
def test_what_cannot_be_taught_leaves_no_run_behind(refuse, run, argv, said):
    message = refuse("distill", run, *argv, "--out", "student")
    assert re.search(said, message), message
    assert not Path("student").exists()


@pytest.mark.parametrize("fraction", [0, 0.95])
def test_compare_refuses_a_share_out_of_range(refuse, fraction):
    table().to_csv("table.csv", index=False)
    message = refuse("compare", "table.csv", "--target", "y", "--test-fraction", fraction)
    assert re.search(rf"test_fraction={fraction}(.0)? is out of range", message)
    assert "Unknown family 'nope'" in refuse("compare", "table.csv", "--target", "y", "--families", "mse,nope")


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ((), "give either a table with --target, or --problem"),
        (("table.csv", "--problem", "fork"), "give either a table with --target, or --problem"),
        (("table.csv",), "which column.* of table.csv are to be predicted"),
        (("--problem", "frok"), "'fork'"),
        (("--problem", "fork", "--budget", "soon"), "budget 'soon': write seconds as 60s"),
        (("--problem", "fork", "--budget", "0s"), "budget '0s'"),
        (("--problem", "fork", "--families", "mse,mse"), "family mse stands twice"),
        (("--problem", "fork", "--families", "flow_matching:solvr=euler"), "'solver'"),
        (("--problem", "fork", "--resume", "nowhere"), "there is no folder nowhere"),
        (("--problem", "fork", "--jobs", "0"), "jobs=0"),
        (("--problem", "fork", "--seeds", "0"), "seeds=0"),
    ],
)
def test_compare_says_what_it_needs(refuse, argv, said):
    table().to_csv("table.csv", index=False)
    message = refuse("compare", *argv)
    assert re.search(said, message), message
    assert not Path("runs").exists()


# Checkpoints ---------------------------------------------------------------------------------------------------------


def flipped(content: bytes) -> bytes:
    """One byte of the tensors differs."""
    changed = bytearray(content)
    changed[len(content) - 50] ^= 0x10
    return bytes(changed)


DAMAGE = {
    "a flipped byte": (flipped, r"damaged: its tensors do not match their checksum"),
    "a flipped byte of the header": (
        lambda c: c[:30] + bytes([c[30] ^ 0x80]) + c[31:],
        r"damaged|not one that everymode",
    ),
    "truncated": (lambda c: c[: len(c) // 2], r"damaged, truncated or not a checkpoint"),
    "all but one byte": (lambda c: c[:-1], r"damaged, truncated or not a checkpoint"),
    "empty": (lambda c: b"", r"damaged, truncated or not a checkpoint"),
    "foreign safetensors": (
        lambda c: safetensors.torch.save({"weight": torch.zeros(3)}),
        r"is a safetensors file, but not one that everymode wrote",
    ),
    "a pickle": (lambda c: pickle.dumps({"weight": [0.0]}), r"damaged, truncated or not a checkpoint"),
    "a text": (lambda c: b"weights: none\n", r"damaged, truncated or not a checkpoint"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_or_foreign_model(refuse, run, tmp_path, damage):
    change, said = DAMAGE[damage]
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in ("run.json", "data.parquet"):
        (copy / name).write_bytes((run / name).read_bytes())
    path = copy / MODEL
    path.write_bytes(change((run / MODEL).read_bytes()))
    with pytest.raises(CheckpointError, match=said):
        em.load(path)
    for argv in (("sample", copy, "--given", "speed=1", "--given", "kind=cat"), ("plot", copy)):
        message = refuse(*argv)
        assert re.search(said, message), message
        assert str(path) in message


def test_a_torch_file_is_not_unpickled(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "went off",))

    torch.save({"bomb": Bomb()}, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match="not a checkpoint"):
        em.load(tmp_path / "model.safetensors")
    assert not (tmp_path / "went off").exists()


def test_a_training_state_is_no_model(run):
    with pytest.raises(CheckpointError, match="holds a 'training' checkpoint where a 'model' is needed"):
        em.load(run / STATE_FILE)


def test_no_run_at_all(refuse, tmp_path):
    (tmp_path / "folder").mkdir()
    for verb in ("resume", "plot", "sample"):
        for name in ("absent", "folder"):
            message = refuse(verb, name)
            assert re.search(rf"there is no checkpoint at {name}|{name} is no run folder", message), message
    with pytest.raises(CheckpointError, match="there is no checkpoint"):
        em.load(tmp_path / "folder")


@pytest.mark.parametrize("name", ["run.json", "data.parquet"])
def test_a_damaged_run(refuse, run, tmp_path, name):
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in run.iterdir():
        if path.is_file() and path.name != MODEL:
            (copy / path.name).write_bytes(path.read_bytes())
    (copy / name).write_bytes((run / name).read_bytes()[:40])
    assert f"the run in {copy} is damaged" in refuse("resume", copy)


def test_a_model_of_another_ending(model, tmp_path):
    with pytest.raises(FileError, match=r"written as .safetensors; 'model.pt' has another ending"):
        model.save(tmp_path / "model.pt")
    assert not list(tmp_path.iterdir())


# A full disk ---------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def disk_full_after(size: int):
    """No file may grow beyond `size` bytes: writes fail as on a full disk (Python ignores SIGXFSZ)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_disk_that_is_full_while_a_model_is_saved(model, tmp_path):
    path = model.save(tmp_path / "model.safetensors")
    before = contents(tmp_path)
    other = fit(X2, Y1)
    with disk_full_after(4096):
        assert len(before["model.safetensors"]) > 4096
        with pytest.raises(FileError, match=rf"cannot write {path}: .*large.*before is untouched") as caught:
            other.save(path)
        with pytest.raises(FileError, match=r"cannot write .*Free some space"):
            other.save(tmp_path / "new.safetensors")
    assert "\n" not in str(caught.value)
    assert contents(tmp_path) == before
    em.load(path)


def test_a_disk_that_is_full_while_a_checkpoint_is_written(tmp_path):
    """The training ends with one sentence; the last good checkpoint stays, and the run goes on from it."""
    space = em.spaces.VectorSpace.fit(X2)
    y = x = space.encode(X2)
    settings = TrainingSettings(steps=40, batch_size=8, checkpoint_every=10)

    def trained(folder, *, full):
        family = em.FlowMatching().build(space, space, width=16, depth=1, seed=0)
        limit = contextlib.ExitStack()
        with limit:
            for report in train(family, y, x, settings=settings, folder=folder, resume=True):
                if report.step == 20 and full:
                    kept.update(contents(folder))
                    limit.enter_context(disk_full_after(4096))
        return family

    kept: dict[str, bytes] = {}
    with pytest.raises(FileError, match=r"cannot write .*training.safetensors: .* before is untouched"):
        trained(tmp_path / "full", full=True)
    assert list(kept) == [STATE_FILE]
    assert contents(tmp_path / "full") == kept
    resumed, whole = trained(tmp_path / "full", full=False), trained(tmp_path / "whole", full=False)
    for name, value in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value)


def test_a_disk_that_is_full_on_the_command_line(refuse, run):
    table().to_csv("table.csv", index=False)
    with disk_full_after(8192):
        message = refuse("fit", "table.csv", "--target", "y", "--out", "run", *SMALL)
        assert message.startswith("cannot write run/training.safetensors: ")
        question = ("--given", "speed=1", "--given", "kind=cat", "-n", 2000)
        for out in ("draws.csv", "draws.parquet"):
            assert f"cannot write {out}: " in refuse("sample", run, *question, "--out", out)
    assert sorted(p.name for p in Path("run").iterdir()) == ["data.parquet", "run.json"]
    assert sorted(p.name for p in Path().iterdir()) == ["run", "table.csv"]


def test_a_disk_that_is_full_from_the_start(refuse):
    table(2000).to_parquet("table.parquet")
    with disk_full_after(4096):
        assert "cannot write run/data.parquet: " in refuse(
            "fit", "table.parquet", "--target", "y", "--out", "run", *SMALL
        )
    assert list(Path("run").iterdir()) == []


def test_a_folder_that_cannot_be_made(refuse):
    table().to_csv("table.csv", index=False)
    message = refuse("fit", "table.csv", "--target", "y", "--out", "table.csv/run", *SMALL)
    assert re.match(r"cannot make the folder table.csv/run: Not a directory\.", message)
    assert "exists already" in refuse("fit", "table.csv", "--target", "y", "--out", "table.csv", *SMALL)
    Path("runs").write_text("in the way")
    assert "cannot make the folder runs/fit/" in refuse("fit", "table.csv", "--target", "y", *SMALL)
    assert Path("runs").read_text() == "in the way"


# Usage ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "argv",
    [
        ("fit",),
        ("fit", "table.csv"),
        ("fit", "table.csv", "--target", "y", "--steps", "many"),
        ("fit", "table.csv", "--target", "y", "--colour", "red"),
        ("nothing",),
        ("sample", "run", "-n", "1.5"),
    ],
)
def test_usage_errors_end_with_two(capfd, monkeypatch, argv):
    monkeypatch.setattr(sys, "argv", ["everymode", *argv])
    with pytest.raises(SystemExit) as stop:
        main()
    out, err = capfd.readouterr()
    assert stop.value.code == 2
    assert out == ""
    assert "Traceback" not in err
    assert "Usage" in err
