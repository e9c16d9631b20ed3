"""A policy file that is wrong says where, what, and what to do; it never ends in a traceback."""

import os
import tomllib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vault.errors import ConfigError
from vault.model import Severity
from vault.policy.policy_file import (
    MAX_POLICY_FILE,
    CheckedPolicy,
    check_policy,
    check_policy_text,
    load_policy,
)
from vault.policy.problems import PolicyFileError

GOOD = """\
policy = 1
name = "a"
timezone = "Europe/Berlin"

[schedule]
cron = "17 * * * *"

[objectives]
rpo = "2h"

[retention]
within = "30d"
monthly = 12

[[dataset]]
name = "www"
paths = ["/srv/www", "/etc"]
exclude = ["*.tmp"]

[[dataset.check]]
name = "counts"
kind = "sqlite"
sql = "select 1"
expect = ">= 1"

[[dataset]]
name = "db"
command = ["pg_dump"]
file = "db.dump"

[[before]]
datasets = ["www"]
run = ["true"]

[[notify]]
on = ["failed"]
url = "file:/etc/url"
"""


def checked(text: str | bytes) -> CheckedPolicy:
    """What is said of a policy of that text, in a file of the name that it asks for."""
    data = text.encode() if isinstance(text, str) else text
    return check_policy_text(data, "a.toml", stem="a")


def told(text: str | bytes) -> list[str]:
    """The same as lines."""
    return [each.text("a.toml") for each in checked(text).problems]


def test_a_good_file_has_no_problem() -> None:
    """The control of all that follows."""
    assert told(GOOD) == []
    assert checked(GOOD).is_valid


