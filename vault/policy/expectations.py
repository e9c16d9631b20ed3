"""What a recovery check expects of an answer: ``>= 1000``, ``== "ok"``, ``~ ^PostgreSQL``."""

import re
from typing import Final

from vault.errors import ConfigError

_COMPARED: Final = re.compile(r'(==|!=|<=|>=|<|>) ?(-?[0-9]{1,18}|"[^"]*")')
_MATCHED: Final = re.compile(r"~ ?(.+)")
_NEAR: Final = re.compile(r"within ([0-9]{1,3})% of PREVIOUS")


def check_expectation(text: str) -> None:
    """Refuse a text that expects nothing that could be judged.

    Raises:
        ConfigError: It has none of the three forms, or a malformed regular expression.
    """
    if compared := _COMPARED.fullmatch(text):
        if compared[2].startswith('"') and compared[1] not in {"==", "!="}:
            raise ConfigError(
                "texts are not ordered", hint=f"write == or !=, or a number after {compared[1]}"
            )
    elif matched := _MATCHED.fullmatch(text):
        _check_expression(matched[1])
    elif not _NEAR.fullmatch(text):
        raise ConfigError(
            "expects nothing that could be judged",
            hint='write for example ">= 1000", "== \\"ok\\"", "~ ^PostgreSQL"'
            ' or "within 5% of PREVIOUS"',
        )


def _check_expression(text: str) -> None:
    try:
        re.compile(text)
    except (re.error, OverflowError, RecursionError) as error:
        raise ConfigError(
            "the regular expression is malformed",
            found=str(error)[:100],
            hint="write it as Python's re takes it",
        ) from error
