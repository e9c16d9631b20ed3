"""Time the vault beside restic on the same tree, in turns, and print a table.

    python tests/bench/compare.py [--runs N] [--tree DIR] [--small]

Every program works with encryption, at zstd's default level, on a local directory, with a
warm page cache. Peak anonymous memory is RssAnon of the process, sampled. Nothing is asserted.
"""

import argparse
import dataclasses
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

SOURCES = ("/usr/share", "/usr/include", "/usr/lib/python3", "/usr/lib/x86_64-linux-gnu")
SETTLED = 61  # seconds: files changed more recently are read again (design.md 6)


@dataclasses.dataclass(frozen=True, slots=True)
class Sample:
    """What one run of one program took."""

    wall: float  # seconds
    cpu: float  # seconds, user and system
    memory: float  # MB, peak RssAnon


def measure(command: Sequence[str], env: dict[str, str]) -> Sample:
    """Run a program to its end."""
    started = time.monotonic()
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=errors)
        peak = [0]
        sampler = threading.Thread(target=_sample, args=(process.pid, peak), daemon=True)
        sampler.start()
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.monotonic() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        sampler.join()
        if process.returncode:
            errors.seek(0)
            sys.exit(f"{command}: exit {process.returncode}\n{errors.read().decode()}")
    return Sample(wall, usage.ru_utime + usage.ru_stime, peak[0] / 1000)


def _sample(pid: int, peak: list[int]) -> None:
    status = Path(f"/proc/{pid}/status")
    while True:
        try:
            text = status.read_text()
        except OSError:
            return
        rss = [line for line in text.splitlines() if line.startswith("RssAnon")]
        if not rss:
            return
        peak[0] = max(peak[0], int(rss[0].split()[1]))
        time.sleep(0.01)


class Program:
    """One program under test, with a repository of its own for every round."""

    name = ""

    def __init__(self, place: Path, tree: Path) -> None:
        self.place = place
        self.tree = tree
        self.env = dict(os.environ)

    def prepare(self) -> None:
        """Make an empty repository."""
        raise NotImplementedError

    def snapshot(self) -> list[str]:
        """Take a snapshot of the tree."""
        raise NotImplementedError

    def restore(self, *, verify: bool) -> list[str]:
        """Restore it to ``place/out``."""
        raise NotImplementedError

    def stored(self) -> float:
        """MB in the repository."""
        repo = self.place / "repo"
        return sum(path.stat().st_size for path in repo.rglob("*") if path.is_file()) / 1e6


class Vault(Program):
    """This project."""

    name = "vault"

    def prepare(self) -> None:
        """See `Program.prepare`."""
        shutil.rmtree(self.place, ignore_errors=True)
        self.place.mkdir(parents=True)
        secret = self.place / "passphrase"
        secret.write_text("correct horse battery staple\n")
        for name in ("CONFIG", "STATE", "CACHE"):
            self.env[f"XDG_{name}_HOME"] = str(self.place / name.lower())
        self.env["VAULT_PASSPHRASE_FILE"] = str(secret)
        self.env["VAULT_KEYS"] = str(self.place / "keys")
        repo = str(self.place / "repo")
        subprocess.run(
            [*_vault(), "init", repo, "--yes"], env=self.env, check=True, capture_output=True
        )

    def snapshot(self) -> list[str]:
        """See `Program.snapshot`."""
        return [*_vault(), "snapshot", str(self.tree), "--name", "bench"]

    def restore(self, *, verify: bool) -> list[str]:
        """See `Program.restore`."""
        flag = "--verify" if verify else "--no-verify"
        return [*_vault(), "restore", "bench", str(self.place / "out"), flag]


class Restic(Program):
    """The peer that everybody has."""

    name = "restic"

    def prepare(self) -> None:
        """See `Program.prepare`."""
        shutil.rmtree(self.place, ignore_errors=True)
        self.place.mkdir(parents=True)
        self.env |= {
            "RESTIC_REPOSITORY": str(self.place / "repo"),
            "RESTIC_PASSWORD": "correct horse battery staple",
            "RESTIC_CACHE_DIR": str(self.place / "cache"),
        }
        command = ["restic", "init", "--repository-version", "2"]
        subprocess.run(command, env=self.env, check=True, capture_output=True)

    def snapshot(self) -> list[str]:
        """See `Program.snapshot`."""
        return ["restic", "backup", "--quiet", str(self.tree)]

    def restore(self, *, verify: bool) -> list[str]:
        """See `Program.restore`."""
        flags = ["--verify"] if verify else []
        out = str(self.place / "out")
        return ["restic", "restore", "latest", "--quiet", "--target", out, *flags]


