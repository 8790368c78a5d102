"""Checks what bubblewrap boxes need of the host, with remedies, for `crrl doctor` and every start."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from dataclasses import dataclass
from pathlib import Path

from crrl.errors import CrrlError
from crrl.sandbox.api import Mount

PYTHON = "/usr/bin/python3"
NOBODY = 65534
OUTSIDE = "below sandbox.state_dir, say"


@dataclass(frozen=True)
class Finding:
    """A reason why boxes do not work here. `remedy`: what to type or change."""

    problem: str
    remedy: str


def dropped_uid() -> int:
    """The uid that boxes run as: ours, but never root's."""
    return os.getuid() or NOBODY


def state_dirs(state_dir: Path) -> None:
    """Make `state_dir` and the (always empty) folder that boxes mount over. Raises CrrlError."""
    try:
        for path in (state_dir, state_dir / "mnt", state_dir / "workspaces"):
            if not path.is_dir():
                path.mkdir(parents=True, exist_ok=True)
                path.chmod(0o755)
    except OSError as error:
        raise CrrlError(
            f"sandbox.state_dir cannot be made: {error}", "Set sandbox.state_dir to a writable folder."
        ) from error


def require(state_dir: Path, uid: int) -> None:
    """The checks that cost nothing; the first box to start shows the rest. Raises CrrlError."""
    findings = [*_programs(), *_readable(state_dir, uid)]
    if findings:
        raise CrrlError(findings[0].problem, findings[0].remedy)


def check(state_dir: Path) -> list[Finding]:
    """All problems, found by trying each step in turn; empty if boxes work."""
    uid = dropped_uid()
    try:
        state_dirs(state_dir)
    except CrrlError as error:
        return [Finding(error.message, error.remedy)]
    return [*_programs(), *_readable(state_dir, uid)] or _namespaces(uid)


def _programs() -> list[Finding]:
    found = []
    for name, path in (("bubblewrap", shutil.which("bwrap")), ("git", shutil.which("git", path="/usr/bin"))):
        if path is None:
            remedy = f"Install it: sudo apt-get install {name} (dnf, pacman, zypper: the same name)"
            found.append(Finding(f"{name} is not installed.", remedy + "."))
    if not os.access(PYTHON, os.X_OK):
        found.append(Finding(f"Boxes need {PYTHON}.", "Install it: sudo apt-get install python3"))
    return found


def require_mount(mount: Mount, uid: int) -> None:
    """Raises CrrlError if a box could not show this mount."""
    if not mount.source.exists():
        raise CrrlError(f"The mount {mount.source} does not exist.", "Make it, or correct its path.")
    if not mount.target.startswith("/") or ".." in mount.target.split("/"):
        raise CrrlError(f"{mount.target} is not a place in a box.", "Write an absolute path, e.g. /opt/agent.")
    home = Path.home().resolve()
    if home != Path("/") and mount.source.resolve().is_relative_to(home):
        raise CrrlError(f"The mount {mount.source} lies under HOME ({home}).", f"Move it: {OUTSIDE}.")
    if (closed := _closed_to(mount.source, uid)) is not None:
        problem = f"The mount {mount.source}: uid {uid}, which boxes run as, cannot enter {closed}."
        raise CrrlError(problem, f"Move it ({OUTSIDE}), or: chmod -R o+rX {closed}")


def _readable(state_dir: Path, uid: int) -> list[Finding]:
    if (closed := _closed_to(state_dir, uid)) is None:
        return []
    problem = f"sandbox.state_dir {state_dir}: uid {uid}, which boxes run as, cannot enter {closed}."
    return [Finding(problem, f"Set sandbox.state_dir outside it, e.g. /var/tmp/crrl, or: chmod o+x {closed}")]


def _closed_to(path: Path, uid: int) -> Path | None:
    """The folder on the way to `path` that keeps `uid` out."""
    if os.getuid() != 0:
        return None
    for folder in (path, *path.resolve().parents):
        info = folder.stat()
        bit = stat.S_IXUSR if info.st_uid == uid else stat.S_IXGRP if info.st_gid == uid else stat.S_IXOTH
        if not info.st_mode & bit and stat.S_ISDIR(info.st_mode):
            return folder
    return None


def _namespaces(uid: int) -> list[Finding]:
    drop = ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups"] if os.getuid() == 0 else []
    if _works([*drop, "unshare", "-Urm", "true"]):
        overlay = "mount -t tmpfs t /mnt && cd /mnt && mkdir l u w m && "
        overlay += "mount -t overlay o m -o lowerdir=l,upperdir=u,workdir=w,userxattr"
        if not _works([*drop, "unshare", "-Urm", "sh", "-c", overlay]):
            problem = "This kernel does not allow overlay mounts in a user namespace."
            return [Finding(problem, "Use Linux 5.11 or newer with overlayfs (modprobe overlay).")]
        box = "bwrap --unshare-user --unshare-all --disable-userns --ro-bind / / --proc /proc --dev /dev true"
        if not _works([*drop, "unshare", "-Urm", *box.split()]):
            problem = "bubblewrap cannot start a nested box here (inside a container: /proc may be masked)."
            return [Finding(problem, "Install bubblewrap 0.8 or newer; in a container, allow a nested /proc.")]
        return []
    for key, bad, value in (
        ("kernel/apparmor_restrict_unprivileged_userns", "1", "0"),
        ("kernel/unprivileged_userns_clone", "0", "1"),
        ("user/max_user_namespaces", "0", "15000"),
    ):
        file = Path("/proc/sys") / key
        if file.exists() and file.read_text().strip() == bad:
            setting = f"{key.replace('/', '.')}={value}"
            why = " by AppArmor (Ubuntu 24.04's default)" if "apparmor" in key else ""
            remedy = f"sudo sysctl -w {setting} (for good: in /etc/sysctl.d/60-crrl.conf)."
            return [Finding(f"User namespaces are forbidden to unprivileged users{why}.", remedy)]
    return [Finding("User namespaces cannot be made here.", "Allow them (seccomp or container policy).")]


def _works(argv: list[str]) -> bool:
    try:
        return subprocess.run(argv, capture_output=True, timeout=20, check=False, cwd="/").returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False
