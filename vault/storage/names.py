"""The names of objects: every name that the vault writes is made, parsed and matched here.

The table is docs/format.md 1. A name says what an object is, and for most kinds the
digest of its bytes; that digest is checked where the object is read.
"""

import re
from typing import Final

from vault.errors import ConfigError
from vault.model import NAME_PATTERN, Digest, Id

LEDGER: Final = "ledger/"  # statements, one object each
PAGES: Final = "ledger-page/"  # a thousand statements each
EVIDENCE: Final = "evidence/"  # what statements cite
PACKS: Final = "packs/"
INDEX: Final = "index/"  # what packs of a domain hold
INVENTORY: Final = "inventory/"  # what a snapshot needs
DOMAINS: Final = "domains/"  # the sealed secrets of a domain
CHECKPOINTS: Final = "checkpoint/"  # what logs and witnesses signed of the ledger
SEEDS: Final = "seeds/"  # seeds of older sessions, sealed to a later recipient
PROBES: Final = "probe/"  # left by `store check`; ignored

MAX_OBJECT_NAME: Final = 512  # bytes

_HEX = "[0-9a-f]{64}"
_LABEL = NAME_PATTERN.pattern
_ALLOWED = re.compile(r"[a-z0-9][a-z0-9._-]*(?:/[a-z0-9][a-z0-9._-]*)*")
_STATEMENT = re.compile(rf"{LEDGER}([0-9]{{16}})")
_PAGE = re.compile(rf"{PAGES}([0-9]{{10}})")
_PACK = re.compile(rf"{PACKS}([0-9a-f]{{2}})/((?:\1)[0-9a-f]{{62}})")
_CHECKPOINT = re.compile(rf"{CHECKPOINTS}([0-9]{{16}})/({_HEX})")
_DRAWN = re.compile(rf"{PACKS}[0-9a-f]{{2}}/{_HEX}")
_DIGEST_NAMED = re.compile(
    rf"(?:{EVIDENCE}|{INVENTORY}|(?:{INDEX}|{DOMAINS}){_LABEL}/|{SEEDS}{_HEX}/)({_HEX})"
)


# --- making ---


def ledger_name(seq: int) -> str:
    """The object name of a statement."""
    return f"{LEDGER}{seq:016d}"


def page_name(number: int) -> str:
    """Where a page of the ledger is stored."""
    return f"{PAGES}{number:010d}"


def evidence_name(digest: Digest | str) -> str:
    """Where what a statement cites is stored; ``digest`` is that of its bytes."""
    return f"{EVIDENCE}{digest}"


def pack_name(pack_id: bytes) -> str:
    """Where a pack is stored."""
    return f"{PACKS}{pack_id.hex()[:2]}/{pack_id.hex()}"


def index_name(domain: str, digest: Digest) -> str:
    """Where an index object of a domain is stored."""
    return f"{INDEX}{domain}/{digest}"


def inventory_name(digest: Digest | str) -> str:
    """Where an inventory is stored; ``digest`` is that of its bytes."""
    return f"{INVENTORY}{digest}"


def domain_object_name(domain: str, digest: Digest | str) -> str:
    """Where a domain's sealed secrets are stored."""
    return f"{DOMAINS}{domain}/{digest}"


def checkpoint_prefix(size: int) -> str:
    """How the names of all checkpoints of that size begin; those of larger ones sort after it."""
    return f"{CHECKPOINTS}{size:016d}"


def checkpoint_name(size: int, digest: Digest | str) -> str:
    """Where a checkpoint is stored; ``digest`` is that of its bytes."""
    return f"{checkpoint_prefix(size)}/{digest}"


def seed_table_name(recipient: Id, digest: Digest) -> str:
    """Where seeds for a later recipient are stored."""
    return f"{SEEDS}{recipient}/{digest}"


def probe_prefix(token: str) -> str:
    """The prefix of all names of one run of `store check`; readers ignore them."""
    return f"{PROBES}{token}/"


def validate_name(name: str) -> str:
    """The name itself, if the vault may write an object under it.

    Raises:
        ConfigError: Not relative, lower case ASCII without empty, ``.`` or ``..`` parts.
    """
    if len(name) > MAX_OBJECT_NAME or not _ALLOWED.fullmatch(name):
        raise ConfigError("object name is not allowed", found=repr(name[:80]))
    return name


# --- parsing and matching ---


def parse_ledger_name(name: str) -> int | None:
    """The seq of a statement's object name, or None for any other name."""
    match = _STATEMENT.fullmatch(name)
    return int(match[1]) if match else None


def parse_page_name(name: str) -> int | None:
    """The number of a page's object name, or None for any other name."""
    match = _PAGE.fullmatch(name)
    return int(match[1]) if match else None


def parse_checkpoint_name(name: str) -> tuple[int, Digest] | None:
    """Size and digest of a checkpoint's object name, or None for any other name."""
    match = _CHECKPOINT.fullmatch(name)
    return (int(match[1]), Digest.parse(match[2])) if match else None


def is_pack(name: str) -> bool:
    """Whether a name begins as those of packs do, well formed or not."""
    return name.startswith(PACKS)


def is_drawn(name: str) -> bool:
    """Whether a verification may sample objects named so; it always reads all others.

    docs/format.md 2.4 does not compare the two digits before the slash with those after it.
    """
    return _DRAWN.fullmatch(name) is not None


def pack_digits(name: str) -> str:
    """The hex digits that end the name of a pack."""
    return name.rpartition("/")[2]


def claimed_digest(name: str) -> Digest | None:
    """The SHA-256 that an object has according to its name; None where the name has none."""
    if match := _DIGEST_NAMED.fullmatch(name):
        return Digest.parse(match[1])
    if match := _PACK.fullmatch(name):
        return Digest.parse(match[2])
    if match := _CHECKPOINT.fullmatch(name):
        return Digest.parse(match[2])
    return None


def is_written(name: str) -> bool:
    """Whether the vault writes objects of that name, other than probes."""
    patterns = (_STATEMENT, _PAGE, _PACK, _DIGEST_NAMED, _CHECKPOINT)
    return any(pattern.fullmatch(name) for pattern in patterns)
