"""Docker and Podman, through the API that both share: self-removing containers, images, and cleaning up leftovers.

All calls block; `backend.py` makes them in threads. Every container has a label with its owner (`OWNER`). `sweep`
removes those whose owner is dead: at each start, in `keeper.py` and in `crrl doctor`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import docker
import psutil
from docker.constants import DEFAULT_DOCKER_API_VERSION
from docker.errors import APIError, DockerException, ImageNotFound, NotFound
from docker.types import Mount as Bind

from crrl.errors import CrrlError, LostError, UsageError
from crrl.sandbox.containers.api import Image, Start

OWNER = "crrl.owner"
REQUEST_S = 120
REMOVE_S = 20.0
ADDED = ("CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID")  # init.KEPT
STARTING = ("SYS_ADMIN", "SYS_CHROOT", "SETPCAP")  # given up by init.py before anything of the image runs
START_PODMAN = "systemctl --user start podman.socket (as root: systemctl start podman.socket)"


class ContainerEngine:
    """One engine on this machine. Raises CrrlError, with the remedy, if none answers.

    Args:
        name: `docker`, `podman`, or `auto`: the first of the two that answers.
        address: its socket (`unix://...`); "": the usual places.
    """

    def __init__(self, name: str = "auto", *, address: str = "") -> None:
        self.name, self.address, self._client = _connect(name, [(name, address)] if address else sockets(name))
        self.labels = {OWNER: owner()}
        self.keeper = [self.name, self.address, self.labels[OWNER]]

    def image(self, name: str) -> Image:
        try:
            found = self._client.inspect_image(name)
        except (ImageNotFound, NotFound):
            remedy = f"Fetch it first: crrl tasks fetch CORPUS ids=... (or: {self.name} pull {name})"
            raise CrrlError(f"needs the image {name}, which is not on this machine.", remedy) from None
        config = found.get("Config") or {}
        return Image(name, found["Id"], config.get("User") or "", int(found.get("Size") or 0), self._layers(found))

    def _layers(self, found: dict[str, Any]) -> tuple[tuple[str, int], ...]:
        """If the history lacks the sizes of the layers, the image counts as one layer."""
        chain = (found.get("RootFS") or {}).get("Layers") or []
        sizes = [int(step["Size"]) for step in reversed(self._client.history(found["Id"])) if step["Size"]]
        if len(sizes) != len(chain):
            return ((found["Id"], int(found.get("Size") or 0)),)
        return tuple(("/".join(chain[: n + 1]), size) for n, size in enumerate(sizes))

    def archive(self, image: str, path: str) -> Iterator[bytes]:
        """A tar stream of one path of an image; runs nothing of the image. Raises FileNotFoundError."""
        made = self._client.create_container(image, command=["/none"], network_disabled=True, labels=self.labels)
        try:
            stream, _ = self._client.get_archive(made["Id"], path)
            yield from stream
        except NotFound as error:
            raise FileNotFoundError(f"{image} has no {path}") from error
        finally:
            self.remove(made["Id"])

    def start(self, wanted: Start) -> str:
        """The id of a running container. Raises LostError, CrrlError (the engine lacks a feature that boxes need)."""
        limits = wanted.limits
        host = self._client.create_host_config(
            network_mode="none",
            auto_remove=True,
            read_only=True,
            mem_limit=wanted.memory_bytes,
            memswap_limit=wanted.memory_bytes,
            pids_limit=limits.processes + 8,
            nano_cpus=int(wanted.cpus * 1e9) or None,
            cap_drop=["ALL"],
            cap_add=[*ADDED, *STARTING],
            security_opt=["no-new-privileges", "label=disable", *self._apparmor()],
            mounts=[Bind(inside, source, type="bind", read_only=True) for source, inside in wanted.binds.items()],
            shm_size=limits.tmp_bytes,
            ulimits=[
                docker.types.Ulimit(name="nofile", soft=limits.open_files, hard=limits.open_files),
                docker.types.Ulimit(name="nproc", soft=4096, hard=4096),
                docker.types.Ulimit(name="core", soft=0, hard=0),
            ],
            log_config=docker.types.LogConfig(type="none"),
        )
        try:
            made = self._client.create_container(
                wanted.image,
                command=wanted.command[1:],
                entrypoint=wanted.command[:1],
                user="0:0",
                working_dir="/",
                hostname="box",
                healthcheck={"test": ["NONE"]},
                labels=self.labels,
                host_config=host,
            )
        except DockerException as error:
            raise LostError("sandbox_start", f"{self.name}: {error}") from error
        try:
            self._client.start(made["Id"])
        except DockerException as error:
            self.remove(made["Id"])
            raise LostError("sandbox_start", f"{self.name}: {error}") from error
        return str(made["Id"])

    def _apparmor(self) -> list[str]:
        """Its profile for containers forbids the mounts of `init.py`; its filter forbids them afterwards."""
        return ["apparmor=unconfined"] if Path("/sys/kernel/security/apparmor").is_dir() else []

    def remove(self, container: str) -> None:
        """Kill and remove it, with its anonymous volumes; returns when it is gone. Raises LostError."""
        deadline = time.monotonic() + REMOVE_S
        while True:
            try:
                self._client.remove_container(container, force=True, v=True)
                return
            except NotFound:
                return
            except (APIError, DockerException) as error:  # it is already being removed, for instance by itself
                if time.monotonic() > deadline:
                    raise LostError("sandbox_close", f"{self.name} does not remove {container}: {error}") from error
                time.sleep(0.05)

    def sweep(self, mine: bool = False) -> int:
        found = self._client.containers(all=True, filters={"label": OWNER})
        own = self.labels[OWNER] if mine else None
        gone = [each["Id"] for each in found if _is_gone(each["Labels"][OWNER]) or each["Labels"][OWNER] == own]
        for container in gone:
            self.remove(container)
        return len(gone)

    def left(self) -> int:
        """The number of containers whose owner is dead."""
        found = self._client.containers(all=True, filters={"label": OWNER})
        return sum(_is_gone(each["Labels"][OWNER]) for each in found)

    def pull(self, name: str, progress: Callable[[int, int], object]) -> None:
        repository, _, tag = name.rpartition(":") if ":" in name.rpartition("/")[2] else (name, "", "latest")
        parts: dict[str, tuple[int, int]] = {}
        try:
            for event in self._client.pull(repository, tag=tag, stream=True, decode=True):
                if "error" in event:
                    raise CrrlError(f"{name}: {event['error']}", "Is the name right, the registry reachable?")
                detail = event.get("progressDetail") or {}
                if event.get("status") == "Downloading" and detail.get("total"):
                    parts[event["id"]] = int(detail["current"]), int(detail["total"])
                    progress(sum(c for c, _ in parts.values()), sum(t for _, t in parts.values()))
        except DockerException as error:
            remedy = f"Is there network? Try: {self.name} pull {name}. Fetched images stay: rerun to continue."
            raise CrrlError(f"{name} cannot be pulled: {error}", remedy) from error

    def delete(self, name: str) -> None:
        try:
            self._client.remove_image(name)
        except (ImageNotFound, NotFound):
            return
        except DockerException as error:
            raise CrrlError(
                f"The image {name} cannot be removed: {error}", f"{self.name} ps -a shows the containers that use it."
            ) from (error)

    def version(self) -> str:
        return f"{self.name} {self._client.version().get('Version', '?')} at {self.address}"

    def close(self) -> None:
        self._client.close()


def owner() -> str:
    """Identifies this process: boot, pid namespace, pid, start time. No other process ever has the same."""
    return f"{_boot()}:{os.readlink('/proc/self/ns/pid')}:{os.getpid()}:{psutil.Process().create_time():.2f}"


def _is_gone(label: str) -> bool:
    """Processes of another pid namespace are unknown here: it must clean up its own containers."""
    boot, _, rest = label.partition(":")
    namespace, _, process = rest.rpartition(":")[0].rpartition(":")
    if boot != _boot():
        return True
    if namespace != os.readlink("/proc/self/ns/pid"):
        return False
    try:
        return f"{psutil.Process(int(process)).create_time():.2f}" != rest.rpartition(":")[2]
    except psutil.NoSuchProcess:
        return True


def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()[:8]


def sockets(name: str) -> list[tuple[str, str]]:
    """(engine, address), in the order to try them."""
    own = os.environ.get("XDG_RUNTIME_DIR", f"/run/user/{os.getuid()}")
    docker_ = [os.environ.get("DOCKER_HOST", "")] if os.environ.get("DOCKER_HOST") else []
    podman = [os.environ.get("CONTAINER_HOST", "")] if os.environ.get("CONTAINER_HOST") else []
    docker_ = docker_ or [f"unix://{path}" for path in ("/var/run/docker.sock", f"{own}/docker.sock")]
    podman = podman or [f"unix://{path}" for path in ("/run/podman/podman.sock", f"{own}/podman/podman.sock")]
    found = [("docker", address) for address in docker_] if name in ("auto", "docker") else []
    return found + [("podman", address) for address in podman] * (name in ("auto", "podman"))


def _client(engine: str, address: str) -> tuple[str, str, Any]:
    """A client for the API version that the engine names; a request for `/version` takes Podman seconds."""
    with docker.APIClient(base_url=address, timeout=REQUEST_S, version=DEFAULT_DOCKER_API_VERSION) as first:
        said = first.get(f"{first.base_url}/_ping")
    client = docker.APIClient(base_url=address, timeout=REQUEST_S, version=said.headers["Api-Version"], num_pools=64)
    # Podman behind Docker's socket is Podman.
    return ("podman" if "Libpod-Api-Version" in said.headers else engine), address, client


def _connect(name: str, places: list[tuple[str, str]]) -> tuple[str, str, Any]:
    if name not in ("auto", "docker", "podman"):
        raise UsageError(f"There is no container engine {name}.", "Write docker, podman or auto.")
    why = []
    for engine, address in places:
        if not address.startswith("unix://"):
            remedy = (
                "Boxes share files and sockets with the engine: name a unix socket of this machine, or leave it out."
            )
            raise CrrlError(f"{address} is not a container engine on this machine.", remedy)
        if not Path(address.removeprefix("unix://")).exists():
            why.append(f"{address.removeprefix('unix://')} is not there")
            continue
        try:
            return _client(engine, address)
        except (DockerException, OSError) as error:
            denied = "Permission denied" in str(error)
            why.append(f"{address}: {'this user may not use it' if denied else error}")
    remedy = (
        f"Install and start one: apt-get install podman, then {START_PODMAN}; or Docker, with this user in its group."
    )
    raise CrrlError(f"No container engine answers ({'; '.join(why)}).", remedy)
