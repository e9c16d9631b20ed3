"""Restore: stage beside the target, prove from disk, promote in one step (design.md 6)."""