BROKEN = [  # a change of the good file, and what is said
    ("policy = 1\n", "", ":1: policy: is missing (give 1, the format of this file)"),
    ("policy = 1", "policy = 2", ":1: policy: can't be 2 (give 1, the format of this file)"),
    ("policy = 1", "policy = true", ":1: policy: can't be true (give 1, the format of this file"),
    ('name = "a"', 'name = "b"', ":2: name: must be the file's name, 'a' (rename one of them)"),
    ('name = "a"', 'name = "A b"', ":2: name: can't be 'A b' (give at most 63 of a-z, 0-9, '.',"),
    ('name = "a"', 'name = ["a"]', ":2: name: can't be a list (give at most 63 of a-z, 0-9, '.'"),
    ('name = "a"', "name = 2026-01-01", ":2: name: can't be datetime.date(2026, 1, 1) (give at "),
    ('"Europe/Berlin"', '"Berlin"', ":3: timezone: there is no time zone 'Berlin' (write it as "),
    ('"Europe/Berlin"', '"../../etc/passwd"', ":3: timezone: can't be '../../etc/passwd' (give "),
    ("[schedule]", "[schedul]", ":5: schedul: there is no such key (did you mean schedule?)"),
    ("[schedule]", "[[schedule]]", ":5: schedule: can't be a list (write [schedule])"),
    ('"17 * * * *"', '"17 * * *"', ":6: schedule.cron: not a cron line: expected 5 fields: minu"),
    ('"17 * * * *"', '"61 * * * *"', ":6: schedule.cron: not a cron line: found a wrong minute "),
    ('"17 * * * *"', '"* * * * * *"', ":6: schedule.cron: not a cron line: expected 5 fields: m"),
    ('"17 * * * *"', '"0 0 30 2 *"', ":6: schedule.cron: not a cron line: found a wrong day of "),
    ('"17 * * * *"', '"0 0 1 * 1"', ":6: schedule.cron: not a cron line: found a day of the mon"),
    ('"17 * * * *"', '"L * * * *"', ":6: schedule.cron: the minute is not a cron field: found '"),
    ('"17 * * * *"', '"@hour"', ":6: schedule.cron: not a cron line: expected 5 fields: minute,"),
    ('"17 * * * *"', '"30 2 * * *"', ":6: warning: schedule.cron: the clocks of Europe/Berlin s"),
    ('cron = "17', 'cronn = "17', ":6: schedule.cronn: there is no such key (did you mean cron?"),
    ('cron = "17', 'cronn = "17', ":5: schedule.cron: is missing (give minute hour day month we"),
    ('rpo = "2h"', 'rpo = "30m"', ":9: objectives.rpo: 30m can't be met by www: runs are up to "),
    ('rpo = "2h"', 'rpo = "2 h"', ":9: objectives.rpo: can't be '2 h' (give a number and one of"),
    ('rpo = "2h"', "rpo = 2", ":9: objectives.rpo: can't be 2 (give a number and one of s, m, h"),
    ('rpo = "2h"', 'rpo = "101y"', ":9: objectives.rpo: 101y is over a hundred years (no lock l"),
    ('within = "30d"', 'within = "0d"', ":12: retention.within: can't be '0d' (give a number an"),
    ('within = "30d"', 'within = "30d\\n"', ":12: retention.within: can't be '30d\\n' (give a n"),
    ('within = "30d"', 'within = "3d"', ":12: warning: retention.within: a host that is taken o"),
    ("monthly = 12", "monthly = -1", ":13: retention.monthly: can't be -1 (give a number of per"),
    ("monthly = 12", "monthly = 1.5", ":13: retention.monthly: can't be 1.5 (give a number of p"),
    ("monthly = 12", "monthly = 2000", ":13: retention.monthly: 2000 is over a hundred years (n"),
    ("monthly = 12", 'monthly = "1d"', ":13: warning: retention.monthly: keeps nothing: within "),
    ("monthly = 12", "monhtly = 12", ":13: retention.monhtly: there is no such key (did you mea"),
    ("monthly = 12", "last = 1001", ":13: retention.last: can't be 1001 (give 0 to 1000 complet"),
    ("monthly = 12", "mode = 1", ":13: retention.mode: there is no such key (keys here: daily, "),
    ("monthly = 12", "paths = []", ":13: retention.paths: there is no such key here (it belongs"),
    ('name = "www"', 'name = "latest"', ":16: dataset[0].name: no dataset may be called latest "),
    ('name = "www"', 'name = "2026"', ":16: dataset[0].name: can't be '2026' (give a label; {ho"),
    ('name = "www"', 'name = "db"', ":27: dataset[1].name: db is there already (name each datas"),
    ('name = "www"', 'name = "{host}b"', ":27: dataset[1].name: db and {host}b are one dataset "),
    ('"/etc"]', '"etc"]', ":17: dataset[0].paths[1]: can't be 'etc' (give an absolute path, for"),
    ('"/etc"]', '"/srv"]', ":17: dataset[0].paths: /srv/www lies in /srv (name each once)"),
    ('"/etc"]', '"/"]', ":17: dataset[0].paths: /srv/www lies in / (name each once)"),
    ('"/etc"]', '"/srv/www/"]', ":17: dataset[0].paths: /srv/www is there twice (name each once"),
    ('"/etc"]', '"/srv/../etc"]', ":17: dataset[0].paths: /srv/../etc has '.' or '..' in it (wr"),
    ('"/etc"]', '"/e\\u0000tc"]', ":17: dataset[0].paths[1]: can't be '/e\\x00tc' (give an abso"),
    ('paths = ["/srv/www", "/etc"]', 'paths = "/etc"', ":17: dataset[0].paths: can't be '/etc' "),
    ('paths = ["/srv/www", "/etc"]\n', "", ":15: dataset[0]: needs either paths or command (giv"),
    ('exclude = ["*.tmp"]', 'exclude = ["!"]', ":18: dataset[0].exclude: exclude pattern is mal"),
    ('exclude = ["*.tmp"]', 'timeout = "1h"', ":18: dataset[0].timeout: goes with command (take"),
    ('kind = "sqlite"', 'kind = "oracle"', ":22: dataset[0].check[0].kind: can't be 'oracle' (g"),
    ('kind = "sqlite"\n', "", ":20: dataset[0].check[0].kind: is missing (give one of file, com"),
    ('expect = ">= 1"', 'expect = "=> 1"', ":24: dataset[0].check[0].expect: expects nothing th"),
    ('expect = ">= 1"', 'expect = "~ ("', ":24: dataset[0].check[0].expect: the regular express"),
    ('expect = ">= 1"', "expect = '> \"a\"'", ":24: dataset[0].check[0].expect: texts are not o"),
    ('sql = "select 1"\n', "", ":23: dataset[0].check[0].expect: needs sql (add sql)"),
    ('sql = "select 1"', 'sql = "a"\nglob = "b"', ":24: dataset[0].check[0].glob: there is no s"),
    ('sql = "select 1"', 'sql = "a"\ntimeout = "2d"', ":24: dataset[0].check[0].timeout: is ove"),
    ('file = "db.dump"\n', "", ":28: dataset[1].command: needs file (name the file that it beco"),
    ('file = "db.dump"', 'file = "a/b"', ":29: dataset[1].file: can't be 'a/b' (give a plain fi"),
    ('file = "db.dump"', 'file = ".."', ":29: dataset[1].file: can't be '..' (give a plain file"),
    ('["pg_dump"]', "[]", ":28: dataset[1].command: is empty (give at least 1)"),
    ('["pg_dump"]', '"pg_dump"', ":28: dataset[1].command: can't be 'pg_dump' (give a list: pro"),
    ('datasets = ["www"]', 'datasets = ["wwww"]', ":32: before[0].datasets: there is no dataset"),
    ('run = ["true"]', 'run = ["a\\u001b"]', ":33: before[0].run[0]: can't be 'a\\x1b' (give 1 "),
    ('run = ["true"]', 'runs = ["true"]', ":33: before[0].runs: there is no such key (did you m"),
    ('on = ["failed"]', 'on = ["fails"]', ":36: notify[0].on[0]: can't be 'fails' (give one of "),
    ('"file:/etc/url"', '"https://x.org/k"', ":37: notify[0].url: can't be 'https://x.org/k' (g"),
    ('"file:/etc/url"', '"file:/u"\nrun = ["a"]', ":38: notify[0].run: goes with another style "),
    ('url = "file:/etc/url"', 'style = "command"', ":35: notify[0]: style command needs run (ad"),
    ('on = ["failed"]', 'on = ["failed"', ":37: is not TOML: Unclosed array (column 1)"),
    ("[schedule]", "[schedule", ":5: is not TOML: Expected ']' at the end of a table declaratio"),
    ("[schedule]", "[retention]", ":11: is not TOML: Cannot declare ('retention',) twice (colum"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "said"), BROKEN, ids=range(len(BROKEN)))
