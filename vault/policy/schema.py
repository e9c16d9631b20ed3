"""The JSON Schema of policy files, for editors and for other programs."""

import json
from typing import Any

import msgspec

from vault.policy.tables import PolicyTable


def policy_schema() -> dict[str, Any]:
    """The schema, draft 2020-12: the shape of a policy, without what holds between its keys."""
    made = msgspec.json.schema(PolicyTable)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "urn:vault:policy:v1",
        **made,
        "title": "A policy of vault",
    }


def policy_schema_text() -> str:
    """The same as a text that ends with a line end."""
    return json.dumps(policy_schema(), indent=1, ensure_ascii=False) + "\n"
