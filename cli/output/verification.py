"""Output of `verify`: a verdict that says what was read; damaged and whole snapshots and files."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from cli.output import render
from cli.output.findings import finding_fields
from cli.pack_sample import sample_text
from vault.ledger.chain import Ledger
from vault.ledger.records import Record
from vault.ledger.statements import Verdict
from vault.repository.repository import NO_SNAPSHOT_MENDS, snapshot_body
from vault.storage.names import DOMAINS
from vault.verify import Hit, SoFar, VerifyReport

NAMED_HITS = 20  # snapshots, files and findings that are listed one by one


def fields(report: VerifyReport, statement: Record | None) -> dict[str, object]:
    """For programs (docs/json.md)."""
    sample = report.sample
    return {
        "verdict": report.verdict,
        "snapshots": list(report.snapshots),
        "objects": report.objects,
        "bytes": report.bytes,
        "objects_read": report.objects_read,
        "bytes_read": report.bytes_read,
        "share": report.share,
        "slice": list(sample.slice) if sample.slice else None,
        "nonce": sample.nonce.hex(),
        "seed": sample.seed,
        "through": report.through,
        "opened": report.opened,
        "chunks": report.chunks,
        "entries": report.entries,
        "wrong": report.wrong,
        "bad_packs": list(report.bad),
        "cleared": list(report.cleared),
        "unread": [{"object": name, "problem": problem} for name, problem in report.unread],
        "unread_count": report.unread_count,
        "unopened": report.unopened,
        "hits": [_hit_fields(hit) for hit in report.hits],
        "hit_count": report.hit_count,
        "whole": list(report.whole),
        "findings": [finding_fields(finding) for finding in report.findings],
        "finding_count": report.finding_count,
        "statement": str(statement.head) if statement else None,
    }


def _hit_fields(hit: Hit) -> dict[str, Any]:
    return {
        "snapshot": hit.seq,
        "dataset": hit.dataset,
        "problem": hit.problem,
        "objects": list(hit.objects),
        "object_count": hit.object_count,
        "files": [render.path_fields(path) for path in hit.files],
        "file_count": hit.file_count,
        "mended": hit.is_mended,
        "loose": hit.loose,
        "after": render.path_fields(hit.after) if hit.after is not None else None,
    }


def text(report: VerifyReport, statement: Record | None) -> str:
    """For people."""
    opened = "no: without the recovery key"
    if report.with_key:
        opened = "no: nothing that the recovery key opens could be read"
    if report.opened:
        opened = f"{report.chunks:,} chunks, {report.entries:,} entries"
    return render.facts(
        {
            "verdict": verdict(report),
            "snapshots": last_numbers(report.snapshots),
            "read": f"{report.objects_read:,} of {render.plural(report.objects, 'object')},"
            f" {render.size(report.bytes_read)} of {render.size(report.bytes)}",
            "sample": sample_text(report.sample, is_recorded=report.opened) or "all of it",
            "opened": opened,
            "attested": str(statement.head) if statement else "no",
        }
    )


def verdict(report: VerifyReport) -> str:
    """The word, and what it is about."""
    return f"{report.verdict}{_about(report)}"


def _about(report: VerifyReport) -> str:
    of = render.plural(report.objects, "object")
    opened = "packs not opened"
    if report.opened:
        opened = "packs opened" if report.chunks else "trees opened, packs not read"
    match report.verdict:
        case "nothing":
            return " to verify: no snapshot is still to be kept"
        case Verdict.FAILED:
            wrong = f"{wrong_objects(report)}; " if report.wrong else ""
            return f": {wrong}{hit_snapshots(report)}"
        case "unfinished":
            return (
                f": the store did not give {render.plural(report.unread_count, 'object')};"
                f" nothing wrong in the {report.objects_read:,} that were read"
            )
        case Verdict.PARTIAL:
            return f": nothing wrong in {report.objects_read:,} of {of}, {opened}{_closed(report)}"
        case _:
            return f": every byte of {of} was read, {opened}"


def _closed(report: VerifyReport) -> str:
    if not report.unopened:
        return ""
    closed = render.plural(report.unopened, "snapshot")
    return f" but for {closed} that this recovery key need not open"


def wrong_objects(report: VerifyReport) -> str:
    """How many objects are wrong."""
    return f"{report.wrong:,} of {render.plural(report.objects, 'object')} wrong or missing"


def hit_snapshots(report: VerifyReport) -> str:
    """How many snapshots that concerns."""
    return f"{report.hit_count:,} of {render.plural(len(report.snapshots), 'snapshot')} hit"


def last_numbers(seqs: Sequence[int], limit: int = NAMED_HITS) -> str:
    """Ledger numbers; the newest of them, if there are many."""
    if not seqs:
        return "none"
    shown = ", ".join(map(str, seqs[-limit:]))
    more = len(seqs) - limit
    return f"{shown}, and {more:,} older" if more > 0 else shown


# --- when something is wrong ---


def complaints(report: VerifyReport, ledger: Ledger) -> Iterator[tuple[str, str]]:
    """Level and text of each line, in the order in which an operator needs them.

    What is wrong; which snapshots and files are hit; which are whole; what to do next.
    """
    wrong = f"{wrong_objects(report)}, " if report.wrong else ""
    yield "error", f"verification failed: {wrong}{hit_snapshots(report)}: {_first(report)}"
    newest = report.hits[-NAMED_HITS:]
    for hit in newest:
        yield "hit", _hit_text(hit)
    if report.hit_count > len(newest):
        yield "hit", f"and {render.plural(report.hit_count - len(newest), 'snapshot')} more"
    qualified = (
        "" if report.objects_read + report.wrong >= report.objects else (" (as far as was read)")
    )
    yield "whole", f"{last_numbers(report.whole)}{qualified}"
    for text_ in _advice(report, ledger):
        yield "hint", text_


def _first(report: VerifyReport) -> str:
    """One thing that is wrong, and how many more there are."""
    more = f"; and {report.wrong - 1:,} more" if report.wrong > 1 else ""
    return f"{report.first_wrong or (report.hits[0].problem if report.hits else '')}{more}"


def _hit_text(hit: Hit) -> str:
    return f"snapshot {hit.seq} of {hit.dataset}: {_files_text(hit)}"


def _files_text(hit: Hit) -> str:
    if hit.file_count is None:
        count = f"needs {render.plural(hit.object_count, 'wrong object')}: "
        return f"{count if hit.object_count else ''}{hit.problem}"
    named = ", ".join(map(render.path_text, hit.files))
    more = hit.file_count - len(hit.files)
    parts = []
    if hit.file_count:
        rest = f", and {more:,} more" if more > 0 else ""
        parts.append(f"{render.plural(hit.file_count, 'file')} can't be had: {named}{rest}")
    if hit.after is not None:
        parts.append(f"nothing that follows {render.path_text(hit.after) or '/'} can be read")
    if not parts:
        loose = f", {hit.loose:,} of which may go before it does" if hit.loose else ""
        parts.append(
            f"all of it can be restored all the same, from other packs{loose}: {hit.problem}"
        )
    return "; ".join(parts)


def _advice(report: VerifyReport, ledger: Ledger) -> Iterator[str]:
    """The commands to try, the one that loses least first."""
    hit_datasets = dict.fromkeys(hit.dataset for hit in reversed(report.hits))
    whole: dict[str, int] = {}
    for seq in report.whole:
        whole[snapshot_body(ledger.records[seq]).dataset] = seq
    names = list(hit_datasets)[:NAMED_HITS]
    for hit in report.hits:
        if hit.is_elsewhere:
            whole[hit.dataset] = max(hit.seq, whole.get(hit.dataset, 0))
    keyless = {hit.dataset for hit in report.hits if any(map(_is_domain, hit.objects))}
    mending = [name for name in names if name not in keyless]
    if keyless:
        yield NO_SNAPSHOT_MENDS
    if mending:
        yield (
            f"'vault snapshot' of {', '.join(mending)} stores again what is wrong,"
            " where the source still has it"
        )
    if any("missing" in finding.problem for finding in report.findings):
        yield "'vault heal' shows whether the store only hides what is missing"
    yield from _restorable(names, whole)
    if not report.with_key:
        yield "'vault verify' where recovery.key is names the files, and records what is wrong"


def _is_domain(name: str) -> bool:
    return name.startswith(DOMAINS)


def _restorable(names: Sequence[str], whole: Mapping[str, int]) -> Iterator[str]:
    for name in names[:3]:
        if name in whole:
            seq = whole[name]
            yield f"'vault restore {seq} TARGET' restores {name} as of the newest that can be had"


def so_far(state: SoFar) -> str:
    """The findings of a run that was stopped early, and what it leaves undone."""
    of = render.plural(state.objects + state.objects_left, "object")
    opened = ""
    if state.snapshots_left:
        opened = f", {render.plural(state.snapshots_left, 'snapshot')} left to open"
    wrong = "nothing wrong so far"
    if state.wrong:
        wrong = f"{state.wrong:,} wrong or missing so far: {state.first_wrong}"
    return f"{state.objects:,} of {of} read{opened}; {wrong}; nothing is attested"