def _vault() -> list[str]:
    return [str(Path(sys.executable).with_name("vault"))]


def make_tree(place: Path, *, small: bool) -> Path:
    """A copy of system files, old enough that nothing about it is racy."""
    tree = place / "tree"
    tree.mkdir(parents=True)
    for source in map(Path, SOURCES[1:3] if small else SOURCES):
        if source.is_dir():
            subprocess.run(["cp", "-a", str(source), str(tree)], check=True)
    return tree


def operations(program: Program) -> Iterator[tuple[str, Callable[[], list[str]]]]:
    """What is timed, in order."""
    yield "first snapshot", program.snapshot
    yield "nothing changed", program.snapshot
    yield "restore", lambda: program.restore(verify=False)
    yield "restore --verify", lambda: program.restore(verify=True)


def bench(programs: Sequence[Program], runs: int) -> dict[tuple[str, str], list[Sample]]:
    """Programs in turns, so that a noisy machine is noisy for all."""
    samples: dict[tuple[str, str], list[Sample]] = defaultdict(list)
    for _ in range(runs):
        for program in programs:
            program.prepare()
        steps = [list(operations(program)) for program in programs]
        for number in range(len(steps[0])):
            for program, step in zip(programs, steps, strict=True):
                name, command = step[number]
                shutil.rmtree(program.place / "out", ignore_errors=True)
                os.sync()
                samples[name, program.name].append(measure(command(), program.env))
    return samples


def limits(tree: Path, runs: int) -> dict[tuple[str, str], list[Sample]]:
    """What the machine itself takes: tar piped into zstd."""
    if shutil.which("zstd") is None:
        return {}
    command = f"tar -C {tree} -cf - . | zstd -3 -T2 -q > /dev/null"
    return {
        ("first snapshot", "tar | zstd -T2"): [
            measure(["sh", "-c", command], dict(os.environ)) for _ in range(runs)
        ]
    }


def table(samples: dict[tuple[str, str], list[Sample]], stored: dict[str, float]) -> str:
    """Markdown: medians with the range of wall times, and ratios to restic."""
    lines = [
        "| work | program | wall s (min to max) | CPU s | anon MB | wall / restic | CPU / restic |",
        "|---|---|---|---|---|---|---|",
    ]
    for (work, program), runs in sorted(samples.items(), key=lambda item: item[0][0]):
        wall = [run.wall for run in runs]
        cpu = statistics.median(run.cpu for run in runs)
        memory = statistics.median(run.memory for run in runs)
        peer = samples.get((work, "restic"))
        ratios = ["", ""]
        if peer and program != "restic":
            ratios = [
                f"{statistics.median(wall) / statistics.median(run.wall for run in peer):.2f}",
                f"{cpu / statistics.median(run.cpu for run in peer):.2f}",
            ]
        lines.append(
            f"| {work} | {program} | {statistics.median(wall):.2f} ({min(wall):.2f} to"
            f" {max(wall):.2f}) | {cpu:.2f} | {memory:.0f} | {ratios[0]} | {ratios[1]} |"
        )
    lines += ["", *(f"Stored by {name}: {size:.1f} MB." for name, size in stored.items())]
    return "\n".join(lines)


def main() -> None:
    """Prepare, run, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--tree", type=Path, help="use this tree instead of a copy of /usr")
    parser.add_argument("--small", action="store_true", help="a few thousand files: a smoke test")
    arguments = parser.parse_args()
    place = Path(tempfile.mkdtemp(prefix="vault-bench-"))
    try:
        tree = arguments.tree or make_tree(place, small=arguments.small)
        if not arguments.tree and not arguments.small:
            time.sleep(SETTLED)
        programs: list[Program] = [Vault(place / "vault", tree)]
        if shutil.which("restic"):
            programs.append(Restic(place / "restic", tree))
        else:
            print("restic is not installed: no peer to compare with")
        samples = bench(programs, arguments.runs)
        samples |= limits(tree, arguments.runs)
        files = [path for path in tree.rglob("*") if path.is_file() and not path.is_symlink()]
        size = sum(path.stat().st_size for path in files)
        print(f"{len(files)} files, {size / 1e9:.2f} GB; {os.cpu_count()} cores;", end=" ")
        print(f"Linux {platform.release()}; Python {platform.python_version()}; ", end="")
        print(f"median of {arguments.runs} runs")
        for program in programs[1:]:
            version = subprocess.run(
                [program.name, "version"], capture_output=True, text=True, check=True
            )
            print(version.stdout.strip())
        print(table(samples, {program.name: program.stored() for program in programs}))
    finally:
        shutil.rmtree(place, ignore_errors=True)


if __name__ == "__main__":
    main()
