"""The programs under test: what each is told for the same work, and nothing more than that.

All encrypt, all compress at zstd's default level, all use as many threads as they choose.
An operation that a program does not have is ``None``.
"""

import dataclasses
import itertools
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from tests.bench.measure import Command, CommandError
from tests.bench.stores import Store

ASIDE_FILES = (2_000, 200_000)
ASIDE_DIRECTORIES = 100_000
PASSWORD = "correct horse battery staple"


@dataclasses.dataclass(frozen=True, slots=True)
class Source:
    """What is backed up: a tree, or the one file in it as a stream."""

    tree: Path
    stream: Path | None = None


def _holds_thousands(tree: Path) -> bool:
    """Of files; but not so many that there is no room for another tree like it."""
    count = sum(len(names) for _, _, names in itertools.islice(os.walk(tree), ASIDE_DIRECTORIES))
    return ASIDE_FILES[0] < count < ASIDE_FILES[1]


class Program:
    """One program, with a repository of its own in ``place`` or in a bucket."""

    s3 = False  # it can use a bucket

    def __init__(self, name: str, binary: Path, place: Path, source: Source, store: Store) -> None:
        self.name = name
        self.binary = str(binary)
        self.place = place
        self.repo = place / "repo"
        self.target = place / "target"
        self.out = self.target / "out"
        self.source = source
        self.store = store
        self.bucket = store.bucket()
        self.taken = 0
        self.env = dict(os.environ) | self.environment()

    def environment(self) -> dict[str, str]:
        """What it is told by variables."""
        return {}

    def initial(self) -> list[list[str]]:
        """Commands that make an empty repository."""
        return []

    def prepare(self) -> None:
        """An empty repository, and nothing left of an earlier one."""
        shutil.rmtree(self.place, ignore_errors=True)
        self.place.mkdir(parents=True)
        self.taken = 0
        for arguments in self.initial():
            self.call(*arguments)

    def empty_target(self) -> None:
        """Nothing is left of an earlier restore.

        Thousands of files are only put aside: for minutes after a removal ext4 passes over the
        inodes that it freed, one by one, and whoever makes files next would pay for that.
        """
        if self.target.exists() and _holds_thousands(self.target):
            self.target.rename(self.place.with_name(f"aside-{time.monotonic_ns()}"))
        shutil.rmtree(self.target, ignore_errors=True)
        if self.place.exists():
            self.target.mkdir()

    def stored(self) -> int:
        """Bytes in the repository."""
        return self.store.stored(self.repo if self.bucket is None else self.bucket)

    def call(self, *arguments: str) -> str:
        """Run it outside of any measurement, and give what it printed."""
        done = subprocess.run(
            [self.binary, *arguments],
            env=self.env,
            check=False,
            capture_output=True,
            stdin=subprocess.DEVNULL,
        )
        if done.returncode:
            raise CommandError(f"{arguments}: {done.stderr.decode(errors='replace')}")
        return done.stdout.decode(errors="replace")

    def take(self) -> Command | None:
        """The next snapshot of the source."""
        self.taken += 1
        return self.snapshot()

    def snapshot(self) -> Command | None:
        """Take a snapshot of the source, the ``taken``-th."""
        return None

    def restore(self) -> Command | None:
        """Restore the newest snapshot to ``out``, at its best without reading it back."""
        return None

    def restore_verified(self) -> Command | None:
        """Restore it and compare what is on disk."""
        return None

    def verify(self) -> Command | None:
        """Read and check everything that is stored."""
        return None

    def list(self) -> Command | None:
        """Name the snapshots."""
        return None

    def ls(self) -> Command | None:
        """Name all files of the newest snapshot."""
        return None

    def help(self) -> Command | None:
        """Start up and say what there is."""
        return self.command("--help")

    def version(self) -> str:
        """What it says it is."""
        return self.call("--version").splitlines()[0]

    def command(self, *arguments: str, stdin: Path | None = None) -> Command:
        """The program with these arguments."""
        return Command((self.binary, *arguments), stdin)


class Vault(Program):
    """This project."""

    s3 = True

    def environment(self) -> dict[str, str]:
        """See `Program`."""
        homes = {
            f"XDG_{name}_HOME": str(self.place / name.lower())
            for name in ("CONFIG", "STATE", "CACHE")
        }
        return homes | {
            "VAULT_PASSPHRASE_FILE": str(self.place / "passphrase"),
            "VAULT_KEYS": str(self.place / "keys"),
        }

    def initial(self) -> list[list[str]]:
        """See `Program`."""
        secret = self.place / "passphrase"
        secret.write_text(PASSWORD + "\n")
        secret.chmod(0o600)
        if self.bucket is None:
            return [["init", str(self.repo), "--yes"]]
        url = f"s3://{self.bucket.name}/{self.bucket.prefix}"
        return [["--endpoint-url", self.bucket.endpoint, "init", url, "--lock", "none", "--yes"]]

    def snapshot(self) -> Command:
        """See `Program`."""
        what = [str(self.source.tree)] if self.source.stream is None else ["--stdin", "stream"]
        return self.command("-q", "snapshot", *what, "--name", "bench", stdin=self.source.stream)

    def restore(self) -> Command:
        """See `Program`."""
        return self.command("-q", "restore", "bench", str(self.out), "--no-verify")

    def restore_verified(self) -> Command:
        """See `Program`."""
        return self.command("-q", "restore", "bench", str(self.out))

    def verify(self) -> Command:
        """See `Program`."""
        return self.command("-q", "verify")

    def list(self) -> Command:
        """See `Program`."""
        return self.command("list")

    def ls(self) -> Command:
        """See `Program`."""
        return self.command("ls", "-R", "bench")


