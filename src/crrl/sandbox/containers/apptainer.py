"""Apptainer, through its command line: images are SIF files in the state folder, containers are child processes.

UNTESTED: written from its documentation; only the text of its command lines is tested. It runs as root inside a user
namespace (`--fakeroot`), so that `init.py` can do the same as under Docker. Its limits need cgroups v2 that this user
may use.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

from crrl.errors import CrrlError, LostError
from crrl.sandbox.containers.api import Image, Start

CONFINED = ["--containall", "--no-home", "--cleanenv", "--no-init", "--net", "--network", "none"]
REMOVE_S = 20.0


class Apptainer:
    """Raises CrrlError if it is not installed."""

    name = "apptainer"
    keeper: list[str] = []  # noqa: RUF012  # part of the protocol; a child ends with its owner's end of the socket

    def __init__(self, state_dir: Path) -> None:
        self.folder = state_dir / "sif"
        if shutil.which("apptainer") is None:
            remedy = "Install it (https://apptainer.org/docs/admin/main/installation.html), or use Docker or Podman."
            raise CrrlError("Apptainer is not installed.", remedy)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._children: dict[str, subprocess.Popen[bytes]] = {}

    def image(self, name: str) -> Image:
        file = name_of(self.folder, name)
        if not file.exists():
            remedy = (
                f"Fetch it first: crrl tasks fetch CORPUS ids=... images=apptainer ({' '.join(pulling(file, name))})"
            )
            raise CrrlError(f"needs the image {name}, which is not in {self.folder}.", remedy)
        info = file.stat()
        return Image(name, str(file), "", info.st_size, ((str(file), info.st_size),))

    def archive(self, image: str, path: str) -> Iterator[bytes]:
        with subprocess.Popen(archiving(image, path), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            assert process.stdout is not None and process.stderr is not None
            while chunk := process.stdout.read(1 << 20):
                yield chunk
            said = process.stderr.read().decode(errors="replace").strip()
        if process.returncode != 0:
            raise FileNotFoundError(f"{image} has no {path}: {said[-300:]}")

    def start(self, wanted: Start) -> str:
        try:
            child = subprocess.Popen(
                starting(wanted), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True, cwd="/"
            )
        except OSError as error:
            raise LostError("sandbox_start", f"apptainer: {error}") from error
        self._children[str(child.pid)] = child
        return str(child.pid)

    def remove(self, container: str) -> None:
        child = self._children.pop(container, None)
        if child is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        try:
            child.wait(REMOVE_S)
        except subprocess.TimeoutExpired:
            raise LostError("sandbox_close", f"apptainer {container} does not end") from None

    def sweep(self, mine: bool = False) -> int:
        left = list(self._children) if mine else []
        for container in left:
            self.remove(container)
        return len(left)

    def pull(self, name: str, progress: Callable[[int, int], object]) -> None:
        file = name_of(self.folder, name)
        part = file.with_suffix(".part")
        done = subprocess.run(pulling(part, name), capture_output=True, text=True, check=False)
        if done.returncode != 0:
            part.unlink(missing_ok=True)
            said = done.stderr.strip()[-500:]
            raise CrrlError(f"{name} cannot be pulled: {said}", "Is there network? Fetched images stay: run it again.")
        os.replace(part, file)
        progress(file.stat().st_size, file.stat().st_size)

    def delete(self, name: str) -> None:
        name_of(self.folder, name).unlink(missing_ok=True)

    def close(self) -> None:
        self.sweep(mine=True)


def name_of(folder: Path, name: str) -> Path:
    return folder / f"{re.sub('[^A-Za-z0-9._-]', '_', name)}.sif"


def pulling(file: Path, name: str) -> list[str]:
    return ["apptainer", "pull", "--force", str(file), f"docker://{name}"]


def archiving(image: str, path: str) -> list[str]:
    folder, name = os.path.split(path)
    return ["apptainer", "exec", *CONFINED, image, "tar", "-C", folder, "-cf", "-", name]


def starting(wanted: Start) -> list[str]:
    limits = wanted.limits
    options = ["--memory", str(wanted.memory_bytes), "--memory-swap", str(wanted.memory_bytes)]
    options += ["--pids-limit", str(limits.processes + 8)]
    options += ["--cpus", f"{wanted.cpus:g}"] if wanted.cpus else []
    for source, inside in wanted.binds.items():
        options += ["--bind", f"{source}:{inside}:ro"]
    return ["apptainer", "exec", "--fakeroot", *CONFINED, "--hostname", "box", *options, wanted.image, *wanted.command]
