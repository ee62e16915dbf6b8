"""A report is one file that fetches nothing, and shows what it was given as it was given."""

import base64
import re

import numpy as np
import pytest
from matplotlib.figure import Figure

from everymode.report import Section, write_report


def figure(points=10):
    drawn = Figure(figsize=(4, 3))
    drawn.subplots().plot(np.random.default_rng(0).random(points), ".")
    return drawn


def test_one_file_that_fetches_nothing(tmp_path):
    figure().savefig(tmp_path / "saved.png")
    sections = [
        Section(
            "Figures",
            figures=[(figure(), "small"), (figure(20_000), "large"), (tmp_path / "saved.png", "saved")],
        )
    ]
    path = write_report(tmp_path / "report.html", "A report", sections)
    page = path.read_text()
    kinds = re.findall(r'<img src="data:([a-z+/]+);base64,([^"]+)"', page)
    assert [kind for kind, _ in kinds] == ["image/svg+xml", "image/png", "image/png"]
    assert base64.b64decode(kinds[2][1]) == (tmp_path / "saved.png").read_bytes()
    assert not re.search(r"https?://|url\(|@import|<script|<link", page)
    assert path.stat().st_size < 1_000_000
    assert sorted(p.name for p in tmp_path.iterdir()) == ["report.html", "saved.png"]


def test_text_is_escaped_everywhere(tmp_path):
    evil = '<script>alert("x")</script> & more'
    section = Section(evil, evil, figures=[(figure(), evil)], table=[{evil: evil}])
    page = write_report(tmp_path / "r.html", evil, [section] * 4).read_text()
    assert "<script" not in page
    assert "&lt;script&gt;alert(&quot;x&quot;)&lt;/script&gt; &amp; more" in page


def test_a_table_keeps_its_columns_and_formats_its_numbers(tmp_path):
    rows = [
        {"family": "mse", "valid_share": 0.0, "nfe": 1, "parameters": 1234567, "best": False},
        {"family": "mdn", "valid_share": None, "nfe": 1, "parameters": np.int64(12), "seconds": 1234.5},
        {"family": "flow", "valid_share": np.float32(0.98765), "seconds": float("nan"), "best": np.True_},
        {"family": "tiny", "valid_share": 0.00001234, "seconds": 12.345},
    ]
    page = write_report(tmp_path / "r.html", "t", [Section("s", table=rows)]).read_text()
    heads = re.findall(r"<th [^>]*>([^<]*)</th>", page)
    assert heads == ["family", "valid share", "nfe", "parameters", "best", "seconds"]
    cells = [re.findall(r"<td [^>]*>([^<]*)</td>", row) for row in re.findall(r"<tr>(<td.*)</tr>", page)]
    assert cells == [
        ["mse", "0.000", "1", "1,234,567", "no", "–"],
        ["mdn", "–", "1", "12", "–", "1,234"],
        ["flow", "0.988", "–", "–", "yes", "–"],
        ["tiny", "1.2e-05", "–", "–", "–", "12.3"],
    ]


def test_paragraphs(tmp_path):
    page = write_report(tmp_path / "r.html", "t", [Section("s", "one\n\ntwo\nlines\n\n")]).read_text()
    assert re.findall(r"<p>([^<]*)</p>", page) == ["one", "two\nlines"]


@pytest.mark.parametrize("name", ["missing.png", "report.pdf"])
def test_an_image_that_cannot_be_shown_is_named(tmp_path, name):
    with pytest.raises(ValueError, match=name):
        write_report(tmp_path / "r.html", "t", [Section("s", figures=[(tmp_path / name, "c")])])
    assert not (tmp_path / "r.html").exists()


def test_what_a_cell_ends_with_in_brackets_stands_below(tmp_path):
    rows = [{"family": "a (b", "valid share": "99.4 % (99.3 to <99.4>)", "n": "(2)"}]
    text = write_report(tmp_path / "r.html", "t", [Section("s", "", table=rows)]).read_text()
    assert '<td class="words">99.4 % <small>(99.3 to &lt;99.4&gt;)</small></td>' in text
    assert '<td class="words">a (b</td>' in text
    assert '<td class="words">(2)</td>' in text
