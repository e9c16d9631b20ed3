"""Object stores: objects under names, in versions, under locks.

A store keeps bytes and says honestly what it keeps; it knows no keys, no statements and no
snapshots. `base` has the contract of all stores, each kind of store has modules of its own, and
`choose_store` opens the one that a URL names. Which objects must exist, and until when they must
be locked, is decided in `vault.custody` and `vault.retention`.
"""
