"""Printing: text, tables, JSON, HTML, progress. Untrusted text is escaped here.

Modules here turn results into text. They ask nothing, open nothing and know no command line:
what was typed is in `cli.options`, the run of one command in `cli.session`.
"""
