"""Secrets: keys, signatures, sealed bytes and the files in which keys are kept.

`keys` is the only module that calls the cryptographic library. `sealed` encrypts and opens
objects, `key_files` keeps keys on disk. What a signature is worth, and which key may sign what,
belongs in `vault.ledger`; the layout of what is sealed belongs in `vault.format`.
"""
