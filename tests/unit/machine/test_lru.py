"""What was used last is kept, while it fits."""

from vault.machine.lru import Recent


def test_the_oldest_goes_first_and_use_makes_young() -> None:
    """Asking whether something is kept is no use of it."""
    recent: Recent[str, int] = Recent(2)
    recent.put("a", 1)
    recent.put("b", 2)
    assert recent.get("a") == 1
    assert "b" in recent
    recent.put("c", 3)
    assert [key in recent for key in "abc"] == [True, False, True]
    assert recent.get("b") is None
    assert len(recent) == recent.weight == 2


def test_weights_are_added_up_and_taken_back() -> None:
    """Of a value that is replaced, too; what alone is too heavy is not kept."""
    recent: Recent[str, bytes] = Recent(10, weigh=len)
    recent.put("a", b"12345")
    recent.put("a", b"123456")
    recent.put("b", b"1234")
    assert recent.weight == 10
    recent.put("c", b"1")
    assert recent.weight == 5
    recent.put("d", b"x" * 11)
    assert (len(recent), recent.weight) == (0, 0)


def test_so_many_are_kept_however_heavy() -> None:
    """The one that came last is among them."""
    recent: Recent[str, bytes] = Recent(10, weigh=len, least=1)
    recent.put("a", b"1")
    recent.put("b", b"x" * 11)
    assert "b" in recent
    assert recent.weight == 11


def test_each_value_that_goes_is_released_once() -> None:
    """Pushed out, replaced, forgotten, or at the end."""
    gone: list[int] = []
    recent: Recent[str, int] = Recent(2, release=gone.append)
    for number, key in enumerate("abac"):
        recent.put(key, number)
    assert gone == [0, 1]
    recent.forget("c")
    recent.forget("c")
    recent.clear()
    assert gone == [0, 1, 3, 2]
    assert (len(recent), recent.weight) == (0, 0)
