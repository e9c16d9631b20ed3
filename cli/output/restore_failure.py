"""Lines for an operator whose restore failed or was stopped, in the order of their use.

They follow the error itself: the state of TARGET now, the damaged files, the snapshots that can
be restored instead, and the next step.
"""

from collections.abc import Iterator
from pathlib import Path

from cli.output import render
from vault.errors import IntegrityError, MissingObjectError
from vault.repository.repository import NO_SNAPSHOT_MENDS, snapshot_body
from vault.restore import Course, RestoreRequest
from vault.restore.attesting import ProofFailedError
from vault.storage.names import INVENTORY

_NAMED = 20  # snapshots, differences


def notes(error: BaseException, request: RestoreRequest, course: Course) -> Iterator[str]:
    """Lines that follow the error's own, each beginning with what it is about."""
    yield _target(request, course)
    if isinstance(error, ProofFailedError):
        for each in error.proof.mismatches[:_NAMED]:
            path = render.path_text(each.path)
            yield f"hit: {path}: {each.field}: expected {each.expected}, found {each.found}"
        more = error.proof.mismatch_count - len(error.proof.mismatches[:_NAMED])
        if more > 0:
            yield f"hit: and {render.plural(more, 'difference')} more"
    if course.objects or course.packs:
        yield f"hit: {_hit(course)}"
        yield f"whole: {_whole(course)}"
    if isinstance(error, IntegrityError):
        yield from _next(request, course, is_missing=isinstance(error, MissingObjectError))


def _target(request: RestoreRequest, course: Course) -> str:
    target = render.path_text(bytes(request.target.absolute()))
    if course.promoted:
        return (
            f"target: {target} is the new state; 'vault restore --finalize {target}' ends the"
            f" restore, 'vault restore --undo {target}' takes it back"
        )
    state = "is untouched" if _is_there(request.target) else "was not made"
    left = course.left
    if left is None:
        return f"target: {target} {state}; nothing was left beside it"
    return (
        f"target: {target} {state}; {render.path_text(bytes(left))} was left beside it,"
        f" 'vault restore --undo {target}' removes it"
    )


def _is_there(path: Path) -> bool:
    try:
        return path.exists() or path.is_symlink()
    except OSError:
        return True  # it can't be looked at, and nothing of it was changed


def _hit(course: Course) -> str:
    if course.objects:
        return f"every file: nothing can be read without {', '.join(course.objects)}"
    packs = f"{render.plural(len(course.packs), 'pack')} wrong or missing"
    if course.file_count is None or not course.file_count:
        return f"{packs}; which files that concerns can't be told before the tree is read"
    named = ", ".join(map(render.path_text, course.files))
    more = course.file_count - len(course.files)
    rest = f", and {more:,} more" if more > 0 else ""
    return f"{packs} so far; {render.plural(course.file_count, 'file')} can't be had: {named}{rest}"


def _whole(course: Course) -> str:
    if not course.others:
        return "no other snapshot of the dataset does without them"
    shown = ", ".join(map(str, course.others[:_NAMED]))
    more = len(course.others) - _NAMED
    rest = f", and {more:,} older" if more > 0 else ""
    return f"{shown}{rest}: they need none of what was found wrong (not read now)"


def _next(request: RestoreRequest, course: Course, *, is_missing: bool) -> Iterator[str]:
    seq = request.record.seq
    target = render.path_text(bytes(request.target.absolute()))
    dataset = snapshot_body(request.record).dataset
    if course.others:
        options = " --replace" if request.replace else ""
        command = f"vault restore {course.others[0]} {target}{options}"
        yield f"next: '{command}' restores the newest of them"
    if course.packs and course.file_count:
        yield (
            f"next: 'vault restore {seq} DIRECTORY --include PATTERN' gives the files that are"
            f" not hit; 'vault verify {seq}' names all that are"
        )
    elif course.packs:
        yield f"next: 'vault verify {seq}' names what is hit"
    if course.objects and is_missing:
        yield "next: 'vault heal' shows whether the store only hides what is missing"
    if course.packs or any(name.startswith(INVENTORY) for name in course.objects):
        yield (
            f"next: 'vault snapshot' of {dataset} stores again what is wrong, where the source"
            " still has it"
        )
    elif course.objects:
        yield f"next: {NO_SNAPSHOT_MENDS}"
