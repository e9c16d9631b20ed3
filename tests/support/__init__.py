"""What tests share and is no fixture: tests import it, and it imports none of them.

Fixtures stand in the `conftest.py` of the folders that ask for them.
"""

import pkgutil

import pytest

# asserts in here are shown as those of tests are
pytest.register_assert_rewrite(
    *(f"{__name__}.{each.name}" for each in pkgutil.iter_modules(__path__))
)
