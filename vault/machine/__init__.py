"""This host: its processes and threads, files' attributes, private files, caches on disk.

Nothing here opens a store, a key or a snapshot: the chunk cache keeps ids and numbers and does
not ask what they mean. Code belongs here if a program that knows no backups could use it. Where
bytes are kept for good belongs in `vault.storage`; entries of a snapshot in `vault.format`.
"""
