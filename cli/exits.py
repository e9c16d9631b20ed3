"""Exit codes of results; those of errors are in `cli.main` (design.md 7)."""

from typing import Final

EXIT_DEGRADED: Final = 3  # done, and something is not as it should be
EXIT_INTEGRITY: Final = 4  # findings
EXIT_RETENTION: Final = 5  # a lock is weaker than required, or a store can't keep one
EXIT_OBJECTIVE: Final = 6  # an objective is missed
