import pytest

from everymode import problems


def test_all_problems_are_found():
    assert problems.names() == [
        "branches",
        "fork",
        "geyser",
        "grid",
        "heavy_tailed",
        "heteroscedastic",
        "imbalanced",
        "inverse_kinematics",
        "line",
        "rings",
        "sine_fold",
        "skewed",
        "two_moons",
    ]
    assert all(problems.get(name).name == name for name in problems.names())


def test_settings_reach_the_problem_and_equal_settings_are_equal():
    assert problems.get("rings", noise=0.1) == problems.get("rings", noise=0.1) != problems.get("rings")


def test_unknown_names_offer_the_nearest():
    with pytest.raises(ValueError, match=r"Unknown problem 'sinefold'. Did you mean 'sine_fold'"):
        problems.get("sinefold")
    with pytest.raises(ValueError, match=r"Unknown problem 'qqq'. Known: branches, fork"):
        problems.get("qqq")
    with pytest.raises(ValueError, match=r"Unknown setting of rings 'nose'. Did you mean 'noise'"):
        problems.get("rings", nose=1)


@pytest.mark.parametrize("value", [0, -1.0, float("nan"), float("inf"), "wide"])
def test_settings_must_be_positive_numbers(value):
    with pytest.raises(ValueError, match=r"line.noise=.* give a number above 0"):
        problems.get("line", noise=value)


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("heavy_tailed", {"degrees": 2}, "above 2"),
        ("two_moons", {"noise": 0.01}, "at least 0.05"),
        ("sine_fold", {"noise": 0.001}, "at least 0.01"),
    ],
)
def test_settings_that_break_a_promise_are_refused(name, settings, message):
    with pytest.raises(ValueError, match=message):
        problems.get(name, **settings)
