"""The user guide builds without a warning: its code runs, its assertions hold, and its tables are filled."""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import everymode as em

DOCS = Path(__file__).parent.parent / "docs"
TABLES = {"need": 6, "families": 6, "table": 6, "plain": 5, "api": 2}  # at least so many tables a page
FIGURES = {"need": 2, "table": 2}

for module in ("sphinx", "furo", "myst_parser", "bs4"):
    pytest.importorskip(module, reason=f"no {module}, so no guide: pip install 'everymode[docs]'")


def build(source: Path, target: Path) -> subprocess.CompletedProcess[str]:
    """Build in a process of its own: the guide shall run as it does for a reader."""
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-E", "-b", "html", str(source), str(target)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TMPDIR": str(target.parent)}
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=target.parent)


def test_the_guide_builds_and_its_tables_are_filled(tmp_path):
    from bs4 import BeautifulSoup

    built = build(DOCS, tmp_path / "html")
    assert built.returncode == 0, built.stdout + built.stderr
    pages = {path.stem: BeautifulSoup(path.read_text(), "html.parser") for path in (tmp_path / "html").glob("*.html")}
    for name, least in TABLES.items():
        tables = pages[name].find_all("table", class_="docutils")
        assert len(tables) >= least, name
        for table in tables:
            rows = [[cell.get_text(strip=True) for cell in row.find_all("td")] for row in table.tbody.find_all("tr")]
            assert rows, name
            assert all(row and row[0] for row in rows), (name, rows)
    for name, least in FIGURES.items():
        pictures = pages[name].article.find_all("img")
        assert len(pictures) >= least, name
        for picture in pictures:
            assert picture["alt"]
            assert (tmp_path / "html" / picture["src"]).stat().st_size > 10_000, name
    for name, page in pages.items():
        remote = [tag for tag in page.select("script[src], link[href], img[src]") if _is_remote(tag)]
        assert not remote, (name, remote)
    described = {tag["id"] for tag in pages["api"].find_all("dt", id=True)}
    public = {name for name in em.__all__ if inspect.isclass(getattr(em, name)) or inspect.isroutine(getattr(em, name))}
    assert not {name for name in public if f"everymode.{name}" not in described}


def _is_remote(tag) -> bool:
    return bool(re.match(r"(https?:)?//", tag.get("src") or tag.get("href")))


PAGE = """# A page

```{run}
print("a" * 3)
total = 1 + 1
total
```

The sum is {value}`total`.
"""


@pytest.mark.parametrize(
    ("added", "fault"),
    [
        ("", None),
        ("```{run}\n:quiet:\nassert total == 3\n```\n", "AssertionError"),
        ("```{command}\n:says: several answers\neverymode --version\n```\n", "everymode --version"),
    ],
    ids=["sound", "assertion", "command"],
)
def test_a_block_shows_what_it_gives_and_its_fault_fails_the_build(tmp_path, added, fault):
    source = tmp_path / "source"
    source.mkdir()
    lines = ["import sys", f"sys.path.insert(0, {str(DOCS / '_ext')!r})", "extensions = ['myst_parser', 'runs']"]
    (source / "conf.py").write_text("\n".join(lines))
    (source / "index.md").write_text(PAGE + "\n" + added)
    built = build(source, tmp_path / "html")
    if fault is not None:
        assert built.returncode != 0
        assert fault in built.stdout + built.stderr
        return
    assert built.returncode == 0, built.stdout + built.stderr
    page = (tmp_path / "html" / "index.html").read_text()
    assert "aaa\n2" in page
    assert "The sum is 2." in page