class Restic(Program):
    """The peer that everybody has."""

    s3 = True

    def environment(self) -> dict[str, str]:
        """See `Program`."""
        repo = str(self.repo)
        if self.bucket is not None:
            repo = f"s3:{self.bucket.endpoint}/{self.bucket.name}/{self.bucket.prefix}"
        return {
            "RESTIC_REPOSITORY": repo,
            "RESTIC_PASSWORD": PASSWORD,
            "RESTIC_CACHE_DIR": str(self.place / "cache"),
        }

    def initial(self) -> list[list[str]]:
        """See `Program`."""
        return [["init", "--repository-version", "2"]]

    def snapshot(self) -> Command:
        """See `Program`."""
        what = [str(self.source.tree)] if self.source.stream is None else ["--stdin"]
        return self.command("backup", "--quiet", *what, stdin=self.source.stream)

    def restore(self) -> Command:
        """See `Program`."""
        return self.command("restore", "latest", "--quiet", "--target", str(self.out))

    def restore_verified(self) -> Command:
        """See `Program`."""
        return self.command("restore", "latest", "--quiet", "--target", str(self.out), "--verify")

    def verify(self) -> Command:
        """See `Program`."""
        return self.command("check", "--quiet", "--read-data")

    def list(self) -> Command:
        """See `Program`."""
        return self.command("snapshots")

    def ls(self) -> Command:
        """See `Program`."""
        return self.command("ls", "latest")

    def version(self) -> str:
        """See `Program`."""
        return self.call("version").splitlines()[0]


class Borg(Program):
    """Version 1 of it: local directories only."""

    def environment(self) -> dict[str, str]:
        """See `Program`."""
        return {
            "BORG_REPO": str(self.repo),
            "BORG_PASSPHRASE": PASSWORD,
            "BORG_BASE_DIR": str(self.place / "home"),
        }

    def initial(self) -> list[list[str]]:
        """See `Program`."""
        return [["init", "--encryption=repokey"]]

    def snapshot(self) -> Command:
        """See `Program`."""
        what = str(self.source.tree) if self.source.stream is None else "-"
        name = f"::s{self.taken}"
        return self.command("create", "--compression=zstd,3", name, what, stdin=self.source.stream)

    def restore(self) -> Command:
        """See `Program`."""
        script = 'mkdir "$1" && cd "$1" && exec "$0" extract "$2"'
        return Command(("sh", "-c", script, self.binary, str(self.out), f"::s{self.taken}"))

    def verify(self) -> Command:
        """See `Program`."""
        return self.command("check", "--verify-data")

    def list(self) -> Command:
        """See `Program`."""
        return self.command("list")

    def ls(self) -> Command:
        """See `Program`."""
        return self.command("list", f"::s{self.taken}")


class Kopia(Program):
    """Written after its manual; its source was not to be had where this was made."""

    s3 = True

    def environment(self) -> dict[str, str]:
        """See `Program`."""
        return {
            "KOPIA_PASSWORD": PASSWORD,
            "KOPIA_CONFIG_PATH": str(self.place / "config"),
            "KOPIA_CACHE_DIRECTORY": str(self.place / "cache"),
            "KOPIA_LOG_DIR": str(self.place / "log"),
            "KOPIA_CHECK_FOR_UPDATES": "false",
        }

    def initial(self) -> list[list[str]]:
        """See `Program`."""
        where = ["filesystem", f"--path={self.repo}"]
        if self.bucket is not None:
            where = ["s3", f"--bucket={self.bucket.name}", f"--prefix={self.bucket.prefix}/"]
            where += [f"--endpoint={self.bucket.host}", "--disable-tls"]
        else:
            self.repo.mkdir()
        return [
            ["repository", "create", *where],
            ["policy", "set", "--global", "--compression=zstd"],
        ]

    def snapshot(self) -> Command:
        """See `Program`."""
        what = [str(self.source.tree)]
        if self.source.stream is not None:
            what += ["--stdin-file=stream"]
        return self.command("snapshot", "create", "--no-progress", *what, stdin=self.source.stream)

    def restore(self) -> Command:
        """See `Program`."""
        return self.command(
            "restore", "--snapshot-time=latest", str(self.source.tree), str(self.out)
        )

    def verify(self) -> Command:
        """See `Program`."""
        return self.command("snapshot", "verify", "--verify-files-percent=100")

    def list(self) -> Command:
        """See `Program`."""
        return self.command("snapshot", "list", "--all")


