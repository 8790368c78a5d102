"""An sdist as it comes (`.tar.gz`, `.zip`), unpacked for as long as it is read."""

from __future__ import annotations

import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from crrl.errors import CrrlError

ARCHIVES = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".zip")


@contextmanager
def unpacked(repository: Path) -> Iterator[Path]:
    """The project's folder: the archive's only one; anything else as it is. Raises CrrlError."""
    if not (repository.is_file() and repository.name.endswith(ARCHIVES)):
        yield repository
        return
    with tempfile.TemporaryDirectory(prefix="crrl-sdist-") as folder:
        try:
            if repository.suffix == ".zip":
                with zipfile.ZipFile(repository) as archive:
                    archive.extractall(folder)
            else:
                with tarfile.open(repository) as archive:
                    _extract(archive, Path(folder))
        except (OSError, EOFError, tarfile.TarError, zipfile.BadZipFile, ValueError) as error:
            remedy = "Is the download complete? A folder that you have unpacked will do, too."
            raise CrrlError(f"{repository} cannot be unpacked ({error}).", remedy) from None
        inside = list(Path(folder).iterdir())
        yield inside[0] if len(inside) == 1 and inside[0].is_dir() else Path(folder)


def _extract(archive: tarfile.TarFile, folder: Path) -> None:
    """Raises OSError, TarError: it would write outside of the folder. Pythons before 3.10.12 and 3.11.4 cannot tell
    what is safe: there, links are left out."""
    if hasattr(tarfile, "data_filter"):
        archive.extractall(folder, filter="data")
        return
    for member in archive:
        if not (folder / member.name).resolve().is_relative_to(folder.resolve()):
            raise tarfile.TarError(f"{member.name!r} is outside of the folder")
        if member.isdir() or member.isfile():
            archive.extract(member, folder, set_attrs=False)


def name_of(repository: Path) -> str:
    """The project's, with the version that an sdist names."""
    name = repository.resolve().name
    return next((name.removesuffix(end) for end in ARCHIVES if name.endswith(end)), name)
