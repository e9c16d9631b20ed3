"""The tables of a policy file as types: which keys there are, and what each may hold.

What holds between keys is in `rules`. The published JSON Schema is made of these types (`schema`).
"""

from typing import Annotated, Final, Literal, TypeAlias

import msgspec
from msgspec import UNSET, Meta, UnsetType

MAX_DATASETS: Final = 64

# Python's `$` also matches before a line end at the end, which other readers of the schema refuse.
_END = r"$(?!\n)"
_PLAIN = r"[^\x00-\x1f\x7f]"  # no control character
_LINES = r"[^\x00-\x08\x0b-\x1f\x7f]"  # none but tab and line feed


def _text(pattern: str, description: str, *examples: str) -> Meta:
    return Meta(pattern=pattern + _END, description=description, examples=list(examples) or None)


def _line(longest: int) -> Meta:
    return _text(f"^{_PLAIN}{{0,{longest}}}", f"one line of at most {longest:,} characters")


Label: TypeAlias = Annotated[
    str,
    _text(
        "^[a-z][a-z0-9._-]{0,62}",
        "at most 63 of a-z, 0-9, '.', '_', '-', the first a letter",
        "web",
    ),
]
DatasetName: TypeAlias = Annotated[
    str,
    _text(
        r"^(?=.{1,69}$)([a-z][a-z0-9._-]*(\{host\}[a-z0-9._-]*)?|\{host\}[a-z0-9._-]*)",
        "a label; {host}, at most once, stands for the name in writer.key",
        "www",
        "{host}-system",
    ),
]
DurationText: TypeAlias = Annotated[
    str,
    _text(
        "^[1-9][0-9]{0,8}[smhdwy]",
        "a number and one of s, m, h, d, w, y (of 365 days)",
        "30d",
    ),
]
Keep: TypeAlias = (
    Annotated[
        int,
        Meta(
            ge=0,
            le=100_000,
            description="a number of periods of 1 h, 1 d, 7 d, 31 d, 92 d or 366 d; 0: none",
        ),
    ]
    | DurationText
)
Cron: TypeAlias = Annotated[
    str,
    _text(
        f"^{_PLAIN}{{1,120}}",
        "minute hour day month weekday, or @hourly, @daily, @weekly, @monthly, @yearly",
        "17 2 * * *",
    ),
]
Absolute: TypeAlias = Annotated[str, _text(f"^/{_PLAIN}{{0,4000}}", "an absolute path", "/srv/www")]
Relative: TypeAlias = Annotated[
    str,
    _text(
        rf"^(?!/)(?!(.*/)?\.\.(/|$)){_PLAIN}{{1,4000}}",
        "a path below the restored tree, without '..'",
        "var/lib/app.db",
    ),
]
FileName: TypeAlias = Annotated[
    str, _text(r"^(?!\.{1,2}$)[^/\x00-\x1f\x7f]{1,200}", "a plain file name", "shop.dump")
]
Pattern: TypeAlias = Annotated[
    str, _text(f"^{_PLAIN}{{1,1000}}", "a pattern as in a .gitignore", "*.tmp")
]
Text: TypeAlias = Annotated[
    str,
    _text(
        f"^{_LINES}{{1,4096}}", "1 to 4,096 characters, no control characters but tab and line end"
    ),
]
Argv: TypeAlias = Annotated[
    list[Text],
    Meta(
        min_length=1,
        max_length=256,
        description="program and arguments, each a text of its own; no shell",
        examples=[["sh", "-c", "date"]],
    ),
]
Secret: TypeAlias = Annotated[
    str,
    _text(
        r"^(?=.{1,4000}$)(file:/[^\x00-\x1f\x7f]+|credential:[A-Za-z0-9._-]+|env:[A-Z][A-Z0-9_]*"
        r"|http://(127\.0\.0\.1|\[::1\]|localhost)(:[0-9]{1,5})?(/[^\x00-\x1f\x7f]*)?)",
        "where the address is kept: file:/PATH, credential:NAME or env:NAME;"
        " the address itself only if it is one of this machine",
        "file:/etc/vault/ping.url",
    ),
]
Expect: TypeAlias = Annotated[
    str,
    _text(
        f"^{_PLAIN}{{1,200}}",
        "an operator (== != < <= > >=) and a number or a quoted text, or ~ and a regular"
        " expression, or 'within N% of PREVIOUS'",
        ">= 1000",
        '== "ok"',
    ),
]
LockWanted: TypeAlias = Literal["governance", "compliance"]
Incomplete: TypeAlias = Literal["stand-in", "never"]