class Rustic(Program):
    """restic's format in Rust."""

    s3 = True

    def environment(self) -> dict[str, str]:
        """See `Program`."""
        told = {
            "RUSTIC_PASSWORD": PASSWORD,
            "RUSTIC_CACHE_DIR": str(self.place / "cache"),
            "RUSTIC_NO_PROGRESS": "true",
            "RUSTIC_LOG_LEVEL": "warn",
            "XDG_CONFIG_HOME": str(self.place / "config"),
        }
        if self.bucket is None:
            return told | {"RUSTIC_REPOSITORY": str(self.repo)}
        return told | {
            "RUSTIC_REPOSITORY": "opendal:s3",
            "OPENDAL_BUCKET": self.bucket.name,
            "OPENDAL_ROOT": f"/{self.bucket.prefix}",
            "OPENDAL_ENDPOINT": self.bucket.endpoint,
            "OPENDAL_REGION": "us-east-1",
        }

    def initial(self) -> list[list[str]]:
        """See `Program`."""
        return [["init", "--set-compression=3"]]

    def snapshot(self) -> Command:
        """See `Program`."""
        what = str(self.source.tree) if self.source.stream is None else "-"
        return self.command("backup", what, stdin=self.source.stream)

    def restore(self) -> Command:
        """See `Program`."""
        return self.command("restore", "latest", str(self.out))

    def verify(self) -> Command:
        """See `Program`."""
        return self.command("check", "--read-data")

    def list(self) -> Command:
        """See `Program`."""
        return self.command("snapshots")

    def ls(self) -> Command:
        """See `Program`."""
        return self.command("ls", "latest")


class Bupstash(Program):
    """Write-only clients, as here; it has no check of what is stored, and compares no restore."""

    def environment(self) -> dict[str, str]:
        """See `Program`."""
        return {
            "BUPSTASH_REPOSITORY": str(self.repo),
            "BUPSTASH_KEY": str(self.place / "key"),
            "BUPSTASH_SEND_LOG": str(self.place / "send-log"),
            "BUPSTASH_QUERY_CACHE": str(self.place / "query-cache"),
        }

    def initial(self) -> list[list[str]]:
        """See `Program`."""
        return [["init"], ["new-key", "--output", str(self.place / "key")]]

    def snapshot(self) -> Command:
        """See `Program`."""
        what = str(self.source.tree) if self.source.stream is None else "-"
        tag = f"name=s{self.taken}"
        return self.command(
            "put", "--compression=zstd:3", "--no-progress", tag, what, stdin=self.source.stream
        )

    def restore(self) -> Command:
        """See `Program`."""
        script = 'mkdir "$1"; exec "$0" restore -q --ownership --xattrs --into "$1" "$2"'
        if self.source.stream is not None:
            script = 'mkdir "$1"; exec "$0" get -q "$2" > "$1/stream"'
        return Command(("sh", "-c", script, self.binary, str(self.out), f"name=s{self.taken}"))

    def list(self) -> Command:
        """See `Program`."""
        return self.command("list")

    def ls(self) -> Command | None:
        """See `Program`."""
        if self.source.stream is not None:
            return None
        return self.command("list-contents", f"name=s{self.taken}")


class Limit(Program):
    """What the machine does without deduplication, encryption or history."""

    def help(self) -> None:
        """See `Program`."""

    def shell(self, script: str, *arguments: str) -> Command:
        """A line of shell; ``$1`` and so on are the arguments."""
        return Command(("sh", "-c", script, "sh", *arguments))


class TarZstd(Limit):
    """tar piped into zstd, and back."""

    def snapshot(self) -> Command | None:
        """See `Program`."""
        if self.taken == 2:
            return None  # nothing changed: it would do the same again
        script = 'mkdir -p "$2"; tar -C "$1" -cf - . | zstd -3 -T2 -qf -o "$2/archive.tar.zst"'
        return self.shell(script, str(self.source.tree), str(self.repo))

    def restore(self) -> Command:
        """See `Program`."""
        script = 'mkdir "$1" && zstd -d -q -c "$2/archive.tar.zst" | tar -C "$1" -xf -'
        return self.shell(script, str(self.out), str(self.repo))

    def version(self) -> str:
        """See `Program`."""
        return self.call("--version").strip("* \n")


class Copy(Limit):
    """cp -a."""

    def restore(self) -> Command:
        """See `Program`."""
        return self.shell('cp -a "$1" "$2"', str(self.source.tree), str(self.out))


def vault_here() -> Path:
    """The vault of this checkout."""
    return Path(sys.executable).with_name("vault")
