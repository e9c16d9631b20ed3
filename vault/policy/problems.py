"""What is wrong with a policy file, one line each."""

import dataclasses
from collections.abc import Iterable, Sequence

from vault.errors import ConfigError
from vault.model import Severity


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PolicyProblem:
    """Something in a policy file that is wrong, or worth a second thought."""

    key: str  # its path: dataset[0].retention.daily; empty: the file itself
    what: str
    fix: str = ""
    line: int = 1
    severity: Severity = Severity.ERROR

    def text(self, file: str) -> str:
        """``FILE:LINE: key: what (fix)``."""
        key = f"{self.key}: " if self.key else ""
        fix = f" ({self.fix})" if self.fix else ""
        mark = "warning: " if self.severity is Severity.WARNING else ""
        return f"{file}:{self.line}: {mark}{key}{self.what}{fix}"


class PolicyFileError(ConfigError):
    """A policy file can't be used; `problems` are all reasons."""

    def __init__(self, file: str, problems: Sequence[PolicyProblem]) -> None:
        lines = [problem.text(file) for problem in problems]
        super().__init__(lines[0] if len(lines) == 1 else f"{file}: {len(lines)} errors")
        self.problems = tuple(problems)
        if len(lines) > 1:
            for line in lines:
                self.add_note(line)


def errors_among(problems: Iterable[PolicyProblem]) -> list[PolicyProblem]:
    """Those for which the file can't be used."""
    return [each for each in problems if each.severity is Severity.ERROR]


def value_text(value: object) -> str:
    """A value of the file for a message: quoted and short."""
    if isinstance(value, bool):
        return str(value).lower()
    try:
        text = repr(value)
    except ValueError:  # Python refuses to write out a number of thousands of digits
        return "a huge number"
    return text if len(text) <= 60 else text[:57] + "…" + text[-1]