def test_what_is_wrong_is_said_with_its_line_and_what_to_do(old: str, new: str, said: str) -> None:
    """One change of the good file each."""
    assert old in GOOD
    lines = told(GOOD.replace(old, new, 1))
    assert [line for line in lines if said in line], lines
    assert all(line.startswith("a.toml:") and line.endswith(")") for line in lines)
    is_warning = all("warning: " in line for line in lines)
    assert checked(GOOD.replace(old, new, 1)).is_valid is is_warning


def test_all_that_is_wrong_is_said_at_once() -> None:
    """In the order of the lines; first all of the shape, then all that keys say together."""
    shape = GOOD.replace('"a"', "1").replace('"2h"', '"2"').replace('["true"]', '""')
    assert [line.split(":")[1] for line in told(shape)] == ["2", "9", "33"]
    text = GOOD.replace("17 *", "67 *").replace('"/etc"', '"/srv"').replace('["www"]', '["x"]')
    assert [line.split(":")[1] for line in told(text)] == ["6", "17", "32"]
    assert [each.severity for each in checked(text).problems] == [Severity.ERROR] * 3


def test_every_table_renamed_is_said_for_each() -> None:
    """A line for each header that there is no such table."""
    lines = told(GOOD.replace("\n[", "\n[nonsense_").replace("[nonsense_[", "[[nonsense_"))
    renamed = [line for line in lines if "nonsense_" in line]
    assert [line.split(":")[1] for line in renamed] == ["5", "8", "11", "15", "31", "35"]
    assert "did you mean retention?" in renamed[2]


def test_what_is_wrong_above_a_broken_line_is_said_too() -> None:
    """As far as the file can be read; what is missing may stand below."""
    lines = told(GOOD.replace("\n[", "\n[nonsense_"))
    assert [line.split(":")[1] for line in lines] == ["5", "8", "11", "15"]
    assert "did you mean schedule?" in lines[0]
    assert "is not TOML" in lines[3]
    assert told(GOOD.replace('name = "a"', 'name = "a')) == [
        "a.toml:2: is not TOML: Illegal character '\\n' (column 10)"
    ]


