"""The C library of this process, for the calls that Python does not make."""

import ctypes
from typing import Final

libc: Final = ctypes.CDLL(None, use_errno=True)
