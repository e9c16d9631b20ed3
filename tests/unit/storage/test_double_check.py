"""How often a store is asked, and which of its answers counts."""

import logging

import pytest

from vault.storage.double_check import ask_twice


@pytest.mark.parametrize(
    ("answers", "asked", "logged"),
    [
        (["right", "not asked for"], ["right"], []),
        (["wrong", "right"], ["wrong", "right"], [logging.WARNING]),
        (["wrong", "wrong too"], ["wrong", "wrong too"], []),
    ],
)
def test_only_an_answer_that_is_wrong_is_asked_for_again(
    caplog: pytest.LogCaptureFixture, answers: list[str], asked: list[str], logged: list[int]
) -> None:
    """A right one costs one request, as every object that is read is asked for here."""
    caplog.set_level(logging.INFO)
    left = iter(answers)
    given: list[str] = []

    def ask() -> str:
        given.append(next(left))
        return given[-1]

    assert ask_twice("packs/x", ask, lambda answer: answer == "right") == asked[-1]
    assert given == asked
    assert [entry.levelno for entry in caplog.records] == logged
