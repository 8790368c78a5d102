"""Sandboxes: where an agent's commands run, and the patch taken from what they left.

    sandbox = make("bubblewrap", state_dir=Path("/var/tmp/crrl-0"))  # CrrlError with the remedy
    workspace = await sandbox.prepare(task.source)     # Workspace(lower, git_dir, base): cached by content
    box = await sandbox.start(Spec(root=workspace))    # raises LostError("sandbox_start", ...)
    result = await box.exec(["bash", "-c", "ls"], timeout_s=10, output_limit=4000)
    data = await box.read("stats.py"); await box.write("stats.py", data)
    patch = await box.patch()      # kills everything first; afterwards only close()
    await box.close(); await sandbox.close()

- `exec` never raises for what a command did. `result.reason`: exit | timeout | output | memory | disk |
  lost; `code` is None unless `exit` (a command killed by signal N, by itself or by `kill -9 -1`, exits with
  128+N; one not found with 127). Whatever a command left running in the background is killed when it ends.
  `lost` means that the box is gone.
- `read`, `write`, `patch` raise LostError("sandbox_died") where the box is gone.
- Between commands nothing of the agent's runs. /workspace is the repository, HOME is /home/agent, /tmp is
  writable.
- Tasks with an image run in a container of it, whatever `name` is; see `containers/`.
- `seccomp.build() -> bytes` is the system call filter (also used by the judge).
- `availability.check(state_dir) -> list[Finding]` says what is missing, for `crrl doctor`.

To add a back end: a class with `prepare`, `start` and `close` (`api.Sandbox`) in one file, made with `state_dir`, and
one line: in `SANDBOXES`, or in a distribution of your own (docs/plugins.md).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from crrl import registry
from crrl.sandbox.api import Sandbox

if TYPE_CHECKING:
    from crrl.sandbox.by_image import ByImage
    from crrl.sandbox.containers.backend import ContainerSandbox
    from crrl.sandbox.containers.images import Fetched

# Names, not classes: the launcher process imports this package and must stay small.
SANDBOXES = {
    "bubblewrap": "crrl.sandbox.bubblewrap:BubblewrapSandbox",
}


def default_state_dir() -> Path:
    """On a disk, not under HOME: root's is mode 0700 and boxes run as another uid."""
    return Path(f"/var/tmp/crrl-{os.getuid()}")


def make(
    name: str = "bubblewrap",
    *,
    state_dir: Path | None = None,
    images: str = "auto",
    cpus: float = 0.0,
) -> ByImage:
    """The back end called `name`, with the container engine `images` for tasks that have an image (`cpus` of each of
    their boxes; 0: all). Raises UsageError (unknown) or CrrlError (unusable here, with the remedy)."""
    state_dir = state_dir or default_state_dir()
    part = registry.find("crrl.sandboxes", name)
    plain: Sandbox = part.require(part.make(state_dir=state_dir), Sandbox)

    def containers() -> ContainerSandbox:
        from crrl.sandbox.containers.backend import ContainerSandbox

        return ContainerSandbox(images, state_dir=state_dir, cpus=cpus)

    from crrl.sandbox.by_image import ByImage

    return ByImage(plain, containers)


def fetch_images(
    names: Sequence[str],
    *,
    engine: str = "auto",
    state_dir: Path | None = None,
    max_bytes: int | None = None,
    progress: Callable[[str, int, int], object] = lambda name, here, all: None,
) -> Iterator[Fetched]:
    """Pull images ahead, each once; what does not fit into `max_bytes` is given up, the least recently used first.
    `progress`: name, bytes here, bytes in all. Raises CrrlError, with the remedy."""
    from crrl.sandbox.containers.backend import make_engine
    from crrl.sandbox.containers.images import Images

    state_dir = state_dir or default_state_dir()
    state_dir.mkdir(parents=True, exist_ok=True)
    return Images(state_dir).fetch(names, make_engine(engine, state_dir), max_bytes, progress)
