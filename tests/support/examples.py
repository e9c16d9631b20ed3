"""How many examples Hypothesis makes: few in `make test`, more in a lane of .ci/run."""

from typing import Final

from hypothesis import settings

LONG: Final = "long"  # of --hypothesis-profile
_LONGER: Final = 20


def examples(few: int) -> int:
    """So many, or twenty times as many where a long run was asked for."""
    return few * _LONGER if settings.get_current_profile_name() == LONG else few
