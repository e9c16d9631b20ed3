"""Records which snapshots restic and borg keep in ten worked examples, by running both for real.

``python -m tests.vectors.retention_of_peers FILE`` needs both programs and ten minutes. The answers
are kept in retention_of_peers.json, where a test and docs/retention.md have them from. All times
are UTC. borg counts --keep-within from now, restic from the newest snapshot before now: so the
runs of two examples end on the day of the recording.
"""

import datetime as dt
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

_DAY, _HOUR = timedelta(days=1), timedelta(hours=1)
_START = datetime(2026, 3, 2, tzinfo=UTC)  # a Monday
_RECORDED = datetime(2026, 11, 28, tzinfo=UTC)  # the day on which this was run last


def _every(start: datetime, count: int, step: timedelta = _DAY) -> list[datetime]:
    return [start + step * number for number in range(count)]


def examples() -> list[dict[str, Any]]:
    """Each with its runs in the order in which they were stored."""
    good = _every(_START, 5)
    recent = _every(_RECORDED - 8 * _DAY, 9)
    return [
        _example("4 runs a day for 10 days", {"daily": 7}, _every(_START, 40, 6 * _HOUR)),
        _example(
            "1 run a day for 100 days",
            {"daily": 7, "weekly": 4, "monthly": 3},
            _every(datetime(2026, 1, 1, 2, tzinfo=UTC), 100),
        ),
        _example(
            "10 daily runs, then 40 days off",
            {"daily": 7},
            _every(_START, 10),
            last=3,
            looked=_START + 50 * _DAY,
        ),
        _example(
            "9 daily runs, and one after the sixth with its clock 7 months ahead",
            {"within": "5d", "daily": 3},
            [*recent[:6], _RECORDED + 210 * _DAY, *recent[6:]],
            stored=[*recent[:6], recent[5] + _HOUR, *recent[6:]],
        ),
        _example(
            "5 good runs at 00 h, then a thief adds 5 that are dated back to 23 h of those days",
            {"daily": 5},
            [*good, *(each + 23 * _HOUR for each in good)],
            stored=[*good, *(good[-1] + 5 * _HOUR + n * dt.timedelta(minutes=1) for n in range(5))],
            looked=good[-1] + 23 * _HOUR + dt.timedelta(minutes=30),
        ),
        _example(
            "2 runs a day, the later one incomplete",
            {"daily": 7},
            _every(_START + 2 * _HOUR, 4, 12 * _HOUR),
            complete=[True, False, True, False],
        ),
        _example(
            "every 2 h over the start of summer time",
            {"daily": 2},
            _every(datetime(2026, 3, 28, 20, tzinfo=UTC), 16, 2 * _HOUR),
            zone="Europe/Berlin",
        ),
        _example(
            "daily over the turn of the year",
            {"weekly": 2},
            _every(datetime(2025, 12, 26, 3, tzinfo=UTC), 14),
        ),
        _example(
            "3 runs ever",
            {"yearly": 2},
            [datetime(2026, 5, 20, 2, tzinfo=UTC), datetime(2026, 5, 21, 2, tzinfo=UTC),
             datetime(2026, 6, 3, 2, tzinfo=UTC)],
        ),
        _example(
            "300 daily runs",
            {"within": "3d", "monthly": 6},
            _every(_RECORDED - 299 * _DAY, 300),
        ),
    ]  # fmt: skip


def _example(
    title: str,
    keep: dict[str, Any],
    times: Sequence[datetime],
    *,
    stored: Sequence[datetime] | None = None,
    complete: Sequence[bool] | None = None,
    zone: str = "UTC",
    last: int = 1,
    looked: datetime | None = None,
) -> dict[str, Any]:
    return {
        "title": title,
        "keep": keep,
        "times": [_text(each) for each in times],
        "stored": [_text(each) for each in stored or times],
        "complete": list(complete or [True] * len(times)),
        "zone": zone,
        "last": last,
        "looked": _text(looked or (stored or times)[-1] + _HOUR),
    }


def _text(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%S}"


# --- the programs ---


class _Peer:
    def __init__(self, place: Path) -> None:
        self.place = place
        (place / "source").mkdir()
        (place / "source/file").write_text("x")

    def call(self, *arguments: object, zone: str = "UTC") -> str:
        environment = {
            **os.environ,
            "TZ": zone,
            "RESTIC_PASSWORD": "x",
            "RESTIC_CACHE_DIR": str(self.place / "cache"),
            "BORG_BASE_DIR": str(self.place / "borg"),
            "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes",
        }
        command = [str(each) for each in arguments]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        return done.stdout + done.stderr


class _Restic(_Peer):
    def version(self) -> str:
        return self.call("restic", "version").strip()

    def kept(self, example: dict[str, Any]) -> list[str]:
        repo = self.place / "restic"
        self.call("restic", "-q", "init", "-r", repo, "--repository-version", "1")
        zone = example["zone"]  # it takes times of its own zone, and stores that with them
        for each in example["times"]:
            local = datetime.fromisoformat(each).replace(tzinfo=UTC).astimezone(ZoneInfo(zone))
            self.call(
                "restic",
                *("-q", "-r", repo, "backup", self.place / "source", "--no-cache", "--host", "h"),
                *("--time", f"{local:%Y-%m-%d %H:%M:%S}"),
                zone=zone,
            )
        out = self.call(
            "restic", "-q", "-r", repo, "forget", "--dry-run", "--no-cache", "--json",
            *_options(example), zone=example["zone"],
        )  # fmt: skip
        return sorted(
            _text(datetime.fromisoformat(_without_fraction(each["time"])).astimezone(UTC))
            for group in json.loads(out)
            for each in group["keep"] or []
        )


class _Borg(_Peer):
    def version(self) -> str:
        return self.call("borg", "--version").strip()

    def kept(self, example: dict[str, Any]) -> list[str]:
        repo = self.place / "repository"
        self.call("borg", "init", "-e", "none", repo)
        for number, each in enumerate(example["times"]):
            archive = f"{repo}::a{number:03}"
            self.call("borg", "create", "--timestamp", each, archive, self.place / "source")
        out = self.call(
            "borg", "prune", "--dry-run", "--list", *_options(example), repo, zone=example["zone"]
        )
        numbers = [
            int(re.search(r" a(\d{3}) ", line)[1])  # type: ignore[index]
            for line in out.splitlines()
            if line.startswith("Keeping")
        ]
        return sorted(example["times"][number] for number in numbers)


def _options(example: dict[str, Any]) -> list[str]:
    return [
        part for name, value in example["keep"].items() for part in (f"--keep-{name}", str(value))
    ]


def _without_fraction(text: str) -> str:
    return re.sub(r"\.\d+", "", text)


def main(file: Path) -> None:
    """Run all, and write the answers."""
    found: dict[str, Any] = {"recorded": f"{datetime.now(UTC):%Y-%m-%d}", "examples": examples()}
    for name, kind in (("restic", _Restic), ("borg", _Borg)):
        for number, example in enumerate(found["examples"], 1):
            with tempfile.TemporaryDirectory() as place:
                peer = kind(Path(place))
                found[name] = peer.version()
                example[name] = peer.kept(example)
                print(name, number, len(example[name]), "kept", flush=True)
    file.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
