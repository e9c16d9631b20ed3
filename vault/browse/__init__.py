"""Looking into a snapshot without restoring it: its tree, its files (design.md 6, 7)."""

from vault.browse.content import MAX_CACHED, FileContent
from vault.browse.index import TreeIndex, path_matcher, tree_path
from vault.browse.view import OpenFile, View, open_reader

__all__ = [
    "MAX_CACHED",
    "FileContent",
    "OpenFile",
    "TreeIndex",
    "View",
    "open_reader",
    "path_matcher",
    "tree_path",
]
