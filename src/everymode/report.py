"""One HTML file that holds a whole report: text, tables and figures, and nothing fetched from anywhere."""

from __future__ import annotations

import base64
import html
import io
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from everymode.errors import DataError
from everymode.files import atomically
from everymode.plots.style import house

__all__ = ["Section", "write_report"]

_SVG_MOST = 200_000  # bytes; a larger drawing goes in as PNG, which is then the smaller of the two
_DOTS_PER_INCH = 120  # sharp enough for the 60rem of the page, and a dozen figures stay well below 5 MB
_KINDS = {
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".gif": "image/gif",
}


@dataclass(frozen=True)
class Section:
    """One part of a report.

    A blank line in `text` starts a paragraph. All text is shown as it is, never as HTML. The columns of the
    table stand in the order in which they first appear in its rows.
    """

    heading: str
    text: str = ""
    figures: Sequence[tuple[Figure | str | os.PathLike[str], str]] = ()  # (figure or image file, caption)
    table: Sequence[Mapping[str, Any]] | None = None  # one mapping a row


def write_report(path: str | os.PathLike[str], title: str, sections: Sequence[Section]) -> Path:
    """Writes the report, atomically, and returns its path.

    Args:
        path: the .html file.
        title: the heading of the whole page.
        sections: its parts, in order.

    Raises:
        DataError: an image file is missing, or of a kind that a page cannot show.
    """
    contents = "".join(
        f'<li><a href="#part-{number}">{html.escape(section.heading)}</a></li>'
        for number, section in enumerate(sections, 1)
    )
    page = _PAGE.format(
        title=html.escape(title),
        contents=f"<nav><ol>{contents}</ol></nav>" if len(sections) > 3 else "",
        sections="\n".join(_section(number, section) for number, section in enumerate(sections, 1)),
    )
    with atomically(path) as file:
        file.write(page.encode())
    return Path(path)


def _section(number: int, section: Section) -> str:
    paragraphs = (part.strip() for part in re.split(r"\n\s*\n", section.text))
    parts = [f'<section id="part-{number}">', f"<h2>{html.escape(section.heading)}</h2>"]
    parts += [f"<p>{html.escape(part)}</p>" for part in paragraphs if part]
    parts += [_figure(figure, caption) for figure, caption in section.figures]
    if section.table:
        parts.append(_table(section.table))
    return "\n".join([*parts, "</section>"])


def _figure(figure: Figure | str | os.PathLike[str], caption: str) -> str:
    kind, data = _rendered(figure) if isinstance(figure, Figure) else _read(Path(figure))
    source = f"data:{kind};base64,{base64.b64encode(data).decode()}"
    words = html.escape(caption)
    return f'<figure><img src="{source}" alt="{words}"><figcaption>{words}</figcaption></figure>'


def _rendered(figure: Figure) -> tuple[str, bytes]:
    """A figure as SVG where that is small, sharp at any size; as PNG where it is not."""
    drawing, picture = io.BytesIO(), io.BytesIO()
    with house():
        figure.savefig(drawing, format="svg", dpi=_DOTS_PER_INCH, metadata={"Date": None})
        if drawing.tell() <= _SVG_MOST:
            return _KINDS[".svg"], drawing.getvalue()
        figure.savefig(picture, format="png", dpi=_DOTS_PER_INCH, metadata={"Software": None})
    return _KINDS[".png"], picture.getvalue()


def _read(path: Path) -> tuple[str, bytes]:
    if path.suffix.lower() not in _KINDS:
        raise DataError(f"{path} is no image that a page can show; allowed are {', '.join(_KINDS)}.")
    if not path.is_file():
        raise DataError(f"{path} is to go into the report, and there is no such file.")
    return _KINDS[path.suffix.lower()], path.read_bytes()


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    columns = list(dict.fromkeys(column for row in rows for column in row))
    kinds = ["number" if _numeric(row.get(column) for row in rows) else "words" for column in columns]
    head = "".join(
        f'<th scope="col" class="{kind}">{html.escape(str(column).replace("_", " "))}</th>'
        for column, kind in zip(columns, kinds, strict=True)
    )
    body = "\n".join(
        "<tr>"
        + "".join(
            f'<td class="{kind}">{_cell(_text(row.get(column)))}</td>'
            for column, kind in zip(columns, kinds, strict=True)
        )
        + "</tr>"
        for row in rows
    )
    return f'<div class="table"><table><thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table></div>'


