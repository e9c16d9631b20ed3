"""Opens the store that a URL names; a further kind of store is added here, by its scheme."""

import contextlib
import stat
from collections.abc import Callable, Iterator

from vault.errors import ConfigError, RepositoryNotFoundError, StorageError
from vault.parameters import Parameters
from vault.storage.base import ObjectStore, Observed, is_on_server
from vault.storage.local import LocalStore
from vault.storage.urls import parse_local, parse_s3, scheme_of


def open_store(url: str, *, endpoint: str = "", create: bool = False) -> ObjectStore:
    """The store at ``url``: a path, ``file:///path`` or ``s3://bucket/prefix``.

    Args:
        url: Where the repository is.
        endpoint: Address of an S3 service other than AWS; only with an S3 URL.
        create: Make the directory if it is missing; buckets are never made.

    Raises:
        ConfigError: A URL that no store understands.
        RepositoryNotFoundError: Nothing is there, and ``create`` is false.
        StorageError: The store can't be reached or made.
    """
    opener = _OPENERS.get(scheme_of(url))
    if opener is None or not url:
        known = ", ".join(sorted(_OPENERS))
        raise ConfigError(
            "no store understands that repository URL",
            expected=f"a path or one of the schemes {known}",
            found=repr(url[:200]),
        )
    return opener(url, endpoint, create)


@contextlib.contextmanager
def new_store(url: str, *, endpoint: str = "") -> Iterator[ObjectStore]:
    """The store at ``url``, for a repository to be made in it; a missing directory is made.

    After an error the directory is gone again, if nothing was put into it.

    Raises:
        ConfigError: As `open_store`.
        StorageError: As `open_store`.
    """
    store = open_store(url, endpoint=endpoint, create=True)
    try:
        yield store
    except BaseException:
        if isinstance(store, LocalStore):
            store.discard_if_empty()
        raise


def observing(store: ObjectStore, parameters: Parameters) -> ObjectStore:
    """The same store, relying on what ``store check`` saw of it when the repository was made."""
    if not is_on_server(store):
        return store
    seen = Observed(
        orders_versions_by_commit=parameters.versions_ordered,
        refuses_wrong_checksums=parameters.checksums_refused,
    )
    return store.observing(seen)


def _open_local(url: str, endpoint: str, create: bool) -> ObjectStore:  # noqa: FBT001 - one shape for all openers
    if endpoint:
        raise ConfigError("a local repository has no endpoint", found=endpoint)
    path = parse_local(url)
    if create:
        return LocalStore.create(path)
    try:
        is_directory = stat.S_ISDIR(path.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise RepositoryNotFoundError(
            f"no repository at {path}", hint="is its file system mounted? else run vault init"
        ) from error
    except OSError as error:
        raise StorageError(
            f"can't look for a repository at {path}", found=error.strerror
        ) from error
    if not is_directory:
        raise ConfigError(f"{path} is not a directory")
    return LocalStore(path)


def _open_s3(url: str, endpoint: str, create: bool) -> ObjectStore:  # noqa: ARG001, FBT001 - as above
    from vault.storage import s3, s3_client  # noqa: PLC0415 - boto3 takes 0.3 s to import; only when used

    bucket, prefix = parse_s3(url)
    return s3.S3Store(s3_client.connect(endpoint), bucket, prefix)


_OPENERS: dict[str, Callable[[str, str, bool], ObjectStore]] = {
    "file": _open_local,
    "s3": _open_s3,
}