HOSTILE = [
    b"",
    b"\0",
    b"\xff\xfe" + GOOD.encode("utf-16-le"),
    b"\xef\xbb\xbf" + GOOD.encode(),
    b"a = " + b"[" * 30_000 + b"]" * 30_000,
    b".".join([b"a"] * 20_000) + b" = 1",
    b"[" + b".".join([b"a"] * 20_000) + b"]",
    b"a = {" * 1000,
    b"policy = " + b"9" * 60_000,
    b"policy = 0x" + b"f" * 60_000,
    b"policy = 1e" + b"9" * 60_000,
    b"policy = inf",
    b"policy = nan",
    b"policy = 1\nname = '''" + b"a" * 60_000 + b"'''",
    b"policy = 1\ndataset = [" + b"{}," * 20_000 + b"]",
    b"policy = 1\ndataset = [" + b"[]," * 20_000 + b"]",
    b"policy = 1\n" + b"[[dataset]]\n" * 5_000,
    b"\n".join(b"k%d = 1" % n for n in range(7_000)),
    b"x" * (MAX_POLICY_FILE + 1),
    b'policy = 1\r\nname = "a"\r\n\x1b[2J = 1',
    b'"\\u001b[2J" = 1',
    b'"' + b"k" * 60_000 + b'" = 1',
    b'"__class__" = 1\npolicy = 1979-05-27T07:32:00Z',
    b'a = """' + b'"" ' * 20_000 + b'"""',
    b'a = """' + b'\\"""' * 15_000,
    b"a = '''" + b"'' " * 20_000 + b"'''",
]  # fmt: skip


@pytest.mark.parametrize("data", HOSTILE, ids=range(len(HOSTILE)))
def test_a_hostile_file_is_refused(data: bytes) -> None:
    """With an error that has a line, in memory that its length bounds."""
    result = checked(data)
    assert not result.is_valid
    assert len(result.problems) <= 7_010
    assert all(each.line >= 1 and len(each.text("a")) < 1200 for each in result.problems)


def test_a_file_that_is_too_long_is_refused_unread() -> None:
    """Though all that makes it long is a comment; one byte less is taken."""
    room = MAX_POLICY_FILE - len(GOOD)
    assert told(GOOD + "#" * room) == []
    assert told(GOOD + "#" * (room + 1)) == ["a.toml:1: is too long for a policy (at most 64 KiB)"]


@settings(max_examples=100, deadline=None)
@given(data=st.binary(max_size=300) | st.text(max_size=300).map(lambda t: t.encode("utf-8")))
def test_arbitrary_bytes_are_judged_without_an_exception(data: bytes) -> None:
    """They are no policy."""
    assert not checked(data).is_valid


@settings(max_examples=200, deadline=None)
@given(
    at=st.integers(0, len(GOOD)),
    removed=st.integers(0, 12),
    put=st.text(st.characters(codec="utf-8"), max_size=4)
    | st.sampled_from(list("[]{}\"'=\n#.,\\")),
)
def test_a_cut_or_splice_anywhere_is_judged_without_an_exception(
    at: int, removed: int, put: str
) -> None:
    """Valid or not; what is not has a place in the file."""
    text = GOOD[:at] + put + GOOD[at + removed :]
    result = checked(text)
    assert result.is_valid or result.problems
    assert all(1 <= each.line <= text.count("\n") + 1 for each in result.problems)
    if result.is_valid:
        tomllib.loads(text)


def test_a_policy_is_read_only_from_a_plain_file(tmp_path: Path) -> None:
    """A pipe is not waited for, a device not read to its end."""
    os.mkfifo(tmp_path / "pipe.toml")
    for path in (tmp_path / "pipe.toml", tmp_path, Path("/dev/zero"), tmp_path / "none.toml"):
        with pytest.raises(ConfigError, match=r"is no plain file|can't be read"):
            check_policy(path)
    with pytest.raises(ConfigError, match="can't be read"):
        check_policy(Path("a\0b"))


def test_a_policy_that_is_loaded_has_no_error(tmp_path: Path) -> None:
    """Else the exception has every reason."""
    path = tmp_path / "a.toml"
    path.write_text(GOOD)
    assert load_policy(path).dataset[1].file == "db.dump"
    path.write_text(GOOD.replace('"2h"', "2").replace('"a"', "3"))
    with pytest.raises(PolicyFileError, match="2 errors") as caught:
        load_policy(path)
    assert [each.key for each in caught.value.problems] == ["name", "objectives.rpo"]
    assert len(caught.value.__notes__) == 2
