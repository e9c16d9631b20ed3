"""One module for each command of `vault`: its options, the call of the library, its result.

A command decides nothing that a web page or a scheduler would have to decide again: such rules
belong in the library. Code that several commands share is beside this folder; code that prints
is in `cli.output`.
"""
