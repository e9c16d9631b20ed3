"""An answer of a store that accuses somebody is asked for once more.

A bit flipped on the way, a 404 of a moment and a list that lags behind look like tampering.
Whatever is about to be called missing, wrong or rewritten, or to be signed as failed, was
therefore seen twice, by two requests. Damage that lasts is found all the same.
"""

import logging
from collections.abc import Callable
from typing import TypeVar

_log = logging.getLogger(__name__)

_T = TypeVar("_T")


def ask_twice(
    subject: str, ask: Callable[[], _T], is_right: Callable[[_T], bool], *, is_list: bool = False
) -> _T:
    """The first answer if it is right, else a second one, right or not.

    Args:
        subject: What is asked for; for the log.
        ask: Asks the store anew each time.
        is_right: Whether an answer accuses nobody.
        is_list: What is asked for changes while others write: a first answer that is
            older than the second is nothing to warn of.
    """
    answer = ask()
    if is_right(answer):
        return answer
    answer = ask()
    if is_right(answer):
        level = logging.INFO if is_list else logging.WARNING
        _log.log(level, "%s: the store's first answer was wrong, its second one is right", subject)
    return answer
