"""A store is asked again before an object is called missing or wrong.

A flipped bit on the way, a momentary 404 and a list that lags behind look like tampering. So an
object is called missing, wrong or rewritten, or a check is signed as failed, only after two
requests have shown it. Lasting damage is found all the same.
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
        is_right: Whether an answer shows nothing wrong.
        is_list: The answer is a list, which changes while others write: a first answer that
            is older than the second is logged without a warning.
    """
    answer = ask()
    if is_right(answer):
        return answer
    answer = ask()
    if is_right(answer):
        level = logging.INFO if is_list else logging.WARNING
        _log.log(level, "%s: the store's first answer was wrong, its second one is right", subject)
    return answer
