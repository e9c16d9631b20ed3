"""Patterns of a .gitignore: what they match, and whether they can match at all.

The only importer of pathspec. A pattern with a slash in front is anchored at PATH; one that
is a full path below PATH, as restic and borg take it, means the same place. A pattern that
can't match anything is refused: else the files it was meant to leave out would be stored silently.
"""

import os
import re
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from typing import NamedTuple, TypeAlias

from vault.errors import ConfigError

Matches: TypeAlias = Callable[[bytes, bool], bool]  # path in the tree, whether it is a directory

_MARK = "\ufeff"  # byte-order mark: some editors put it at the beginning of a file
_ESCAPED = re.compile(r"\\(.)")
_WILD = frozenset("*?[")


class Root(NamedTuple):
    """A PATH, and the ways in which a pattern may spell it."""

    full: str  # resolved
    given: str  # made absolute, links in it kept

    @classmethod
    def of(cls, full: bytes, given: bytes) -> "Root":
        """A PATH as it was resolved (``full``) and as it was given."""
        return cls(os.fsdecode(full), os.path.abspath(os.fsdecode(given)))  # noqa: PTH100 - keeps links

    @property
    def spellings(self) -> tuple[str, ...]:
        """Both spellings; one where they are equal."""
        return (self.full,) if self.full == self.given else (self.full, self.given)


def matcher(patterns: Sequence[str]) -> Matches:
    """A function that says whether gitignore patterns match a path in the tree.

    Raises:
        ConfigError: A pattern is malformed.
    """
    # 26 modules, a thirtieth of the time that a command takes to start; few runs leave anything out
    from pathspec import GitIgnoreSpec  # noqa: PLC0415
    from pathspec.patterns.gitignore import GitIgnorePatternError  # noqa: PLC0415

    try:
        spec = GitIgnoreSpec.from_lines(patterns)
    except (GitIgnorePatternError, ValueError) as error:
        raise ConfigError("exclude pattern is malformed", found=str(error)[:200]) from error

    def matches(path: bytes, is_directory: bool) -> bool:  # noqa: FBT001 - called for every file
        return bool(spec.match_file(os.fsdecode(path) + "/" * is_directory))

    return matches


def below(patterns: Sequence[str], roots: Sequence[Root]) -> list[list[str]]:
    """The patterns for each PATH, relative to it.

    Raises:
        ConfigError: A pattern can't match anything.
    """
    for_roots: list[list[str]] = [[] for _ in roots]
    for pattern in patterns:
        for collected, placed in zip(for_roots, _placed(pattern, roots), strict=True):
            collected.extend(placed)
    return for_roots


def _placed(pattern: str, roots: Sequence[Root]) -> Sequence[list[str]]:
    """The pattern as it applies to each PATH; empty where it is a full path below another one."""
    body = pattern.removeprefix("!")
    sign = pattern[: len(pattern) - len(body)]
    if body.startswith("#") or not body.strip():
        return [[pattern]] * len(roots)
    _refuse_impossible(pattern, body, roots)
    if not body.startswith("/"):
        return [[pattern]] * len(roots)
    rests = [_below_root(body, root) for root in roots]
    if any(rests):
        return [[sign + rest] if rest else [] for rest in rests]
    if not any(_has(root, body) for root in roots):
        _refuse_outside(pattern, body, roots)
    return [[pattern]] * len(roots)


def _refuse_impossible(pattern: str, body: str, roots: Sequence[Root]) -> None:
    """Refuse a pattern that no path can match, whatever the source holds."""
    if body.startswith(_MARK):
        raise _impossible(pattern, "it begins with a byte-order mark", "remove the mark")
    if "\0" in body:
        raise _impossible(pattern, "it holds a NUL", "is it a text file in UTF-16? save as UTF-8")
    parts = body.strip().removeprefix("/").removesuffix("/").split("/")
    if {"", ".", ".."} & set(parts):
        hint = "write the path below PATH without '.', '..' and doubled slashes"
        raise _impossible(pattern, "no name is empty, '.' or '..'", hint)
    if parts[0] == "~" and not any(_has(root, body) for root in roots):
        raise _impossible(pattern, "'~' is no file here", "write the full path")
    if len(parts) > 1 and not body.startswith("/"):
        _refuse_relative(pattern, parts, roots)


