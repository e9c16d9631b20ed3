"""The command line: options, environment, prompts, output and exit codes.

`vault` makes all decisions about backups; the command line asks for input and shows results.
"""
