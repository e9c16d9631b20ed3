"""Policies as code: the file, the terms it publishes, how long a snapshot is kept, what that costs.

Not here: the dates of locks (`vault.retention`), the reading of sources (`vault.snapshot`), the
deletion of what is no longer kept, and the start of hooks and commands: nothing here runs one.

A policy file is text that others may have written: it is capped, then parsed, then checked, and
all that is wrong with it is said at once.
"""