def _cell(text: str) -> str:
    """Return the text of a cell; what it ends with in brackets, an interval or a floor, stands below the rest."""
    value, opened, rest = html.escape(text).partition(" (")
    return f"{value} <small>({rest}</small>" if opened and value and rest.endswith(")") else html.escape(text)


def _numeric(values: Any) -> bool:
    return all(value is None or isinstance(_plain(value), int | float) for value in values)


def _plain(value: Any) -> Any:
    """A NumPy scalar as the Python number it holds."""
    return value.item() if hasattr(value, "item") and not getattr(value, "shape", ()) else value


def _text(value: Any) -> str:
    """A cell: three significant digits, thousands set apart, a dash where nothing is known."""
    value = _plain(value)
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if not isinstance(value, float):
        return str(value)
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    size = abs(value)
    if 0 < size < 0.001:
        return f"{value:.2g}"
    digits = next((digits for digits, least in enumerate((99.95, 9.995, 0.9995)) if size >= least), 3)
    return f"{value:,.{digits}f}"


_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
:root {{
  --ink: #22262e; --quiet: #596270; --line: #d9dde3; --paper: #ffffff; --shade: #f5f6f8; --link: #00607f;
}}
@media (prefers-color-scheme: dark) {{
  :root {{
    --ink: #e6e8ec; --quiet: #a3abb8; --line: #3a414d; --paper: #16191f; --shade: #1e222a; --link: #7cc4dc;
  }}
}}
* {{ box-sizing: border-box; }}
body {{
  margin: 0; background: var(--paper); color: var(--ink); -webkit-text-size-adjust: 100%;
  font: 17px/1.6 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif;
}}
main {{ max-width: 68rem; margin: 0 auto; padding: 2.5rem 1.25rem 4rem; }}
h1 {{ font-size: 2rem; line-height: 1.2; margin: 0 0 1.5rem; letter-spacing: -0.01em; text-wrap: balance; }}
h2 {{
  font-size: 1.3rem; line-height: 1.3; margin: 3rem 0 0.75rem; padding-top: 1.25rem;
  border-top: 1px solid var(--line);
}}
p {{ max-width: 42rem; margin: 0 0 1rem; white-space: pre-line; }}
a {{ color: var(--link); }}
nav ol {{ margin: 0; padding-left: 1.25rem; color: var(--quiet); }}
figure {{ margin: 1.5rem 0; }}
img {{
  display: block; max-width: 100%; height: auto; margin: 0 auto; background: #ffffff; border-radius: 4px;
}}
figcaption {{ max-width: 42rem; margin-top: 0.5rem; color: var(--quiet); font-size: 0.9rem; }}
.table {{ overflow-x: auto; margin: 1.5rem 0; }}
table {{ border-collapse: collapse; font-size: 0.82rem; font-variant-numeric: tabular-nums; }}
th, td {{
  padding: 0.4rem 0.4rem; text-align: left; border-bottom: 1px solid var(--line); white-space: nowrap;
}}
th {{ color: var(--quiet); font-weight: 600; white-space: normal; vertical-align: bottom; }}
.number {{ text-align: right; }}
td {{ vertical-align: top; }}
td small {{ display: block; color: var(--quiet); }}
tbody tr:nth-child(even) {{ background: var(--shade); }}
@media print {{
  body {{ font-size: 10.5pt; }}
  main {{ max-width: none; padding: 0; }}
  nav {{ display: none; }}
  figure, tr {{ break-inside: avoid; }}
  h2 {{ break-after: avoid; }}
}}
</style>
</head>
<body>
<main>
<h1>{title}</h1>
{contents}
{sections}
</main>
</body>
</html>
"""
