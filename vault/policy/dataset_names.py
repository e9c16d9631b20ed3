"""Names of datasets in a policy: plain, or with one {host} for the name in writer.key."""

import re
from typing import Final

HOST: Final = "{host}"
_LONGEST: Final = 63


def dataset_on(name: str, host: str) -> str:
    """The name of the dataset on a host."""
    return name.replace(HOST, host)


def governs(name: str, dataset: str) -> bool:
    """Whether a name of a policy stands for a dataset of a repository."""
    before, mark, after = name.partition(HOST)
    if not mark:
        return name == dataset
    pattern = rf"{re.escape(before)}[a-z][a-z0-9._-]*{re.escape(after)}"
    return re.fullmatch(pattern, dataset) is not None


def may_be_one(name: str, other: str) -> bool:
    """Whether two names of policies may stand for one dataset."""
    if HOST not in name:
        return governs(other, name)
    if HOST not in other:
        return governs(name, other)
    before, _, after = name.partition(HOST)
    before2, _, after2 = other.partition(HOST)
    begins = before.startswith(before2) or before2.startswith(before)
    ends = after.endswith(after2) or after2.endswith(after)
    shortest = max(len(before), len(before2)) + max(len(after), len(after2)) + 1
    return begins and ends and shortest <= _LONGEST
