"""The shape of a policy file: every key that is unknown, missing, or holds what it may not.

`msgspec` stops at the first error; here the same types are walked to the end. What passes is
converted by msgspec all the same, so that there is one judge of what a policy may hold.
"""

import difflib
import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import msgspec
from msgspec.inspect import (
    BoolType,
    Field,
    IntType,
    ListType,
    LiteralType,
    Metadata,
    StrType,
    StructType,
    Type,
    UnionType,
    type_info,
)

from vault.policy.problems import PolicyProblem, value_text
from vault.policy.tables import PolicyTable

MISSING = "is missing"

_INDEX = re.compile(r"\[\d+\]")
_MAX_SUGGESTED = 64  # characters of a key for which a better one is looked for

Tables: TypeAlias = Sequence[StructType]


def shape_problems(values: Mapping[str, Any]) -> list[PolicyProblem]:
    """All that is wrong with the shape of a parsed file; `line` is left to the caller."""
    found = list(_table(values, _top(), ""))
    if not found and (late := _late(values)) is not None:
        return [late]
    return found


def policy_of(values: Mapping[str, Any]) -> PolicyTable:
    """The policy of a file that has no problem of shape."""
    return msgspec.convert(values, PolicyTable, strict=True)


def _late(values: Mapping[str, Any]) -> PolicyProblem | None:
    try:
        policy_of(values)
    except msgspec.ValidationError as error:
        return PolicyProblem(key="", what=str(error))
    return None


@functools.cache
def _top() -> StructType:
    top = type_info(PolicyTable)
    assert isinstance(top, StructType)
    return top


@functools.cache
def _known_keys() -> Mapping[str, str]:
    """Every key of every table, and the header of the first table that has it."""
    known: dict[str, str] = {}

    def visit(tables: Tables, path: str, header: str) -> None:
        for field in [field for table in tables for field in table.fields]:
            known.setdefault(field.encode_name, header)
            below = f"{path}.{field.encode_name}" if path else field.encode_name
            is_array = isinstance(_bare(field.type), ListType)
            visit(_tables(field.type), below, f"[[{below}]]" if is_array else f"[{below}]")

    visit([_top()], "", "the top of the file")
    return known


def _bare(kind: Type) -> Type:
    return _bare(kind.type) if isinstance(kind, Metadata) else kind


def _tables(kind: Type) -> Tables:
    """The tables that a value of this type may be."""
    match kind:
        case Metadata(type=inner) | ListType(item_type=inner):
            return _tables(inner)
        case UnionType(types=kinds):
            return [table for each in kinds for table in _tables(each)]
        case StructType():
            return [kind]
        case _:
            return []


# --- tables ---


def _table(value: object, table: StructType, path: str) -> Iterator[PolicyProblem]:
    if not isinstance(value, dict):
        yield _wrong(path, value, f"write [{path}]")
        return
    fields = {field.encode_name: field for field in table.fields}
    known = [*fields, *filter(None, [table.tag_field])]
    for key in value:
        if key not in known:
            yield _unknown(key, known, path)
    for name, field in fields.items():
        at = f"{path}.{name}" if path else name
        if name in value:
            yield from _value(value[name], field.type, at)
        elif field.required:
            yield _missing(field, at)


def _unknown(key: str, known: Sequence[str], path: str) -> PolicyProblem:
    short = value_text(key)[1:-1]
    at = f"{path}.{short}" if path else short
    near = difflib.get_close_matches(key, known, 1) if len(key) <= _MAX_SUGGESTED else []
    if near:
        return PolicyProblem(key=at, what="there is no such key", fix=f"did you mean {near[0]}?")
    elsewhere = _known_keys()
    if key in elsewhere:
        place = elsewhere[key]
        is_here = place.strip("[]") == re.sub(_INDEX, "", path)
        fix = "that is for another kind" if is_here else f"it belongs to {place}"
        return PolicyProblem(key=at, what="there is no such key here", fix=fix)
    near = difflib.get_close_matches(key, elsewhere, 1) if len(key) <= _MAX_SUGGESTED else []
    fix = f"did you mean {near[0]}?" if near else f"keys here: {', '.join(sorted(known))}"
    return PolicyProblem(key=at, what="there is no such key", fix=fix)


