"""Findings in text and in JSON."""

import dataclasses

from vault.model import Finding


def finding_text(finding: Finding) -> str:
    """One line."""
    parts = [f"{finding.subject}: {finding.problem}"]
    if finding.expected:
        parts.append(f"expected {finding.expected}")
    if finding.found:
        parts.append(f"found {finding.found}")
    return ", ".join(parts)


def finding_fields(finding: Finding) -> dict[str, str]:
    """For JSON."""
    return {key: str(value) for key, value in dataclasses.asdict(finding).items()}
