"""The values of the global options, apart so that `vault --help` imports nothing heavy."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The options before the command, as given."""

    repo: str | None = None
    endpoint_url: str | None = None
    trust: tuple[str, ...] = ()  # SEQ:DIGEST each
    accept_head: str | None = None  # SEQ:DIGEST
    signer: tuple[str, ...] = ()  # ROLE=URI each
    witness_policy: str | None = None  # a file
    require_witnesses: bool = False
    json: bool = False
    quiet: bool = False
    verbose: bool = False
