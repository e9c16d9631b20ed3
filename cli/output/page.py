"""Facts and tables as one HTML file that loads nothing and runs nothing.

All text in it may come from a store. It is made printable, as for a terminal, then
escaped; should that ever fail, the policy in the page's head still lets nothing run or load.
"""

import html
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from cli.output import render

_STYLE = """
body{font:15px/1.45 system-ui,sans-serif;margin:2rem auto;max-width:76rem;padding:0 1rem;
color:#1b1f24;background:#fff}
h1{font-size:1.5rem}h2{font-size:1.15rem;margin-top:2rem}
table{border-collapse:collapse;width:100%}
th,td{text-align:left;vertical-align:top;padding:.3rem .6rem;border-bottom:1px solid #d8dee4}
thead th{border-bottom:2px solid #8c959f}
td{overflow-wrap:anywhere}
.good{color:#116329}.bad,tr.error td:first-child{color:#a40e26;font-weight:600}
tr.warning td:first-child{color:#7d4e00;font-weight:600}
@media(prefers-color-scheme:dark){body{color:#e6edf3;background:#0d1117}
th,td{border-color:#30363d}.good{color:#56d364}
.bad,tr.error td:first-child{color:#ff7b72}tr.warning td:first-child{color:#e3b341}}
@media print{body{margin:0;max-width:none}}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """One table with its heading."""

    title: str
    headings: Sequence[str]
    rows: Iterable[Sequence[object]]
    empty: str = "none"  # said where there are no rows
    by_severity: bool = False  # the first column is a severity, and coloured


def page(
    title: str, verdict: str, facts: Mapping[str, str], sections: Iterable[Section], *, good: bool
) -> str:
    """The whole file.

    Args:
        title: Of the page.
        verdict: The result, in a line.
        facts: Names and values, at the top.
        sections: Tables below.
        good: Whether the verdict is a good one, which decides its colour.
    """
    head = (
        '<meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        '<meta http-equiv="Content-Security-Policy"'
        " content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        f"<title>{_text(title)}</title><style>{_STYLE}</style>"
    )
    tone = "good" if good else "bad"
    body = [f'<h1>{_text(title)}</h1><p class="{tone}">{_text(verdict)}</p>', _facts(facts)]
    body += map(_section, sections)
    return (
        f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>\n'
        + "\n".join(body)
        + "\n</body></html>\n"
    )


def _facts(facts: Mapping[str, str]) -> str:
    rows = "".join(
        f'<tr><th scope="row">{_text(name)}</th><td>{_text(value)}</td></tr>'
        for name, value in facts.items()
    )
    return f"<table><tbody>{rows}</tbody></table>"


def _section(section: Section) -> str:
    rows = [_row(row, by_severity=section.by_severity) for row in section.rows]
    title = f"<h2>{_text(section.title)}</h2>"
    if not rows:
        return f"{title}<p>{_text(section.empty)}</p>"
    headings = "".join(f'<th scope="col">{_text(each)}</th>' for each in section.headings)
    lines = "\n".join(rows)
    return f"{title}<table><thead><tr>{headings}</tr></thead><tbody>\n{lines}</tbody></table>"


def _row(cells: Sequence[object], *, by_severity: bool) -> str:
    tone = f' class="{_text(cells[0])}"' if by_severity else ""
    return f"<tr{tone}>" + "".join(f"<td>{_text(cell)}</td>" for cell in cells) + "</tr>"


def _text(text: object) -> str:
    return html.escape(render.printable(text))
