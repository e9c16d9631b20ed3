"""Names of datasets with {host} in them."""

from itertools import product

import pytest

from vault.policy.dataset_names import dataset_on, governs, may_be_one

HOSTS = ["a", "b", "ab", "aa", "a-b", "b.a", "a-a-a"]
NAMES = ["a", "ab", "a-b", "{host}", "{host}-b", "{host}-a", "a-{host}", "a{host}", "a-{host}-b"]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_governs_what_it_is_on_some_host(name: str) -> None:
    """Compared with the names on some hosts."""
    for dataset in {dataset_on(other, host) for other, host in product(NAMES, HOSTS)}:
        on_some = any(dataset_on(name, host) == dataset for host in HOSTS)
        assert governs(name, dataset) or not on_some
    assert not governs(name, "other-c") or name == "{host}"
    assert not governs(name, "")


def test_names_overlap_if_a_dataset_could_be_of_both() -> None:
    """Compared with the names on some hosts."""
    for name, other in product(NAMES, NAMES):
        both = {dataset_on(name, h) for h in HOSTS} & {dataset_on(other, h) for h in HOSTS}
        if both:
            assert may_be_one(name, other)
        assert may_be_one(name, other) == may_be_one(other, name)
    assert not may_be_one("{host}-a", "{host}-b")
    assert not may_be_one("a-{host}", "b-{host}")
    assert not may_be_one("a", "b")
    assert not may_be_one("{host}", "1")
