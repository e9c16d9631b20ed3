"""The bytes of stored objects other than statements: trees, packs, indexes, inventories, domains.

A module owns the encoder and the decoder of its format, as docs/format.md states it. Decoders
take nothing on trust. Nothing here reads a store or decides what is stored; that is done by
`vault.repository` and the flows above it. Signed statements belong in `vault.ledger`.
"""
