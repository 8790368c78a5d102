"""`crrl doctor`: checks what this machine has and lacks. It changes nothing, except that it removes containers of
killed runs. Every finding other than `ok` has a remedy."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import socket
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.table import Table

from crrl.errors import CrrlError, LostError

Status = Literal["ok", "note", "missing"]
MEMORY_GB = 4
DISK_GB = 2


@dataclass(frozen=True)
class Finding:
    """`missing`: the quickstart cannot run without it. `note`: it can, but read the remedy."""

    name: str
    status: Status
    found: str
    remedy: str = ""


def examine(state_dir: Path) -> list[Finding]:
    """All checks, in the order in which you would fix things. None of them raises. `state_dir`: the sandbox's."""
    of_state_dir = [check(state_dir) for check in (_state_dir, _caches, _boxes)]
    return [*(check() for check in BEFORE), *of_state_dir, *(check() for check in AFTER)]


def render(findings: list[Finding]) -> None:
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    marks = {"ok": "[green]ok[/]", "note": "[yellow]note[/]", "missing": "[bold red]missing[/]"}
    for f in findings:
        table.add_row(marks[f.status], f.name, f.found + (f"\n[bold]→ {f.remedy}[/]" if f.remedy else ""))
    console = Console(highlight=False)
    console.print(table)
    missing = sum(f.status == "missing" for f in findings)
    console.print(f"\n{missing} missing." if missing else "\nReady: crrl train quickstart")


def _system() -> Finding:
    if platform.system() != "Linux":
        return Finding("system", "missing", platform.system(), "The sandbox needs Linux; use a Linux machine or VM.")
    return Finding("system", "ok", f"Linux {platform.release()}, {platform.machine()}")


def _python() -> Finding:
    found = platform.python_version()
    return Finding("python", "ok", found)


def _cores() -> Finding:
    cores = len(os.sched_getaffinity(0))
    remedy = "" if cores >= 2 else "With one core the quickstart takes about twice as long."
    return Finding("cores", "ok" if cores >= 2 else "note", str(cores), remedy)


def _memory() -> Finding:
    values = {}
    for line in Path("/proc/meminfo").read_text().splitlines():
        name, _, rest = line.partition(":")
        values[name] = int(rest.split()[0]) / 2**20
    free, total = values.get("MemAvailable", 0.0), values.get("MemTotal", 0.0)
    remedy = "" if free >= MEMORY_GB else f"The quickstart may use {MEMORY_GB} GB: close something first."
    return Finding("memory", "note" if remedy else "ok", f"{free:.1f} of {total:.1f} GB free", remedy)


def _disk() -> Finding:
    free = shutil.disk_usage(".").free / 2**30
    remedy = "" if free >= DISK_GB else f"Free {DISK_GB} GB, or write runs_dir=FOLDER on another disk."
    return Finding("disk", "note" if remedy else "ok", f"{free:.1f} GB free here", remedy)


def _git() -> Finding:
    return _tool("git", ["git", "--version"], "apt-get install git")


def _bubblewrap() -> Finding:
    return _tool("bubblewrap", ["bwrap", "--version"], "apt-get install bubblewrap")


def _boxes(state_dir: Path) -> Finding:
    """Tries every step of starting a sandbox, as the uid that sandboxes run as."""
    from crrl.sandbox.availability import check

    problems = check(state_dir)
    if problems:
        return Finding("sandbox", "missing", problems[0].problem, problems[0].remedy)
    return Finding("sandbox", "ok", "starts: namespaces, overlay, limits")


def _memory_limits() -> Finding:
    """Who keeps a box within its memory: the kernel counts all of it, a watchdog what shows outside."""
    from crrl.sandbox import cgroup

    kept_by = cgroup.kept_by()
    if kept_by == "watchdog":
        remedy = "For limits that the kernel keeps: systemd-run --user --scope crrl ..., or run as root."
        return Finding("memory limits", "note", "a watchdog: no cgroup can be made here", remedy)
    return Finding("memory limits", "ok", f"kept by the kernel ({kept_by})")


