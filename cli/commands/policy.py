"""`vault policy`: policy files, what they ask for, and what is in force."""

from pathlib import Path

import click

from cli.commands.policy_change import apply, retire, withdraw
from cli.commands.policy_check import check_policies_kept
from cli.commands.policy_show import show_policies
from cli.commands.policy_simulate import simulate
from cli.exits import EXIT_USAGE
from cli.output import render
from cli.session import Invocation, pass_invocation
from vault.errors import ConfigError
from vault.policy.policy_file import CheckedPolicy, check_policy
from vault.policy.problems import PolicyProblem
from vault.policy.schema import policy_schema_text


@click.group()
def policy() -> None:
    """Check policy files: schedule, retention, objectives and recovery checks of datasets."""


for _command in (show_policies, check_policies_kept, apply, withdraw, retire, simulate):
    policy.add_command(_command)


@policy.command()
@click.argument("files", metavar="FILE...", nargs=-1, required=True)
@pass_invocation
def validate(invocation: Invocation, *, files: tuple[str, ...]) -> int:
    """Check policy files; needs no repository.

    All that is wrong is printed, a line each: FILE:LINE: key: what is wrong (what to do). Warnings
    say so; they leave the file valid. Exit 2: a file can't be used.
    """
    checked = [_checked(file) for file in files]
    lines: list[str] = []
    for each in checked:
        lines += [problem.text(each.file) for problem in each.problems]
        if each.is_valid:
            lines.append(f"{each.file}: valid")
    invocation.emit(
        "vault/policy-validate/v1",
        {"files": [_fields(each) for each in checked]},
        "\n".join(map(render.printable, lines)),
    )
    return 0 if all(each.is_valid for each in checked) else EXIT_USAGE


def _checked(file: str) -> CheckedPolicy:
    """One that can't be read is a problem of its own, and the others are checked all the same."""
    try:
        return check_policy(Path(file))
    except ConfigError as error:
        problem = PolicyProblem(key="", what=str(error))
        return CheckedPolicy(file=file, policy=None, problems=(problem,))


def _fields(checked: CheckedPolicy) -> dict[str, object]:
    return {
        "file": checked.file,
        "valid": checked.is_valid,
        "name": checked.policy.name if checked.policy else None,
        "problems": [
            {
                "severity": each.severity.value,
                "line": each.line,
                "key": each.key,
                "problem": each.what,
                "fix": each.fix,
            }
            for each in checked.problems
        ],
    }


@policy.command()
def schema() -> None:
    """Print the JSON Schema of policy files, which editors check them with while they are written.

    Write "#:schema FILE" in the first line of a policy, with the name of the schema's file.
    """
    render.emit(policy_schema_text().rstrip("\n"))
