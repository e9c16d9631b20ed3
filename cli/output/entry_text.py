"""One entry of a snapshot in text and in JSON: its type, mode, owner, times and path."""

import os
import stat
from datetime import UTC, datetime
from typing import Any, Final

from cli.output import render
from vault.format.entry import FILE_TYPES, Entry
from vault.format.tree import Flaws
from vault.model import EntryType

TYPE_NAMES: Final = {kind: kind.name.lower().replace("_", " ") for kind in EntryType}


def flaw_fields(flaws: Flaws) -> dict[str, Any]:
    """The entries that can't be given, for programs."""
    return {
        "stepped_over": [
            {
                **(render.path_fields(bad.path) if bad.path is not None else {"path": None}),
                "problem": bad.text,
                "replaced": bad.replaced,
            }
            for bad in flaws.named
        ],
        "stepped_over_count": flaws.count,
        "ends_after": render.path_fields(flaws.end.after) if flaws.end else None,
    }


def digest_fields(entry: Entry) -> dict[str, str | None]:
    """The digest of a file's content, of the kind that it has."""
    return {
        "sha256": entry.sha256.hex() if entry.sha256 else None,
        "tree_hash": entry.tree_hash.hex() if entry.tree_hash else None,
    }


def listed_path(entry: Entry) -> str:
    """The path for people: that of a directory ends in ``/``."""
    text = render.path_text(entry.path)
    return f"{text}/" if entry.type is EntryType.DIRECTORY else text


def mode_text(entry: Entry) -> str:
    """The mode as ``ls -l`` writes it; a hard link counts as a file."""
    return stat.filemode(FILE_TYPES[entry.type] | entry.mode)


def owner_text(entry: Entry) -> str:
    """User and group by name where they are known."""
    return f"{entry.user or entry.uid}:{entry.group or entry.gid}"


def local_time(nanoseconds: int) -> str:
    """The time to the minute, in the zone of this machine."""
    return render.moment(datetime.fromtimestamp(nanoseconds // 10**9, UTC))


def exact_time(nanoseconds: int) -> str:
    """The time as RFC 3339 in UTC with nine digits, as JSON numbers can't hold nanoseconds."""
    seconds, rest = divmod(nanoseconds, 10**9)
    whole = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{whole}.{rest:09}Z"


def entry_fields(entry: Entry) -> dict[str, Any]:
    """An entry for programs."""
    return {
        **render.path_fields(entry.path),
        "type": TYPE_NAMES[entry.type],
        "mode": f"{entry.mode:04o}",
        "uid": entry.uid,
        "gid": entry.gid,
        "user": entry.user,
        "group": entry.group,
        "mtime": exact_time(entry.mtime),
        "size": entry.size,
        **digest_fields(entry),
        "link": render.path_fields(entry.link) if entry.link is not None else None,
        "device": [os.major(entry.device), os.minor(entry.device)]
        if entry.device is not None
        else None,
        "xattrs": [render.path_text(name) for name, _ in entry.xattrs or ()],
    }
