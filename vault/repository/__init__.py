"""A ledger on a store: open it, append to it, read and write its objects, enrol its writers.

Everything that several flows need is here too: the reader of sealed objects, attestations, the
state of each dataset, packs that are known to be bad. A flow is one complete piece of work for a
user (take a snapshot, restore one, look into one) and has a room of its own above.
"""
