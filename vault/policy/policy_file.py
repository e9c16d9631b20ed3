"""Reading a policy file: capped, parsed, checked; all that is wrong with it is said at once."""

import dataclasses
import os
import re
import stat
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from vault.errors import ConfigError
from vault.policy.places import has_deep_key, line_of, places
from vault.policy.problems import PolicyFileError, PolicyProblem, errors_among
from vault.policy.rules import rule_problems
from vault.policy.shape import MISSING, policy_of, shape_problems
from vault.policy.tables import PolicyTable

MAX_POLICY_FILE: Final = 64 << 10  # bytes

_MOST_PARTS: Final = 16  # of a dotted key; a policy has 3
_SUFFIX: Final = ".toml"
_AT_LINE: Final = re.compile(r"(.*?) ?\(at line (\d+), column (\d+)\)", re.DOTALL)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class CheckedPolicy:
    """A policy file as far as it could be understood."""

    file: str
    policy: PolicyTable | None  # None: its shape is wrong
    problems: tuple[PolicyProblem, ...]  # by line

    @property
    def is_valid(self) -> bool:
        """Whether it can be used."""
        return not errors_among(self.problems)


def load_policy(path: Path) -> PolicyTable:
    """The policy in a file.

    Raises:
        PolicyFileError: It can't be used; with every reason.
        ConfigError: It can't be read.
    """
    checked = check_policy(path)
    errors = errors_among(checked.problems)
    if errors or checked.policy is None:
        raise PolicyFileError(checked.file, errors)
    return checked.policy


def check_policy(path: Path) -> CheckedPolicy:
    """What is in a policy file, and what is wrong with it.

    Raises:
        ConfigError: It can't be read, or is no plain file.
    """
    return check_policy_text(_read(path), str(path), stem=path.name.removesuffix(_SUFFIX))


def check_policy_text(data: bytes, file: str, *, stem: str) -> CheckedPolicy:
    """What the bytes of a policy file say, and what is wrong with them.

    Args:
        data: As read; at most one byte more than `MAX_POLICY_FILE`.
        file: Its name, for messages.
        stem: What the policy must be called.
    """
    values, problem = _parsed(data)
    if problem is not None:
        above = _above(data, problem.line)
        return CheckedPolicy(file=file, policy=None, problems=(*above, problem))
    problems = shape_problems(values)
    policy = None
    if not problems:
        policy = policy_of(values)
        problems = list(rule_problems(policy))
        if policy.name != stem:
            what = f"must be the file's name, {stem!r}"
            problems.append(PolicyProblem(key="name", what=what, fix="rename one of them"))
    return CheckedPolicy(file=file, policy=policy, problems=_placed(problems, data))


def _placed(problems: Iterable[PolicyProblem], data: bytes) -> tuple[PolicyProblem, ...]:
    """Problems with their lines, in the order of these; each once."""
    found = places(data.decode("utf-8"))
    placed = [dataclasses.replace(each, line=line_of(found, each.key)) for each in problems]
    return tuple(sorted(dict.fromkeys(placed), key=lambda each: each.line))


def _above(data: bytes, line: int) -> tuple[PolicyProblem, ...]:
    """What is wrong above the line from which on a file is no TOML; keys may be missing there."""
    head = b"\n".join(data[:MAX_POLICY_FILE].split(b"\n")[: line - 1])
    values, problem = _parsed(head)
    if problem is not None:
        return ()
    return _placed((each for each in shape_problems(values) if each.what != MISSING), head)


def _parsed(data: bytes) -> tuple[dict[str, Any], PolicyProblem | None]:
    if len(data) > MAX_POLICY_FILE:
        fix = f"at most {MAX_POLICY_FILE // 1024} KiB"
        return {}, PolicyProblem(key="", what="is too long for a policy", fix=fix)
    try:
        text = data.decode("utf-8")
        if has_deep_key(text, _MOST_PARTS):
            return {}, _too_deep()
        return tomllib.loads(text), None
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        return {}, PolicyProblem(key="", what="is not UTF-8", fix="save it as UTF-8", line=line)
    except RecursionError:
        return {}, _too_deep()
    except ValueError as error:  # TOMLDecodeError, and numbers of thousands of digits
        told = _AT_LINE.fullmatch(str(error))
        what, line = (told[1], int(told[2])) if told else (str(error)[:200], 1)
        fix = f"column {told[3]}" if told else ""
        return {}, PolicyProblem(key="", what=f"is not TOML: {what}", fix=fix, line=line)


def _too_deep() -> PolicyProblem:
    return PolicyProblem(key="", what="is nested too deeply", fix="no table needs that")


def _read(path: Path) -> bytes:
    """The bytes of a plain file, up to one more than allowed.

    Raises:
        ConfigError: It can't be read, or is a device, a pipe or a directory.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
        with open(descriptor, "rb") as file:  # noqa: PTH123 - of a descriptor
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise ConfigError(f"policy {path} is no plain file")
            return file.read(MAX_POLICY_FILE + 1)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(f"policy {path} can't be read", found=why) from error