def _missing(field: Field, path: str) -> PolicyProblem:
    if _tables(field.type):
        header = f"[[{path}]]" if isinstance(_bare(field.type), ListType) else f"[{path}]"
        return PolicyProblem(key=path, what=MISSING, fix=f"write {header}")
    return PolicyProblem(key=path, what=MISSING, fix=f"give {_allowed(field.type)}")


# --- values ---


def _value(value: object, kind: Type, path: str) -> Iterator[PolicyProblem]:
    match kind:
        case Metadata(type=ListType() as inner):
            yield from _list(value, inner, path, _allowed(kind))
        case ListType():
            yield from _list(value, kind, path, "")
        case StructType():
            yield from _table(value, kind, path)
        case UnionType() if _tables(kind):
            yield from _tagged(value, _tables(kind), path)
        case _:
            if not _fits(value, kind):
                yield _wrong(path, value, f"give {_allowed(kind) or _noun(kind)}")


def _list(value: object, kind: ListType, path: str, says: str) -> Iterator[PolicyProblem]:
    if not isinstance(value, list):
        listed = f"give a list: {says}" if says else "give a list"
        yield _wrong(path, value, f"write [[{path}]]" if _tables(kind.item_type) else listed)
        return
    least, most = kind.min_length or 0, kind.max_length
    if len(value) < least:
        yield PolicyProblem(key=path, what="is empty", fix=f"give at least {least}")
    if most is not None and len(value) > most:
        yield PolicyProblem(
            key=path, what=f"has {len(value):,} members", fix=f"at most {most:,} are allowed"
        )
        return
    for index, member in enumerate(value):
        yield from _value(member, kind.item_type, f"{path}[{index}]")


def _tagged(value: object, tables: Tables, path: str) -> Iterator[PolicyProblem]:
    """A table whose keys depend on its `kind`."""
    key = tables[0].tag_field
    assert key is not None
    by_tag = {table.tag: table for table in tables}
    if not isinstance(value, dict):
        yield _wrong(path, value, f"write [[{re.sub(_INDEX, '', path)}]]")
        return
    tag = value.get(key)
    kinds = ", ".join(str(each) for each in by_tag)
    if key not in value:
        yield PolicyProblem(key=f"{path}.{key}", what=MISSING, fix=f"give one of {kinds}")
    elif not isinstance(tag, str) or tag not in by_tag:
        yield _wrong(f"{path}.{key}", tag, f"give one of {kinds}")
    else:
        yield from _table(value, by_tag[tag], path)


def _fits(value: object, kind: Type) -> bool:
    match kind:
        case Metadata(type=inner):
            return _fits(value, inner)
        case UnionType(types=kinds):
            return any(_fits(value, each) for each in kinds)
        case LiteralType(values=values):
            return type(value) in {str, int} and value in values
        case BoolType():
            return isinstance(value, bool)
        case IntType(ge=least, le=most):
            return (
                type(value) is int
                and (least is None or value >= least)
                and (most is None or value <= most)
            )
        case StrType(pattern=pattern):
            return isinstance(value, str) and re.search(pattern or "", value) is not None
        case _:
            raise AssertionError(f"the file has no type {kind}")


def _allowed(kind: Type) -> str:
    """What a value may be, in the words of its type."""
    match kind:
        case Metadata(extra_json_schema=extra):
            said = (extra or {}).get("description", "")
            examples = (extra or {}).get("examples", [])
            example = f", for example {value_text(examples[0])}" if examples else ""
            return f"{said}{example}"
        case UnionType(types=kinds):
            return "; or ".join(filter(None, map(_allowed, kinds)))
        case LiteralType(values=values):
            return "one of " + ", ".join(map(str, values))
        case _:
            return ""


def _noun(kind: Type) -> str:
    match kind:
        case BoolType():
            return "true or false"
        case IntType():
            return "a whole number"
        case _:
            return "a text"


def _wrong(path: str, value: object, fix: str) -> PolicyProblem:
    match value:
        case dict():
            found = "a table"
        case list():
            found = "a list"
        case _:
            found = value_text(value)
    return PolicyProblem(key=path, what=f"can't be {found}", fix=fix)
