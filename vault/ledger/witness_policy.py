"""A reviewer's own word on which witnesses count: the file of ``--witness-policy``. Pure.

The form is that of C2SP tlog-policy, as far as a root can say the same: witnesses, one group of
them, its threshold. A root could drop its witnesses; who pins a policy sees that.
"""

import dataclasses
from collections.abc import Mapping
from typing import Final

from vault.crypto.keys import VerifyKey
from vault.errors import ConfigError, VaultError
from vault.ledger.checkpoints import Cosigner, WitnessPolicy, cosigner
from vault.ledger.notes import log_vkey_parts

MAX_POLICY: Final = 65_536  # bytes
_MAX_WITNESSES: Final = 64
_ARGUMENTS: Final = {"log": (1, 2), "witness": (2, 3), "group": (3, 99), "quorum": (1, 1)}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PinnedWitnesses:
    """Witnesses that count in place of the root's, and perhaps logs."""

    logs: Mapping[str, VerifyKey]  # by origin; none: those of the root
    witnesses: tuple[Cosigner, ...]
    quorum: int

    def over(self, logs: Mapping[str, VerifyKey]) -> WitnessPolicy:
        """As a policy, with the root's logs unless others were pinned."""
        return WitnessPolicy(logs=self.logs or logs, witnesses=self.witnesses, quorum=self.quorum)


def parse_witness_policy(text: str) -> PinnedWitnesses:
    """Read a policy.

    Raises:
        ConfigError: It is none, or says what can't be followed here.
    """
    reading = _Reading()
    for number, line in enumerate(text.splitlines(), 1):
        words = line.partition("#")[0].split()
        if words:
            try:
                reading.take(*words)
            except VaultError as error:
                raise ConfigError(f"witness policy, line {number}: {error}") from error
    return reading.result()


class _Reading:
    """What was read so far."""

    def __init__(self) -> None:
        self._logs: dict[str, VerifyKey] = {}
        self._witnesses: dict[str, Cosigner] = {}
        self._groups: dict[str, tuple[int, list[str]]] = {}
        self._quorum = ""

    def take(self, what: str, *words: str) -> None:
        least, most = _ARGUMENTS.get(what, (0, -1))
        if not least <= len(words) <= most:
            raise ConfigError(
                "no line of a policy", expected="log, witness, group or quorum", found=what[:40]
            )
        match what:
            case "log":
                origin, key = log_vkey_parts(words[0])
                self._logs[origin] = key
            case "witness":
                self._refuse_taken(words[0])
                self._witnesses[words[0]] = cosigner(words[0], words[1])
            case "group":
                self._refuse_taken(words[0])
                self._groups[words[0]] = _threshold(words[1], len(words) - 2), list(words[2:])
            case _:
                if self._quorum:
                    raise ConfigError("there are two quorums")
                self._quorum = words[0]

    def _refuse_taken(self, name: str) -> None:
        if name in self._witnesses or name in self._groups:
            raise ConfigError("the name is taken", found=name[:80])
        if len(self._witnesses) >= _MAX_WITNESSES:
            raise ConfigError("there are too many witnesses", expected=_MAX_WITNESSES)

    def result(self) -> PinnedWitnesses:
        count, names = self._groups.get(self._quorum, (1, [self._quorum]))
        unknown = [name for name in names if name not in self._witnesses]
        if unknown or len(set(names)) < len(names):
            raise ConfigError(
                "the quorum of a witness policy must be a witness or a group of witnesses",
                found=self._quorum[:80] or "no quorum",
            )
        chosen = tuple(self._witnesses[name] for name in names)
        if len({each.public_raw for each in chosen}) < len(chosen):
            raise ConfigError("a witness policy has one key under two names")
        return PinnedWitnesses(logs=self._logs, witnesses=chosen, quorum=count)


def _threshold(text: str, members: int) -> int:
    count = {"all": members, "any": 1}.get(text, int(text) if text.isdecimal() else 0)
    if not 1 <= count <= members:
        raise ConfigError("a group needs a threshold", expected=f"1 to {members}", found=text[:40])
    return count
