"""Looking into snapshots without restoring them: trees, files, differences, a mount.

Everything here reads with the recovery key and writes to scratch files only. To write files to
their place is the work of `vault.restore`; to judge whether stored bytes are right is the work
of `vault.verify`.
"""

from vault.browse.files import MAX_CACHED, FileContent
from vault.browse.tree_index import TreeIndex, path_matcher, tree_path
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
