"""Writes docs/api.md from the public face of the library: `vault.__all__` and its docstrings.

``python -m docs.api docs`` writes it.
"""

import dataclasses
import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import vault

_HEAD = """# The library

Made by `make docs` from the docstrings of `vault`; a test compares the two, and another one runs
the example. Names that do not stand here may change between versions.
"""


def api() -> str:
    """The whole page."""
    parts = [_HEAD, _example(), "## Functions\n", *_members(functions=True)]
    return "\n".join([*parts, "## Classes\n", *_members(functions=False)])


def _example() -> str:
    """The docstring of the face, its example as code."""
    paragraphs = inspect.cleandoc(vault.__doc__ or "").split("\n\n")
    shown = (f"```pycon\n{each}\n```" if each.startswith(">>>") else each for each in paragraphs)
    return "\n\n".join(shown) + "\n"


def _members(*, functions: bool) -> Iterator[str]:
    for name in sorted(vault.__all__):
        member = getattr(vault, name)
        if not callable(member) or inspect.isroutine(member) is not functions:
            continue
        yield f"### {name}\n"
        yield f"In `{member.__module__}`.\n"
        yield f"```python\n{_signature(name, member)}\n```\n"
        yield f"```text\n{inspect.cleandoc(_docstring(member))}\n```\n"


def _docstring(member: Any) -> str:
    return member.__doc__ or ""


def _signature(name: str, member: Any) -> str:
    """One parameter a line, as its definition says."""
    if dataclasses.is_dataclass(member) and isinstance(member, type):
        fields = (_field(each) for each in dataclasses.fields(member))
        return "\n".join([f"{name}(", *fields, ")"])
    try:
        signature = inspect.signature(member)
    except ValueError:
        return f"{name}(…)"
    result = signature.return_annotation
    returns = "" if result is inspect.Signature.empty else f" -> {_type(result)}"
    lines: list[str] = []
    keyword_only = False
    for each in signature.parameters.values():
        if each.kind is each.KEYWORD_ONLY and not keyword_only:
            keyword_only = True
            lines.append("    *,")
        lines.append(f"    {_parameter(each)},")
    return "\n".join([f"{name}(", *lines, f"){returns}"]) if lines else f"{name}(){returns}"


def _field(field: dataclasses.Field[Any]) -> str:
    default = field.default
    has_default = default is not dataclasses.MISSING
    shown = f" = {_value(default)}" if has_default else ""
    if field.default_factory is not dataclasses.MISSING:
        shown = " = …"
    return f"    {field.name}: {_type(field.type)}{shown},"


def _parameter(parameter: inspect.Parameter) -> str:
    has_type = parameter.annotation is not inspect.Parameter.empty
    text = f"{parameter.name}: {_type(parameter.annotation)}" if has_type else parameter.name
    if parameter.default is inspect.Parameter.empty:
        return text
    return f"{text} = {_value(parameter.default)}"


def _value(value: Any) -> str:
    """A default: short, and the same in every run."""
    if value is None or isinstance(value, bool | int | str | bytes | tuple):
        return repr(value)
    return "…"


def _type(annotation: Any) -> str:
    """As it is written in the code: without the modules."""
    text = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
    return re.sub(r"\b(?:[a-z_]+\.)+(?=[A-Z])|\bbuiltins\.", "", text)


if __name__ == "__main__":
    (Path(sys.argv[1]) / "api.md").write_text(api(), encoding="utf-8")
