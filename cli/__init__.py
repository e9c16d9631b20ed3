"""The command line of the vault."""
