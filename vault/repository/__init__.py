"""A ledger on a store: open it, append to it, read and write its objects, enrol its writers.

What every flow needs stands here: the reader of sealed objects, attestations, how each dataset
stands, packs that are known to be bad. One complete piece of work for a user (to take a
snapshot, to restore one, to look into one) is a flow and has a room of its own above.
"""
