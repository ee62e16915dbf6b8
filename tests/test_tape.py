"""A tape comes back as it went, and a file that is no tape is told so."""

import dataclasses
import subprocess
import sys

import numpy as np
import pytest

from everymode.tape import Motion, Tape


@pytest.fixture
def tape():
    random = np.random.default_rng(0)
    motion = Motion(
        times=np.linspace(0, 1, 4),
        states=random.standard_normal((4, 5, 2)),
        field_times=np.array([0.0, 1.0]),
        grid=random.random((9, 2)),
        field=random.random((2, 9, 2)),
        x=np.array([0.5]),
    )
    return Tape(
        title="Grüße: left / right",
        x_names=["x (m)"],
        y_names=["a", "b"],
        observed_x=random.random((6, 1)),
        observed_y=random.random((6, 2)),
        x=np.array([[0.5], [0.7]]),
        draws={"mse": random.random((2, 1, 2)), "my/family": random.random((2, 5, 2)).astype(np.float32)},
        truth=random.random((2, 3, 2)),
        valid={"mse": np.array([[True], [False]])},
        modes=[(np.zeros((1, 2)), np.ones(1)), (np.ones((3, 2)), np.full(3, 1 / 3))],
        motion={"my/family": motion},
        scores=[{"family": "mse", "valid_share": np.float64(0.5), "nfe": np.int64(1), "seconds": None}],
    )


def same(a, b):
    if dataclasses.is_dataclass(a):
        return all(same(getattr(a, f.name), getattr(b, f.name)) for f in dataclasses.fields(a))
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and np.array_equal(a, b)
    return a == b and type(a) is type(b)


def test_round_trip(tape, tmp_path):
    path = tape.save(tmp_path / "one.tape")
    assert same(tape, Tape.load(path))
    assert [p.name for p in tmp_path.iterdir()] == ["one.tape"]
    bare = Tape("bare", ["x"], ["y"], np.zeros((0, 1)), np.zeros((0, 1)), np.zeros((1, 1)))
    assert same(bare, Tape.load(bare.save(tmp_path / "bare.npz")))


def test_an_interrupted_write_leaves_the_old_file(tape, tmp_path, monkeypatch):
    path = tape.save(tmp_path / "one.npz")
    before = path.read_bytes()
    monkeypatch.setattr(np, "savez_compressed", lambda file, **_: (file.write(b"half"), 1 / 0))
    with pytest.raises(ZeroDivisionError):
        tape.save(path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["one.npz"]


def test_damaged_and_foreign_files_are_refused_in_one_sentence(tape, tmp_path):
    whole = tape.save(tmp_path / "one.npz").read_bytes()
    np.savez(tmp_path / "foreign.npz", a=np.zeros(3))
    np.save(tmp_path / "pickled.npy", np.array([{}], dtype=object), allow_pickle=True)
    middle = len(whole) // 2
    (tmp_path / "cut.npz").write_bytes(whole[:middle])
    (tmp_path / "flipped.npz").write_bytes(
        whole[:middle] + bytes(255 - b for b in whole[middle : middle + 40]) + whole[middle + 40 :]
    )
    (tmp_path / "text.npz").write_text("not a tape")
    (tmp_path / "empty.npz").write_bytes(b"")
    for name in ("foreign.npz", "pickled.npy", "cut.npz", "flipped.npz", "text.npz", "empty.npz"):
        with pytest.raises(ValueError, match=r"is damaged, or is no everymode tape: .+\.$"):
            Tape.load(tmp_path / name)
    with pytest.raises(FileNotFoundError):
        Tape.load(tmp_path / "nowhere.npz")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"observed_y": np.zeros((5, 2))}, r"observed_y has shape \(5, 2\); expected \(6, 2\)"),
        ({"x": np.array([[np.nan], [0.0]])}, r"x holds a number that is not finite, the first at \(0, 0\)"),
        ({"draws": {"mdn": np.zeros((3, 4, 2))}, "valid": None}, r"draws\['mdn'\] has shape \(3, 4, 2\)"),
        ({"valid": {"mse": np.zeros((2, 1))}}, r"valid\['mse'\] is float64"),
        ({"valid": {"mdn": np.zeros((2, 1), dtype=bool)}}, "no draws"),
        ({"modes": []}, "modes has 0 rows and x has 2"),
        ({"scores": [{"family": "mse", "validity": 1.0}]}, "'validity'"),
    ],
)
def test_what_does_not_fit_is_named(tape, change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(tape, **change)


def test_times_must_rise(tape):
    with pytest.raises(ValueError, match="times must rise"):
        dataclasses.replace(tape.motion["my/family"], times=np.zeros(4))


def test_the_module_itself_imports_no_torch():
    program = (
        "import sys; before = set(sys.modules); import everymode; known = 'torch' in sys.modules;"
        "import everymode.tape; sys.exit('torch' in sys.modules and not known)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
