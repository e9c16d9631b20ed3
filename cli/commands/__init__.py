"""One module for each command of `vault`: its options, the call of the library, its result.

A command decides nothing that a web page or a scheduler would have to decide again: such rules
belong in the library. What several commands share is beside this folder; how things are
printed is in `cli.output`.
"""