def _refuse_relative(pattern: str, parts: Sequence[str], roots: Sequence[Root]) -> None:
    """Refuse a pattern that starts at the working directory, as a relative PATH does."""
    here = os.path.join(os.getcwd(), *parts)  # noqa: PTH109, PTH118 - a pattern is no path yet
    rests = [(rest, root) for root in roots if (rest := _below_root(here, root))]
    if rests and not any(_has(root, "/" + parts[0]) for root in roots):
        rest, _ = rests[0]
        raise _impossible(pattern, "patterns start at PATH", f"write {rest!r}")


def _refuse_outside(pattern: str, body: str, roots: Sequence[Root]) -> None:
    """Refuse a pattern that was meant as a full path: to PATH itself, or to a place outside it."""
    parts = body.strip()[1:].removesuffix("/").split("/")
    if any(_is_above(parts, spelling) for root in roots for spelling in root.spellings):
        hint = "take it out of the list of PATHs, or the pattern out of the excludes"
        raise _impossible(pattern, "it leaves out PATH itself", hint)
    is_plain = not _WILD & set(parts[0])
    if len(parts) > 1 and is_plain and os.path.lexists("/" + _unescaped(parts[0])):
        raise _impossible(
            pattern,
            f"no PATH holds {parts[0]!r}, and as a full path it is in none of them",
            f"leave it out; without its first slash, {body[1:]!r}, it starts at PATH in any case",
        )


def _impossible(pattern: str, why: str, hint: str) -> ConfigError:
    return ConfigError(
        f"exclude pattern {pattern[:200]!r} can't match anything", found=why, hint=hint
    )


def _below_root(body: str, root: Root) -> str:
    """A full path below a PATH as a pattern that is anchored there; empty if it is not below it."""
    for spelling in root.spellings:
        if rest := _rest(body, spelling):
            return rest
    if _WILD & set(body):
        return ""
    above, _, name = body.strip().rstrip("/").rpartition("/")
    # a pattern may go through links that PATH does not
    resolved = os.path.realpath(_unescaped(above)).rstrip("/")
    return _rest(f"{resolved}/{name}" + "/" * body.endswith("/"), root.full)


def _rest(body: str, root: str) -> str:
    """The rest of a pattern below a directory, with its slash; empty if it is not below it."""
    names = [name for name in root.split("/") if name]
    parts = body[1:].split("/")
    for index, name in enumerate(names):
        if index and index < len(parts) and parts[index] == "**":
            return "/" + "/".join(parts[index:])
        if index >= len(parts) or not _is_name(parts[index], name, wild=index > 0):
            return ""
    rest = parts[len(names) :]
    return "/" + "/".join(rest) if any(rest) else ""


def _is_above(parts: Sequence[str], root: str) -> bool:
    """Whether a pattern names a PATH or a directory above it."""
    names = [name for name in root.split("/") if name]
    return len(parts) <= len(names) and all(
        _is_name(part, name, wild=index > 0)
        for index, (part, name) in enumerate(zip(parts, names, strict=False))
    )


def _is_name(part: str, name: str, *, wild: bool) -> bool:
    if name in {part, _unescaped(part)}:
        return True
    return wild and "\\" not in part and fnmatchcase(name, part)


def _has(root: Root, body: str) -> bool:
    """Whether a PATH holds the first name of an anchored pattern; True if it has wildcards."""
    first = _unescaped(body.removeprefix("/").split("/")[0])
    return bool(_WILD & set(first)) or os.path.lexists(os.path.join(root.full, first))  # noqa: PTH118


def _unescaped(text: str) -> str:
    return _ESCAPED.sub(r"\1", text)
