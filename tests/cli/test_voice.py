"""Bars are for people who look: on a terminal, and unless they asked for quiet."""

from __future__ import annotations

import io
import sys

import pytest

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
