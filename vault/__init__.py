"""An immutable backup vault: history that can't be rewritten, recoveries that are proven."""

__version__ = "0.1.0"
