"""A real PostgreSQL server: dumped by a command, restored into a fresh server, compared."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias

import pytest

Vault: TypeAlias = Callable[..., tuple[int, str, str]]

_BIN = max((each.parent for each in Path("/usr/lib/postgresql").glob("*/bin/initdb")), default=None)
pytestmark = pytest.mark.skipif(
    _BIN is None or shutil.which("runuser") is None or os.geteuid() != 0,
    reason="needs a PostgreSQL server and root to start it as postgres; .ci/run installs it",
)

_SCHEMA = """
create table account (id serial primary key, name text not null, balance numeric(12,2));
create index on account (name);
insert into account (name, balance)
  select md5(i::text), i * 1.01 from generate_series(1, 20000) i;
create view rich as select * from account where balance > 10000;
"""
_DIGEST = "select count(*), md5(string_agg(t::text, '|' order by id)) from account t"


class Server:
    """A PostgreSQL server of the test's own, on a Unix socket."""

    def __init__(self, place: Path) -> None:
        self._place = place
        place.mkdir()
        shutil.chown(place, "postgres")
        self._run("initdb", "-D", place / "data", "-A", "trust", "-N")
        options = f"-c listen_addresses='' -c unix_socket_directories={place} -c fsync=off"
        log = place / "log"
        self._run("pg_ctl", "-D", place / "data", "-w", "-l", log, "-o", options, "start")

    def stop(self) -> None:
        """End the server."""
        self._run("pg_ctl", "-D", self._place / "data", "-m", "immediate", "stop")

    def tool(self, name: str, *arguments: str) -> list[str]:
        """A command line of one of its client programs."""
        assert _BIN is not None
        return [str(_BIN / name), "-h", str(self._place), "-U", "postgres", *arguments]

    def query(self, text: str) -> str:
        """What a query prints."""
        command = self.tool("psql", "-v", "ON_ERROR_STOP=1", "-At", "-d", "shop", "-c", text)
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    def _run(self, name: str, *arguments: object) -> None:
        assert _BIN is not None
        command = ["runuser", "-u", "postgres", "--", str(_BIN / name), *map(str, arguments)]
        subprocess.run(command, check=True, capture_output=True, cwd="/")


@pytest.fixture
def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Server]]:
    """Starts servers by name; all end with the test."""
    place = Path(f"/tmp/vault-test-{os.getpid()}")  # a socket's path must be short
    place.mkdir(mode=0o755)
    servers: list[Server] = []

    def make(name: str) -> Server:
        servers.append(Server(place / name))
        return servers[-1]

    yield make
    for server in servers:
        server.stop()
    shutil.rmtree(place)


def test_a_dump_restores_into_a_fresh_server(
    vault: Vault, repository: Path, home: Path, start: Callable[[str], Server]
) -> None:
    """Custom-format dump by --command, restored to disk, loaded elsewhere: the same rows."""
    old = start("old")
    subprocess.run(old.tool("createdb", "shop"), check=True)
    old.query(_SCHEMA)
    dump = old.tool("pg_dump", "-Fc", "-Z0", "shop")
    arguments = ["--name", "shop", "--file-name", "shop.dump", "--command", "--"]
    assert vault("snapshot", *arguments, *dump)[0] == 0
    assert vault("restore", "shop", home / "recovered")[0] == 0
    new = start("new")
    subprocess.run(new.tool("createdb", "shop"), check=True)
    load = new.tool("pg_restore", "-d", "shop", str(home / "recovered/shop.dump"))
    subprocess.run(load, check=True)
    assert new.query(_DIGEST) == old.query(_DIGEST)
    assert new.query("select count(*) from rich") == old.query("select count(*) from rich")


def test_a_dump_that_fails_publishes_nothing(
    vault: Vault, repository: Path, start: Callable[[str], Server]
) -> None:
    """A database that is not there: exit 16."""
    dump = start("old").tool("pg_dump", "-Fc", "nowhere")
    assert vault("snapshot", "--name", "shop", "--command", "--", *dump)[0] == 16
    assert "shop" not in vault("list")[1]


def test_a_running_data_directory_comes_back_as_it_was_read(
    vault: Vault, repository: Path, home: Path, start: Callable[[str], Server]
) -> None:
    """Files change and vanish under the walk: warnings, exit 0, and a restore that is proven."""
    server = start("live")
    subprocess.run(server.tool("createdb", "shop"), check=True)
    server.query(_SCHEMA)
    load = server.tool("psql", "-d", "shop", "-c", "update account set balance = balance + 1")
    place = Path(server.tool("psql")[2]) / "data"
    with subprocess.Popen(load, stdout=subprocess.DEVNULL) as busy:
        code, _, err = vault("snapshot", place, "--name", "data")
        busy.wait()
    assert code == 0, err
    assert vault("restore", "data", home / "data")[0] == 0
    assert (home / "data/PG_VERSION").read_text() == (place / "PG_VERSION").read_text()
