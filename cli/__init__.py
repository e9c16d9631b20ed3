"""The command line: options, environment, prompts, output and exit codes.

What is decided about backups is decided in `vault`; here it is asked for and shown.
"""
