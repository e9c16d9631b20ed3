"""Results as a table: median and range, and what the vault takes of each peer's time."""

import json
import re
import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
_ADDRESS = re.compile(r"https?://\S+")  # of registries: of no use on another day
HEAD = (
    "| work | program | wall s (min to max) | CPU s | anon MB | stored MB | requests"
    " | vault ÷ it: wall | CPU |\n|---|---|---|---|---|---|---|---|---|"
)


def render(results: Path) -> str:
    """All results that lie there, one section for each data set and store."""
    return "\n".join(
        section(json.loads(path.read_text())) for path in sorted(results.glob("*.json"))
    )


def section(result: dict[str, Any]) -> str:
    """One run: what was measured on what, then the table."""
    about = result["about"]
    runs = max((sample["run"] + 1 for sample in result["samples"]), default=0)
    lines = [
        f"### {result['name']}, {result['store']}: {about['title']}\n",
        f"{about['files']:,} files, {about['bytes'] / 1e9:.2f} GB ({'; '.join(about['notes'])}).",
        f"{result['date']}; {result['machine']}; runs: {runs}.",
        "; ".join(f"{name}: {text}" for name, text in result["versions"].items()) + ".",
    ]
    if result["absent"]:
        absent = "; ".join(f"{name}: {why}" for name, why in result["absent"].items())
        lines.append(f"Not measured: {_ADDRESS.sub('(an address)', absent)}.")
    lines += ["", HEAD, *_rows(result["samples"]), ""]
    return "\n".join(lines)


def _rows(samples: Iterable[dict[str, Any]]) -> Iterable[str]:
    groups: dict[str, dict[str, list[dict[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    for sample in samples:
        groups[sample["work"]][sample["program"]].append(sample)
    for work, programs in groups.items():
        vault = programs.get("vault", [])
        for program, runs in programs.items():
            ratios = ["", ""]
            if program != "vault":
                ratios = [_ratio(vault, runs, "wall"), _ratio(vault, runs, "cpu")]
            wall = [run["wall"] for run in runs]
            yield (
                f"| {work} | {program} | {statistics.median(wall):.2f} ({min(wall):.2f} to"
                f" {max(wall):.2f}) | {_median(runs, 'cpu', 2)} | {_median(runs, 'memory', 0)}"
                f" | {_median(runs, 'stored', 1)} | {_median(runs, 'requests', 0)}"
                f" | {ratios[0]} | {ratios[1]} |"
            )


def _median(runs: Sequence[dict[str, Any]], what: str, digits: int) -> str:
    values = [run[what] for run in runs if run[what] is not None]
    return f"{statistics.median(values):.{digits}f}" if any(values) else ""


def _ratio(ours: Sequence[dict[str, Any]], theirs: Sequence[dict[str, Any]], what: str) -> str:
    if not ours:
        return ""
    peer = statistics.median(run[what] for run in theirs)
    return f"{statistics.median(run[what] for run in ours) / peer:.2f}" if peer else ""


def write_into(page: Path, text: str) -> None:
    """Put the tables between the page's two marks."""
    before, rest = page.read_text().split(BEGIN)
    _, after = rest.split(END)
    page.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}")
