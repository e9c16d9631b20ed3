"""The programs that the vault is compared with: found, installed or built once into the cache.

Debian's packages are installed where that is permitted; Go and Rust programs are built at low
priority from their registries into ``CACHE/peers/NAME``. What can't be had has a reason.
"""

import dataclasses
import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from tests.bench import programs
from tests.bench.prepared import UnavailableError, run

BUILD = ("nice", "-n", "10")
BORG_LIBRARIES = (
    "libacl1-dev",
    "liblz4-dev",
    "libssl-dev",
    "libxxhash-dev",
    "libzstd-dev",
    "pkg-config",
)


@dataclasses.dataclass(frozen=True, slots=True)
class Peer:
    """One program: its class, and how it is had."""

    program: type[programs.Program]
    binary: str
    debian: tuple[str, ...] = ()  # packages: of the program itself, or what its build needs
    go: str = ""  # package@version; named, because a proxy's "latest" may be years old
    cargo: tuple[str, ...] = ()
    pip: str = ""


PEERS: Mapping[str, Peer] = {
    "restic": Peer(programs.Restic, "restic", debian=("restic",)),
    "restic-new": Peer(programs.Restic, "restic", go="github.com/restic/restic/cmd/restic@v0.19.1"),
    "borg": Peer(programs.Borg, "borg", debian=("borgbackup",)),
    "borg-new": Peer(programs.Borg, "borg", debian=BORG_LIBRARIES, pip="borgbackup==1.4.5"),
    "kopia": Peer(programs.Kopia, "kopia", go="github.com/kopia/kopia@latest"),
    "rustic": Peer(programs.Rustic, "rustic", cargo=("rustic-rs", "--no-default-features")),
    "bupstash": Peer(
        programs.Bupstash, "bupstash", debian=("libsodium-dev", "pkg-config"), cargo=("bupstash",)
    ),
    "tar+zstd": Peer(programs.TarZstd, "zstd", debian=("zstd",)),
    "cp": Peer(programs.Copy, "cp"),
}


def program_of(name: str) -> type[programs.Program]:
    """What is known about using it."""
    return programs.Vault if name == "vault" else PEERS[name].program


def obtain(name: str, cache: Path, *, build: bool) -> Path:
    """The program's file; without ``build`` only if it is there already.

    Raises: UnavailableError.
    """
    if name == "vault":
        return programs.vault_here()
    peer = PEERS[name]
    own = cache / "peers" / name
    if not (peer.go or peer.cargo or peer.pip):
        return _from_debian(peer, build=build)
    binary, failed = own / "bin" / peer.binary, own / "failed"
    if binary.exists():
        return binary
    if failed.exists():
        raise UnavailableError(failed.read_text())
    if not build:
        raise UnavailableError("not built yet")
    print(f"{name}: building into {own}", flush=True)
    own.mkdir(parents=True, exist_ok=True)
    try:
        return _build(peer, own)
    except UnavailableError as error:
        failed.write_text(str(error))
        raise


def _from_debian(peer: Peer, *, build: bool) -> Path:
    found = shutil.which(peer.binary)
    if found is None and build:
        install(peer.debian)
        found = shutil.which(peer.binary)
    if found is None:
        raise UnavailableError("not installed")
    return Path(found)


def install(packages: tuple[str, ...]) -> None:
    """Install Debian's packages.

    Raises: UnavailableError.
    """
    missing = [name for name in packages if not _is_installed(name)]
    if not missing:
        return
    if os.getuid() or shutil.which("apt-get") is None:
        raise UnavailableError(f"needs {', '.join(missing)}, which can't be installed here")
    command = ["apt-get", "install", "-qq", "--no-install-recommends", *missing]
    env = dict(os.environ, DEBIAN_FRONTEND="noninteractive")
    try:
        run(command, env=env)
    except UnavailableError:
        run(["apt-get", "update", "-qq"])  # the lists of a fresh machine are empty
        run(command, env=env)


def _is_installed(package: str) -> bool:
    try:
        return run(["dpkg-query", "-W", "-f", "${db:Status-Status}", package]) == "installed"
    except UnavailableError:
        return False


def _build(peer: Peer, own: Path) -> Path:
    install(peer.debian)
    scratch = own / "build"  # kept when a build is broken off: it goes on from there
    env = dict(os.environ, GOBIN=str(own / "bin"), CARGO_TARGET_DIR=str(scratch))
    if peer.go:
        commands = [["go", "install", peer.go]]
    elif peer.cargo:
        commands = [["cargo", "install", "--quiet", "--locked", "--root", str(own), *peer.cargo]]
    else:
        pip = [str(own / "bin" / "python"), "-m", "pip", "install", "--quiet", peer.pip]
        commands = [[sys.executable, "-m", "venv", str(own)], pip]
    for command in commands:
        if shutil.which(command[0]) is None:
            raise UnavailableError(f"no {command[0]}")
        run([*BUILD, *command], env=env)
    shutil.rmtree(scratch, ignore_errors=True)
    return own / "bin" / peer.binary
