"""A copy of the checkout in which files may be broken, with a virtualenv that imports the copy."""

import contextlib
import os
import shutil
import signal
import subprocess
import sysconfig
import venv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

_MARK: Final = "MUTANTS_WORKSHOP"  # in the environment of every process started here
_COVER: Final = (
    "import os; 'COVERAGE_PROCESS_START' in os.environ and __import__('coverage').process_startup()"
)
_SCRIPT: Final = "#!{python}\nimport sys\nfrom cli.main import main\nsys.exit(main())\n"


class Workshop:
    """What is started in it imports the copy, also as ``python -I`` and as ``vault``."""

    def __init__(self, directory: Path) -> None:
        self.tree = directory / "tree"
        self.whole = directory / "whole"  # the modules as they are when nothing is broken
        self._scratch = directory / "scratch"
        self._stamp = 1_000_000_000

    def renew(self, checkout: Path) -> None:
        """Copy what git tracks or would track, as it is now."""
        for old in (self.tree, self.whole):
            shutil.rmtree(old, ignore_errors=True)
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=checkout,
            check=True,
            capture_output=True,
        )
        for name in filter(None, os.fsdecode(listed.stdout).split("\0")):
            if (checkout / name).exists():
                (self.tree / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(checkout / name, self.tree / name, follow_symlinks=False)
        shutil.copytree(self.tree / "vault", self.whole / "vault")
        self._make_venv()

    def mend(self) -> None:
        """Undo what a run that was killed left broken."""
        for whole in self.whole.rglob("*.py"):
            name = whole.relative_to(self.whole).as_posix()
            if (self.tree / name).read_bytes() != whole.read_bytes():
                self._write(name, whole.read_bytes())

    @contextlib.contextmanager
    def broken(self, name: str, content: bytes) -> Iterator[None]:
        """A module is that meanwhile."""
        self._write(name, content)
        try:
            yield
        finally:
            self._write(name, (self.whole / name).read_bytes())

    def _write(self, name: str, content: bytes) -> None:
        path = self.tree / name
        path.write_bytes(content)
        self._stamp += 1  # never a time that it had: compiled files go by that
        os.utime(path, (self._stamp, self._stamp))

    def _make_venv(self) -> None:
        venv.create(self.tree / ".venv", symlinks=True)
        packages = next((self.tree / ".venv" / "lib").glob("python*/site-packages"))
        # Of a directory named here no .pth file is read: none that leads to the checkout
        own = f"{self.tree}\n{sysconfig.get_path('purelib')}\n{_COVER}\n"
        (packages / "workshop.pth").write_text(own)
        script = self._python.with_name("vault")
        script.write_text(_SCRIPT.format(python=self._python))
        script.chmod(0o755)

    @property
    def _python(self) -> Path:
        return self.tree / ".venv" / "bin" / "python"

    def pytest(
        self,
        tests: Sequence[str],
        *options: str,
        env: Mapping[str, str] | None = None,
        seconds: float | None = None,
    ) -> tuple[int | None, str]:
        """Run tests there; nothing that they start outlives this.

        Returns: The exit status, None if it took longer than ``seconds``; and what it printed.
        """
        shutil.rmtree(self._scratch, ignore_errors=True)
        self._scratch.mkdir(parents=True)
        output = self._scratch / "output"
        listed = self._scratch / "tests"
        listed.write_text("".join(f"{test}\n" for test in tests))
        command = [str(self._python), "-m", "pytest", "-q", "--no-header", "--tb=line", "-rfE"]
        command += ["-p", "no:cacheprovider", "-p", "no:xdist", "-p", "no:pytest_cov"]
        command += ["--hypothesis-seed=0", f"--basetemp={self._scratch}/tmp"]
        environment = {**os.environ, **(env or {}), _MARK: str(self.tree)}
        environment["TMPDIR"] = str(self._scratch)
        with output.open("wb") as file:
            started = subprocess.Popen(
                [*command, *options, f"@{listed}"],
                cwd=self.tree,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            status = None
            try:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    status = started.wait(seconds)
            finally:
                started.kill()
                started.wait()
                self._end_all()
        return status, output.read_text(errors="replace")

    def _end_all(self) -> None:
        """What is broken may leave processes in any session: the environment says whose."""
        mark = f"{_MARK}={self.tree}".encode()
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if mark in (process / "environ").read_bytes().split(b"\0"):
                    os.kill(int(process.name), signal.SIGKILL)