class Table(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """A table of the file; a key that it does not name is an error. UNSET: the file is silent."""


class ScheduleTable(Table, frozen=True, kw_only=True):
    """When `vault run` is to start."""

    cron: Cron
    jitter: DurationText = "10m"
    missed: Literal["run", "skip"] = "run"


class ObjectivesTable(Table, frozen=True, kw_only=True):
    """What is promised of a dataset: ages at most, and how long a restore may take."""

    rpo: DurationText | UnsetType = UNSET
    rto: DurationText | UnsetType = UNSET
    verify: DurationText | UnsetType = UNSET
    drill: DurationText | UnsetType = UNSET


class RetentionTable(Table, frozen=True, kw_only=True):
    """How long snapshots are kept (docs/retention.md)."""

    within: DurationText | UnsetType = UNSET
    hourly: Keep | UnsetType = UNSET
    daily: Keep | UnsetType = UNSET
    weekly: Keep | UnsetType = UNSET
    monthly: Keep | UnsetType = UNSET
    quarterly: Keep | UnsetType = UNSET
    yearly: Keep | UnsetType = UNSET
    last: (
        Annotated[
            int,
            Meta(ge=0, le=1000, description="0 to 1000 complete snapshots, kept however old"),
        ]
        | UnsetType
    ) = UNSET
    incomplete: Incomplete | UnsetType = UNSET
    lock: LockWanted | UnsetType = UNSET


# --- recovery checks ---


class CheckTable(Table, frozen=True, kw_only=True, tag_field="kind"):
    """What every kind of recovery check has."""

    name: Label
    required: bool = True
    timeout: DurationText = "60s"
    retries: Annotated[int, Meta(ge=0, le=100, description="0 to 100")] = 0
    interval: DurationText = "2s"
    path: Relative = "."
    user: Label | UnsetType = UNSET
    attest: Annotated[list[Literal["value", "expect"]], Meta(max_length=2)] = []


class FileCheck(CheckTable, frozen=True, kw_only=True, tag="file"):
    """What the restored tree must hold."""

    glob: Pattern
    exists: bool = True
    count: Expect | UnsetType = UNSET
    size: Expect | UnsetType = UNSET
    sha256: Annotated[str, _text("^[0-9a-f]{64}", "64 lower-case hex digits")] | UnsetType = UNSET
    newest: DurationText | UnsetType = UNSET


class CommandCheck(CheckTable, frozen=True, kw_only=True, tag="command"):
    """A command that must succeed."""

    run: Argv
    exit: Annotated[int, Meta(ge=0, le=255, description="0 to 255")] = 0
    stdout: Expect | UnsetType = UNSET
    stdin: Relative | UnsetType = UNSET


class SqliteCheck(CheckTable, frozen=True, kw_only=True, tag="sqlite"):
    """A SQLite database that must be sound."""

    sql: Text | UnsetType = UNSET
    expect: Expect | UnsetType = UNSET


class PostgresqlCheck(CheckTable, frozen=True, kw_only=True, tag="postgresql"):
    """A PostgreSQL database, as a data directory or a dump, that must start or load."""

    data: Relative | UnsetType = UNSET
    dump: Relative | UnsetType = UNSET
    database: Label | UnsetType = UNSET
    sql: Text | UnsetType = UNSET
    expect: Expect | UnsetType = UNSET
    amcheck: bool = True


class MariadbCheck(CheckTable, frozen=True, kw_only=True, tag="mariadb"):
    """A MariaDB database, as a data directory or a dump, that must start or load."""

    data: Relative | UnsetType = UNSET
    dump: Relative | UnsetType = UNSET
    database: Label | UnsetType = UNSET
    sql: Text | UnsetType = UNSET
    expect: Expect | UnsetType = UNSET


class RedisCheck(CheckTable, frozen=True, kw_only=True, tag="redis"):
    """A Redis database that must load."""

    rdb: Relative | UnsetType = UNSET
    aof: Relative | UnsetType = UNSET
    run: Annotated[list[Argv], Meta(max_length=16, description="commands of redis-cli")] = []
    expect: Expect | UnsetType = UNSET


AnyCheck: TypeAlias = (
    FileCheck | CommandCheck | SqliteCheck | PostgresqlCheck | MariadbCheck | RedisCheck
)


# --- sources, hooks, messages ---


class DatasetTable(Table, frozen=True, kw_only=True):
    """What is stored under one name, and by which rules."""

    name: DatasetName
    paths: Annotated[list[Absolute], Meta(max_length=1000)] = []
    command: Argv | UnsetType = UNSET
    file: FileName | UnsetType = UNSET
    timeout: DurationText | UnsetType = UNSET
    exclude: Annotated[list[Pattern], Meta(max_length=1000)] = []
    exclude_from: Annotated[list[Absolute], Meta(max_length=16)] = []
    exclude_caches: bool = False
    exclude_if_present: Annotated[list[FileName], Meta(max_length=16)] = []
    one_file_system: bool = False
    strict: bool = False
    allow_empty: bool = False
    level: Annotated[int, Meta(ge=1, le=19, description="1 to 19, of zstd")] = 3
    cron: Cron | UnsetType = UNSET
    retention: RetentionTable = RetentionTable()
    objectives: ObjectivesTable = ObjectivesTable()
    check: Annotated[list[AnyCheck], Meta(max_length=100)] = []


class BeforeTable(Table, frozen=True, kw_only=True):
    """A command before the snapshots of some datasets, and its undoing after them."""

    run: Argv
    undo: Argv | UnsetType = UNSET
    datasets: Annotated[list[DatasetName], Meta(max_length=MAX_DATASETS)] = []
    timeout: DurationText = "5m"
    failure: Literal["stop", "warn"] = "stop"


class AfterTable(Table, frozen=True, kw_only=True):
    """A command after the snapshots of some datasets; it can't fail a backup."""

    run: Argv
    when: Literal["done", "failed", "always"] = "done"
    datasets: Annotated[list[DatasetName], Meta(max_length=MAX_DATASETS)] = []
    timeout: DurationText = "5m"


class NotifyTable(Table, frozen=True, kw_only=True):
    """Where messages about runs go."""

    on: Annotated[
        list[Literal["start", "done", "warning", "failed", "missed", "recovered"]],
        Meta(min_length=1, max_length=6),
    ]
    style: Literal["healthchecks", "kuma", "ntfy", "webhook", "command"] = "webhook"
    url: Secret | UnsetType = UNSET
    run: Argv | UnsetType = UNSET
    timeout: DurationText = "10s"


class MetricsTable(Table, frozen=True, kw_only=True):
    """Where metrics go."""

    file: Absolute


class PolicyTable(Table, frozen=True, kw_only=True):
    """A whole policy file."""

    policy: Annotated[Literal[1], Meta(description="1, the format of this file")]
    name: Label
    description: Annotated[str, _line(200)] = ""
    owner: Annotated[str, _line(100)] = ""
    criticality: Literal["low", "normal", "high", "critical"] = "normal"
    runbook: Annotated[str, _line(500)] = ""
    timezone: Annotated[
        str,
        _text("^[A-Za-z][A-Za-z0-9_+/-]{0,63}", "the name of a time zone", "UTC", "Europe/Berlin"),
    ] = "UTC"
    keys: Absolute | UnsetType = UNSET
    schedule: ScheduleTable | UnsetType = UNSET
    objectives: ObjectivesTable = ObjectivesTable()
    retention: RetentionTable = RetentionTable()
    dataset: Annotated[list[DatasetTable], Meta(min_length=1, max_length=MAX_DATASETS)]
    before: Annotated[list[BeforeTable], Meta(max_length=64)] = []
    after: Annotated[list[AfterTable], Meta(max_length=64)] = []
    notify: Annotated[list[NotifyTable], Meta(max_length=16)] = []
    metrics: MetricsTable | UnsetType = UNSET
