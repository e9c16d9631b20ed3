"""Writes docs/policy.schema.json, which editors check policy files with.

``python -m docs.policy_schema docs`` writes it.
"""

import sys
from pathlib import Path

from vault.policy.schema import policy_schema_text

if __name__ == "__main__":
    target = Path(sys.argv[1]) / "policy.schema.json"
    target.write_text(policy_schema_text(), encoding="utf-8")
