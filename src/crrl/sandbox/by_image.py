"""The sandbox of a run: tasks with an image run in a container of it, all others in the configured back end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from crrl.errors import CrrlError
from crrl.sandbox.api import Box, Sandbox, Spec, Workspace
from crrl.task import Source

if TYPE_CHECKING:
    from crrl.sandbox.containers.backend import ContainerSandbox


class ByImage:
    """Args:
    plain: the back end of tasks without an image.
    containers: makes the back end for images, at the first image. Raises CrrlError if there is none.
    """

    def __init__(self, plain: Sandbox, containers: Callable[[], ContainerSandbox]) -> None:
        self._plain, self._make = plain, containers
        self._containers: ContainerSandbox | None = None

    def require_images(self, names: Iterable[str]) -> None:
        """Raises CrrlError, with the remedy, if this machine cannot run one of these images."""
        for name in names:
            self._for_images(name).engine.image(name)

    async def prepare(self, source: object, paths: Sequence[str] = ()) -> Workspace:
        """See `Sandbox.prepare`. Raises CrrlError if this machine cannot run the image."""
        assert isinstance(source, Source)
        backend: Sandbox = self._for_images(source.image) if source.image is not None else self._plain
        return await backend.prepare(source, paths)

    async def start(self, spec: Spec) -> Box:
        image = spec.root.image if spec.root is not None else None
        return await (self._for_images(image.name) if image is not None else self._plain).start(spec)

    async def close(self) -> None:
        backends = [self._plain, *([self._containers] if self._containers is not None else [])]
        await asyncio.gather(*(backend.close() for backend in backends))

    def _for_images(self, name: str) -> ContainerSandbox:
        if self._containers is None:
            try:
                self._containers = self._make()
            except CrrlError as error:
                raise CrrlError(f"needs the image {name}: {error.message}", error.remedy) from error
        return self._containers
