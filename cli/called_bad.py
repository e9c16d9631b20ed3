"""What `list`, `restore` and `status` say of packs that statements call bad."""

from typing import Any

from cli.output import render
from cli.session import Invocation
from vault.repository.concerned_snapshots import BadWord, Concerned
from vault.repository.hosts import ID_DIGITS

_SHOWN = 8  # statements that get a line each: a stolen key may say the same a thousand times


def warn_of_bad_words(invocation: Invocation, concerned: Concerned) -> None:
    """One line for each statement: whose word it is, and which snapshots it is about.

    Of very many the newest; those that concern snapshots come first.
    """
    words = sorted(concerned.words, key=lambda word: (not word.snapshots, -word.seq))
    for word in words[:_SHOWN]:
        packs = render.plural(word.packs, "pack")
        need = (
            f"snapshots {render.numbers(word.snapshots)} need"
            if len(word.snapshots) > 1
            else f"snapshot {word.snapshots[0]} needs"
            if word.snapshots
            else "no snapshot here needs"
        )
        them = "it" if word.packs == 1 else "some of them" if word.snapshots else "any of them"
        invocation.warn(
            f"{_said_by(word)} calls {packs} wrong, and {need} {them} (ledger {word.seq})"
        )
    if len(words) > _SHOWN:
        invocation.warn(f"and {len(words) - _SHOWN:,} more statements call packs wrong")
    if concerned.unlooked:
        older = render.plural(concerned.unlooked, "older snapshot")
        invocation.warn(f"which packs {older} may need of those was not looked at")


def warn_of_chosen(invocation: Invocation, concerned: Concerned) -> None:
    """The same of the one snapshot that is to be restored."""
    for word in [word for word in concerned.words if word.snapshots][-_SHOWN:]:
        invocation.warn(
            f"{_said_by(word)} calls packs wrong that snapshot {word.snapshots[0]} needs"
            f" (ledger {word.seq}): what is restored is proven, whatever was said"
        )


def bad_word_fields(word: BadWord) -> dict[str, Any]:
    """One statement that calls packs bad, for programs."""
    return {
        "statement": word.seq,
        "type": word.type,
        "key": word.key_id,
        "role": word.role.value,
        "packs": word.packs,
        "snapshots": list(word.snapshots),
    }


def _said_by(word: BadWord) -> str:
    return f"a {word.type} by {word.role} {word.key_id[:ID_DIGITS]}"
