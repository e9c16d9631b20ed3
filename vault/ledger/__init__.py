"""Statements: how they are signed, chained, paged, remembered, and which heads are trusted.

`chain` is given envelopes and decides what links and what counts. Nothing here reads a store:
to read and append statements there is the work of `vault.repository`. The form of every other
object belongs in `vault.format`.
"""