def _containers() -> Finding:
    """Only tasks with an image need an engine. Removes what killed runs left there."""
    from crrl.sandbox.containers.engine import ContainerEngine

    found = []
    try:
        engine = ContainerEngine()
        found.append(engine.version())
        if swept := engine.sweep():
            found.append(f"{swept} containers of killed runs removed")
        engine.close()
    except (CrrlError, LostError) as error:
        if shutil.which("apptainer") is None:
            remedy = getattr(error, "remedy", "")
            return Finding("containers", "note", f"{error.args[0]} Only tasks with an image need one.", remedy)
    if shutil.which("apptainer") is not None:
        found.append("apptainer (untested)")
    return Finding("containers", "ok", ", ".join(found))


def _state_dir(path: Path) -> Finding:
    parent = next(folder for folder in (path, *path.parents) if folder.exists())
    if not os.access(parent, os.W_OK | os.X_OK):
        return Finding(
            "state_dir",
            "missing",
            f"{parent} is not writable",
            "Write sandbox.state_dir=FOLDER, outside HOME.",
        )
    free = shutil.disk_usage(parent).free / 2**30
    return Finding("state_dir", "ok", f"{path}, {free:.1f} GB free")


def _caches(state_dir: Path) -> Finding:
    """Their size by kind; a note if they take more than is left on the disk."""
    from crrl.sandbox.cache import in_words, look

    try:
        cache = look(state_dir)
        free = shutil.disk_usage(next(folder for folder in (state_dir, *state_dir.parents) if folder.exists())).free
    except OSError as error:
        return Finding("caches", "note", str(error), "Make the folder readable for this user.")
    sizes = [f"{total.kind} {in_words(total.bytes)}" for total in cache.totals() if total.entries]
    found = ", ".join(sizes) or "empty"
    if cache.size() > free:
        return Finding("caches", "note", found, "crrl clean older=30d, or a limit for each run: sandbox.cache_gb=20")
    return Finding("caches", "ok", found)


def _sockets() -> Finding:
    """The gateway listens on loopback, and processes communicate over unix sockets."""
    try:
        with socket.socket() as tcp:
            tcp.bind(("127.0.0.1", 0))
        with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as unix:
            unix.bind(f"{folder}/s")
    except OSError as error:
        return Finding("sockets", "missing", str(error), "Allow loopback and unix sockets for this user.")
    return Finding("sockets", "ok", "loopback and unix")


def _torch() -> Finding:
    """In a separate process: importing torch takes seconds and can crash."""
    if importlib.util.find_spec("torch") is None:
        return Finding(
            "torch",
            "missing",
            "not installed",
            "pip install -c constraints.txt coderepair-rl, or: make setup",
        )
    code = (
        "import torch; c=torch.cuda; print(torch.__version__, '|', c.get_device_name(0) if c.is_available() else 'CPU')"
    )
    tried = _call([sys.executable, "-c", code], timeout=120)
    if tried is None or tried.returncode != 0:
        said = (tried.stderr.strip().splitlines() or ["no output"])[-1] if tried else "the import did not finish"
        return Finding("torch", "missing", said, "pip install --force-reinstall torch==2.13.0")
    return Finding("torch", "ok", tried.stdout.strip().replace(" | ", ", "))


def _packages() -> Finding:
    found, lacking = [], []
    for name in ("transformers", "trl", "renderers", "hydra-core", "uvicorn", "openai", "msgspec"):
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            lacking.append(name)
    if lacking:
        return Finding(
            "packages",
            "missing",
            "not installed: " + ", ".join(lacking),
            "make setup, or: pip install " + " ".join(lacking),
        )
    return Finding("packages", "ok", ", ".join(found))


def _tool(name: str, command: list[str], install: str) -> Finding:
    if shutil.which(command[0]) is None:
        return Finding(name, "missing", "not installed", ("" if os.geteuid() == 0 else "sudo ") + install)
    tried = _call(command)
    if tried is None or tried.returncode != 0:
        return Finding(name, "missing", f"{command[0]} does not run", ("" if os.geteuid() == 0 else "sudo ") + install)
    return Finding(name, "ok", tried.stdout.strip().splitlines()[0])


def _call(command: list[str], timeout: float = 20) -> subprocess.CompletedProcess[str] | None:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None


BEFORE = (_system, _python, _cores, _memory, _disk, _git, _bubblewrap)
AFTER = (_memory_limits, _containers, _sockets, _torch, _packages)
