"""Sandboxes: run an agent's commands in isolation, and take the patch of its changes.

    sandbox = make("bubblewrap", state_dir=Path("/var/tmp/crrl-0"))  # CrrlError with the remedy
    workspace = await sandbox.prepare(task.source)     # Workspace(lower, git_dir, base): cached by content
    box = await sandbox.start(Spec(root=workspace))    # raises LostError("sandbox_start", ...)
    result = await box.exec(["bash", "-c", "ls"], timeout_s=10, output_limit=4000)
    data = await box.read("stats.py"); await box.write("stats.py", data)
    patch = await box.patch()      # kills everything first; afterwards only close()
    await box.close(); await sandbox.close()

- `exec` never raises because of what a command does. `result.reason`: exit | timeout | output | memory | disk | lost;
  `code` is None unless the reason is `exit` (128+N for a command killed by signal N, even by its own `kill -9 -1`; 127
  for one not found). When a command ends, everything it left running is killed. `lost`: the box is gone.
- `read`, `write` and `patch` raise LostError("sandbox_died") if the box is gone.
- Between commands, no process of the agent runs. /workspace is the repository, HOME is /home/agent, /tmp is writable.
- A task with an image runs in a container of it, whatever `name` is; see `containers/`.
- `seccomp.build() -> bytes` is the system call filter (the judge uses it too).
- `availability.check(state_dir) -> list[Finding]` finds what is missing, for `crrl doctor`.

To add a back end, write a class with `prepare`, `start` and `close` (`api.Sandbox`) that takes `state_dir`, and
register it with one line: in `SANDBOXES`, or in a distribution of your own (docs/plugins.md).
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
    """Pull images in advance, each once. Beyond `max_bytes`, the least recently used are removed. `progress`: called
    with name, bytes so far, total bytes. Raises CrrlError, with the remedy."""
    from crrl.sandbox.containers.backend import make_engine
    from crrl.sandbox.containers.images import Images

    state_dir = state_dir or default_state_dir()
    state_dir.mkdir(parents=True, exist_ok=True)
    return Images(state_dir).fetch(names, make_engine(engine, state_dir), max_bytes, progress)
