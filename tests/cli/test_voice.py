"""Bars are for people who look: on a terminal, and unless they asked for quiet."""

from __future__ import annotations

import io
import sys

import pytest
from rich.console import Console

from everymode.cli.voice import Voice


class Stream(io.StringIO):
    def __init__(self, *, terminal: bool) -> None:
        super().__init__()
        self.terminal = terminal

    def isatty(self) -> bool:
        return self.terminal


@pytest.mark.parametrize(
    ("terminal", "quiet", "drawn"), [(True, False, True), (True, True, False), (False, False, False)]
)
def test_a_bar_is_drawn_on_a_terminal_alone(monkeypatch, terminal, quiet, drawn):
    stream = Stream(terminal=terminal)
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("TERM", "xterm")
    with Voice(quiet=quiet).share("diagnosis") as move:
        move(0.5)
    assert ("diagnosis" in stream.getvalue()) == drawn
    assert drawn or stream.getvalue() == ""


ROWS = [
    {"family": "mse", "valid share": "0.0 % (0.0 to 0.0)", "modes": "0 of 2", "energy score": "3.002 (floor 1.581)"},
    {"family": "flow_matching", "valid share": "99.4 %", "modes": "2 of 2", "energy score": "1.579 (floor 1.581)"},
]


def printed(width):
    voice, told = Voice(), io.StringIO()
    voice.out = Console(file=told, width=width, highlight=False)
    voice.table("fork: left or right", ROWS, "400 draws each")
    return told.getvalue()


@pytest.mark.parametrize("width", [120, 60, 44])
def test_every_cell_is_printed_whole_within_the_width(width):
    told = printed(width)
    for row in ROWS:
        for cell in row.values():
            assert cell in told
    assert max(map(len, told.splitlines())) <= width
    assert told.count("fork: left or right") == told.count("400 draws each") == 1


def test_a_table_that_is_too_wide_goes_on_below_with_its_first_column():
    assert printed(120).count("flow_matching") == 1
    narrow = printed(44)
    assert narrow.count("flow_matching") == 2
    assert narrow.index("valid share") < narrow.index("modes") < narrow.index("energy score")


def test_a_column_that_is_wider_than_the_terminal_is_folded_and_not_cut():
    told = printed(20)
    assert "…" not in told
    assert max(map(len, told.splitlines())) <= 20
    for part in ("flow_", "1.581)", "99.4 %"):
        assert part in told
