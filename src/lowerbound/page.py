"""HTML of a page: plain text and pictures in, one file out, with nothing to load and nothing to run.

Every string is text, and is escaped here: a label named ``<script>`` is a label named ``<script>``.
"""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from html import escape
from typing import Any

from . import figures

CSS = """
:root { color-scheme: light dark; --ink: #1f2328; --quiet: #656d76; --line: #e4e7eb; --page: #fff; --card: #f6f7f9; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #d7dce2; --quiet: #929ba6; --line: #333a43; --page: #15191e; --card: #1d2228; }
  img.figure { background: #fff; padding: 8px; border-radius: 6px; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 980px; padding: 48px 28px 64px; background: var(--page); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; }
p, li, figcaption { max-width: 70ch; overflow-wrap: anywhere; }
h1 { font-size: 30px; line-height: 1.2; margin: 0 0 14px; letter-spacing: -0.01em; overflow-wrap: anywhere; }
h1 small { display: block; font-size: 14px; font-weight: 400; letter-spacing: 0; color: var(--quiet); }
h2 { font-size: 20px; margin: 52px 0 6px; letter-spacing: -0.005em; }
h3 { font-size: 14px; margin: 0 0 6px; color: var(--quiet); font-weight: 600; }
.lead { font-size: 18px; line-height: 1.5; }
dl.facts { display: grid; grid-template-columns: repeat(auto-fit, minmax(250px, 1fr)); gap: 12px; margin: 26px 0 0; }
dl.facts div { background: var(--card); border-radius: 8px; padding: 12px 14px; }
dl.facts dt { font-size: 13px; color: var(--quiet); }
dl.facts dd { margin: 0; font-size: 19px; font-variant-numeric: tabular-nums; white-space: nowrap; }
dl.facts dd small { font-size: 12.5px; color: var(--quiet); display: block; white-space: normal; }
.figures { display: flex; flex-wrap: wrap; gap: 20px 24px; align-items: flex-start; }
figure { margin: 14px 0 0; max-width: 100%; }
figure img { display: block; max-width: 100%; height: auto; }
img.pixels { image-rendering: pixelated; }
figcaption { font-size: 14px; color: var(--quiet); margin-top: 6px; }
.narrow { max-width: 450px; }
.tables { display: grid; grid-template-columns: repeat(auto-fit, minmax(210px, 1fr)); gap: 22px; }
table { border-collapse: collapse; width: 100%; font-size: 14px; }
th, td { text-align: left; padding: 4px 10px 4px 0; border-bottom: 1px solid var(--line); vertical-align: top; }
th { font-weight: 400; color: var(--quiet); width: 1%; white-space: nowrap; }
td { font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
footer { margin-top: 52px; padding-top: 14px; border-top: 1px solid var(--line); font-size: 13px; color: var(--quiet); }
@media print {
  body { padding: 0; font-size: 12px; }
  h2 { break-after: avoid; }
  figure, dl.facts div { break-inside: avoid; }
}
"""


@dataclass(frozen=True)
class Figure:
    """A picture, what to call its file, and what to look at in it."""

    name: str
    picture: figures.Picture
    caption: str

    @cached_property
    def png(self) -> bytes:
        """The file. It is made once."""
        return figures.png(self.picture)


@dataclass(frozen=True)
class Section:
    """A title, paragraphs, and figures that stand side by side where they fit."""

    title: str
    text: tuple[str, ...]
    figures: tuple[Figure, ...] = ()


def html(
    *,
    kind: str,
    title: str,
    headline: Sequence[str],
    facts: Sequence[tuple[str, str, str]],
    sections: Sequence[Section],
    tables: Mapping[str, Mapping[str, Any]],
    notes: Sequence[str],
    made: str,
) -> str:
    """The page.

    Args:
        kind: What sort of page it is, above the title.
        title: Of the page.
        headline: Paragraphs at the top.
        facts: Name, value and unit of each number to show large.
        sections: In order.
        tables: Name -> key -> value.
        notes: A line each.
        made: The line at the bottom: with what, in how long.
    """
    lead = "\n".join(f'<p class="lead">{escape(text)}</p>' for text in headline)
    numbers = "\n".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)}<small>{escape(unit)}</small></dd></div>"
        for name, value, unit in facts
    )
    body = "\n".join(_section(section) for section in sections)
    settings = "\n".join(_table(name, table) for name, table in tables.items())
    remarks = "\n".join(f"<li>{escape(note)}</li>" for note in notes)
    remarks = f"<section>\n<h2>Notes</h2>\n<ul>\n{remarks}\n</ul>\n</section>\n" if notes else ""
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)} · lowerbound</title>
<style>{CSS}</style>
</head>
<body>
<header>
<h1><small>lowerbound {escape(kind)}</small>{escape(title)}</h1>
{lead}
<dl class="facts">
{numbers}
</dl>
</header>
{body}
{remarks}<section>
<h2>The run</h2>
<div class="tables">
{settings}
</div>
</section>
<footer>{escape(made)}</footer>
</body>
</html>
"""


def _section(section: Section) -> str:
    text = "\n".join(f"<p>{escape(paragraph)}</p>" for paragraph in section.text)
    shown = "\n".join(_figure(figure) for figure in section.figures)
    shown = f'<div class="figures">\n{shown}\n</div>' if shown else ""
    return f"<section>\n<h2>{escape(section.title)}</h2>\n{text}\n{shown}\n</section>"


def _figure(figure: Figure) -> str:
    data = base64.b64encode(figure.png).decode()
    width, height = figures.page_size(figure.picture)
    kind = "figure" if figures.is_chart(figure.picture) else "pixels"
    narrow = ' class="narrow"' if width <= 450 else ""
    return (
        f'<figure{narrow}><img class="{kind}" width="{width}" height="{height}" alt="{escape(figure.caption)}" '
        f'src="data:image/png;base64,{data}"><figcaption>{escape(figure.caption)}</figcaption></figure>'
    )


def _table(name: str, table: Mapping[str, Any]) -> str:
    rows = "\n".join(f"<tr><th>{escape(str(k))}</th><td>{escape(_value(v))}</td></tr>" for k, v in table.items())
    return f"<div>\n<h3>{escape(name)}</h3>\n<table>\n{rows}\n</table>\n</div>"


def _value(value: Any) -> str:
    match value:
        case None:
            return "none"
        case bool():
            return "yes" if value else "no"
        case list() | tuple():
            return ", ".join(_value(item) for item in value)
        case _:
            return str(value)
