"""A repository's environment, for tasks without an image: built once, cached by content, mounted read-only in every
box.

`Task.setup` builds it: commands that run in a checkout of the task at /workspace, with network if that is allowed, and
leave what tests need in /environment: a virtual environment for Python (`pip` installs into it), jars in
`lib/` (they are on the class path), programs in `bin/`. Of the files that set-up writes into the checkout, we
keep only new Python files (a version, a parser), as a diff (`with_generated`). Episodes and judged runs see the
environment offline, and
cannot write to it.

The cache key covers everything that the result depends on: the commands, the tree's requirement files, the interpreter.
So tasks of one repository share one environment. It is built in a separate folder and then renamed: a killed build is
never used. Invariant 5: we refuse an environment that holds a copy of the project itself, since the copy may be of a
later, repaired tree (`pip install -e .` copies nothing, `pip install .` does).
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import tempfile
import textwrap
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import uv

from crrl.errors import CrrlError
from crrl.sandbox import in_use
from crrl.sandbox.api import Mount, Workspace
from crrl.sandbox.availability import dropped_uid
from crrl.task import Command, Source, Task
from crrl.tasks.setup import interpreters

PLACE = "/environment"
SYSTEM_PATH = "/usr/local/bin:/usr/bin:/bin"
REQUIREMENTS = re.compile(
    r"^([^/]*requirements[^/]*\.(txt|in)|requirements/[^/]*|constraints[^/]*\.txt|pyproject\.toml|setup\.(py|cfg)"
    r"|Pipfile(\.lock)?|poetry\.lock|pom\.xml|[^/]*\.gradle(\.kts)?|package(-lock)?\.json|go\.(mod|sum)|Cargo\.(toml|lock))$"
)
PASSED = (  # passed from our own environment: package sources
    *(
        "UV_INDEX",
        "UV_DEFAULT_INDEX",
        "UV_EXTRA_INDEX",
        "UV_FIND_LINKS",
        "UV_INSECURE_HOST",
        "UV_HTTP",
        "UV_NATIVE_TLS",
    ),
    *("GOPROXY", "GOPRIVATE", "GONOSUMDB", "GOSUMDB", "NPM_CONFIG_", "npm_config_"),
    *("PIP_", "SSL_CERT_", "REQUESTS_CA_", "CURL_CA_"),
    *("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"),
)
PIP_AS_UV = {  # settings of pip that uv calls something else
    "PIP_INDEX_URL": "UV_DEFAULT_INDEX",
    "PIP_EXTRA_INDEX_URL": "UV_INDEX",
    "PIP_FIND_LINKS": "UV_FIND_LINKS",
    "PIP_CERT": "SSL_CERT_FILE",
}
BOX = shlex.split("""
--unshare-user --uid 1000 --gid 1000 --unshare-pid --unshare-ipc --unshare-uts --hostname setup --new-session
--die-with-parent --cap-drop ALL --ro-bind /usr /usr --ro-bind /etc /etc --ro-bind-try /opt /opt
--ro-bind-try /run/systemd/resolve /run/systemd/resolve
--symlink usr/bin /bin --symlink usr/lib /lib --symlink usr/lib64 /lib64 --symlink usr/sbin /sbin
--proc /proc --dev /dev --tmpfs /tmp --clearenv
""")
COMMIT = "git -c user.name=crrl -c user.email=crrl commit -qm setup --allow-empty"
RELEASE = Command(["sh", "-c", f"git init -q && git add -A && {COMMIT} && git tag v99.0"])
"""A project that asks git for its version (setuptools-scm) has one. A variable would give it to all that is built."""
GENERATED = "generated.diff"
GO_MODULES = "go-modules"
PYTHON_FILES = "':(glob)**/*.py' ':(exclude,glob)**/build/**' ':(exclude,glob)**/.eggs/**'"
KEEP = f"git ls-files -oz -- {PYTHON_FILES} | xargs -0r git add -f -- && git diff --cached HEAD > {PLACE}/{GENERATED}"
SAME_BYTES = 200  # files this small (an empty __init__.py) are equal by chance


def pip(*arguments: str) -> list[Command]:
    """The set-up of a Python task that needs packages: `pip("-r", "requirements.txt")`, `pip("numpy==1.26.4")`.

    Never the project itself, unless with `-e`. uv installs: for interpreters that pip no longer runs on, too."""
    return [Command(["uv", "pip", "install", "--quiet", *arguments], timeout_s=1800.0)]


@dataclass(frozen=True)
class Environment:
    """A built one. `path` is the folder on this machine that boxes see at `PLACE`."""

    path: Path

    @property
    def mount(self) -> Mount:
        return Mount(self.path, PLACE)

    @property
    def mounts(self) -> tuple[Mount, ...]:
        """All of it; npm packages, too, where Node looks for them from /workspace."""
        modules = self.path / "node_modules"
        return (self.mount, *([Mount(modules, "/node_modules")] if modules.is_dir() else []))

    @property
    def variables(self) -> dict[str, str]:
        """Of every command that runs with it."""
        found = {"PATH": f"{PLACE}/bin:{SYSTEM_PATH}"}
        if (self.path / "node_modules/.bin").is_dir():
            found["PATH"] = f"/node_modules/.bin:{found['PATH']}"
        if (self.path / GO_MODULES).is_dir():
            found["GOMODCACHE"] = f"{PLACE}/{GO_MODULES}"
        if (self.path / "pyvenv.cfg").exists():
            found["VIRTUAL_ENV"] = PLACE
        if any((self.path / "lib").glob("*.jar")):
            found["CLASSPATH"] = f"{PLACE}/lib/*"
        return found

    @property
    def sites(self) -> list[str]:
        """Its site-packages, as boxes see them."""
        return [f"{PLACE}/{place.relative_to(self.path)}" for place in self.path.glob("lib/python3*/site-packages")]


def with_generated(task: Task, environment: Environment | None) -> Task:
    """The task with the Python files in its repository that its set-up has generated."""
    if environment is None or not (diff := (environment.path / GENERATED).read_text("utf-8", "replace")):
        return task
    return replace(task, source=replace(task.source, patches=[*task.source.patches, diff]))


class Environments:
    """Finds or builds the environments of tasks, below `state_dir/environments`.

    Args:
        prepare: makes the checkout of a source (`Sandbox.prepare`).
        network: whether set-up may use it.
    """

    def __init__(
        self, state_dir: Path, prepare: Callable[[Source], Awaitable[Workspace]], *, network: bool = True
    ) -> None:
        self.state_dir, self.network = Path(state_dir), network
        self._prepare = prepare
        self._known: dict[str, asyncio.Task[Environment]] = {}

    async def of(self, task: Task) -> Environment | None:
        """The task's environment; None where it has no set-up. Raises CrrlError where it cannot be built here."""
        if not task.setup:
            return None
        tree = (await self._prepare(task.source)).lower
        key = await asyncio.to_thread(_key, task, tree, self.state_dir)
        building = self._known.get(key)
        if building is None or (building.done() and not building.result().path.is_dir()):
            building = self._known[key] = asyncio.create_task(self._find(key, task, tree))
            building.add_done_callback(lambda done: self._forget_failed(key, done))
        return await asyncio.shield(building)

    def _forget_failed(self, key: str, done: asyncio.Task[Environment]) -> None:
        """All who wait for a build that failed get its error; who asks afterwards, another try."""
        if (done.cancelled() or done.exception() is not None) and self._known.get(key) is done:
            del self._known[key]

    async def _find(self, key: str, task: Task, tree: Path) -> Environment:
        root = self.state_dir / "environments"
        root.mkdir(parents=True, exist_ok=True)
        made = Environment(root / key)
        if await asyncio.to_thread(in_use.use, made.path, self.state_dir):
            return made
        with (root / f"{key}.lock").open("w") as lock:
            await asyncio.to_thread(fcntl.flock, lock, fcntl.LOCK_EX)  # the kernel frees it, however its owner ends
            while not await asyncio.to_thread(in_use.use, made.path, self.state_dir):
                for rest in root.glob(f"{key}.new-*"):
                    shutil.rmtree(rest, ignore_errors=True)
                folder = Path(tempfile.mkdtemp(dir=root, prefix=f"{key}.new-"))
                try:
                    await self._build(task, tree, folder)
                    os.rename(folder / "environment", made.path)
                finally:
                    shutil.rmtree(folder, ignore_errors=True)
        return made

    async def _build(self, task: Task, tree: Path, folder: Path) -> None:
        environment, checkout = folder / "environment", folder / "workspace"
        await asyncio.to_thread(shutil.copytree, tree, checkout, symlinks=True)
        environment.mkdir()
        await asyncio.to_thread(_hand_over, folder)
        if task.language == "python":
            interpreter = str(interpreters.wanted(task.test.needs, self.state_dir))
            await self._run(Command([interpreter, "-m", "venv", "--without-pip", PLACE]), folder, task)
        for command in (RELEASE, *task.setup, Command(["sh", "-c", KEEP])):
            await self._run(command, folder, task)
        if copy := await asyncio.to_thread(_copied, tree, environment):
            raise CrrlError(
                f"The set-up copied the project itself ({copy}) into the environment: tests would run the copy, and it "
                "may be of a repaired tree.",
                "Install it editable: pip install -e .",
            )

    async def _run(self, command: Command, folder: Path, task: Task) -> None:
        """Raises CrrlError with the end of what it printed."""
        tools = await asyncio.to_thread(_tools, self.state_dir)
        shown = ["--bind", str(folder / "environment"), PLACE, "--bind", str(folder / "workspace"), "/workspace"]
        shown += ["--ro-bind", str(tools), "/tools", *([] if self.network else ["--unshare-net"])]
        for place in interpreters.folders(task.test.needs, self.state_dir):
            shown += ["--ro-bind", str(place), str(place)]
        given = {name: value for name, value in os.environ.items() if name.startswith(PASSED)}
        env = {PIP_AS_UV[name]: value for name, value in given.items() if name in PIP_AS_UV} | given
        env |= {"PATH": f"{PLACE}/bin:/tools/bin:{SYSTEM_PATH}", "HOME": "/tmp", "LANG": "C.UTF-8"}
        env |= {"VIRTUAL_ENV": PLACE, **command.env}
        settings = [word for name, value in env.items() for word in ("--setenv", name, value)]
        argv = ["bwrap", *BOX, *shown, *settings, "--chdir", os.path.join("/workspace", command.cwd), *command.argv]
        dropped: dict[str, Any] = {"user": dropped_uid(), "group": dropped_uid(), "extra_groups": []}
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            cwd="/",
            env={"PATH": "/usr/bin:/bin"},
            **(dropped if os.getuid() == 0 else {}),
        )
        said = b""
        try:
            async with asyncio.timeout(command.timeout_s):
                said, _ = await process.communicate()
            reason = f"exit code {process.returncode}"
        except TimeoutError:
            reason = f"no end after {command.timeout_s:.0f} s"
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if process.returncode != 0:
            end = said.decode("utf-8", "replace").strip()[-1500:]
            said_as = textwrap.shorten(shlex.join(command.argv), 200, placeholder=" [...]")
            raise CrrlError(
                f"Set-up failed ({reason}): {said_as}\n{end}",
                "It runs once, with network unless network=no, and then from the cache. Is a package missing, or the "
                "network?",
            )


def _key(task: Task, tree: Path, state_dir: Path) -> str:
    digest = hashlib.sha256(f"{_versions(task, state_dir)}\0{task.language}\0".encode())
    for command in task.setup:
        digest.update(repr((command.argv, command.cwd, sorted(command.env.items()))).encode())
    for file in sorted([*tree.glob("*"), *tree.glob("requirements/*")]):
        name = str(file.relative_to(tree))
        if REQUIREMENTS.match(name) and file.is_file() and not file.is_symlink():
            digest.update(f"\0{name}\0".encode() + file.read_bytes())
    return digest.hexdigest()[:32]


def _versions(task: Task, state_dir: Path) -> str:
    programs = [(str(interpreters.wanted(task.test.needs, state_dir)), "-VV")]
    return "\n".join(map(_said, [*programs, ("java", "-version")] if task.language == "java" else programs))


@cache
def _said(argv: tuple[str, ...]) -> str:
    try:
        done = subprocess.run(argv, capture_output=True, check=False)
    except FileNotFoundError:
        return ""
    return (done.stdout + done.stderr).decode()


def _hand_over(folder: Path) -> None:
    """To the uid that set-up and boxes run as."""
    os.chmod(folder, 0o755)
    if os.getuid() == 0:
        uid = dropped_uid()
        for here, folders, names in os.walk(folder):
            for name in (*folders, *names):
                os.chown(os.path.join(here, name), uid, uid, follow_symlinks=False)


def _tools(state_dir: Path) -> Path:
    """uv, which also answers to `pip`."""
    return tool(state_dir, "uv", {"bin/pip": '#!/bin/sh\nexec uv pip "$@"\n'}, programs=[Path(uv.find_uv_bin())])


def tool(state_dir: Path, package: str, files: dict[str, str], programs: Sequence[Path] = ()) -> Path:
    """A folder with a package of ours, `files`, and `programs` in bin/, made once, readable by boxes."""
    spec = importlib.util.find_spec(package)
    assert spec is not None and spec.submodule_search_locations
    source = Path(spec.submodule_search_locations[0])
    version = hashlib.sha256(
        f"{source}\0{(source / '__init__.py').stat().st_mtime_ns}\0{sorted(files.items())}".encode()
    )
    made = state_dir / "tools" / f"{package}-{version.hexdigest()[:16]}"
    if not made.is_dir():
        made.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=made.parent) as partial:
            folder = Path(partial) / "made"
            shutil.copytree(source, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
            for name, text in files.items():
                (folder / name).parent.mkdir(exist_ok=True)
                (folder / name).write_text(text)
            for program in programs:
                shutil.copy(program, folder / "bin")
            for here, _, names in os.walk(folder):
                os.chmod(here, 0o755)
                for name in names:
                    os.chmod(os.path.join(here, name), 0o755 if here.endswith("/bin") else 0o644)
            with contextlib.suppress(OSError):  # another process was first
                os.rename(folder, made)
    return made


def _copied(tree: Path, environment: Path) -> str | None:
    """A source file of the tree that is in the environment, too, under the same package: a file that the project took
    over from elsewhere (six.py) is none."""
    own = {(digest, *_place(path.relative_to(tree))): path for path, digest in _contents(_sources(tree))}
    for path, digest in _contents(environment.rglob("*.py")):
        for place in (_place(path), path.parts[-1:]):
            if (digest, *place) in own:
                return str(own[(digest, *place)].relative_to(tree))
    return None


def _place(path: Path) -> tuple[str, ...]:
    """Folder and name; of a file at the top, its name."""
    return path.parts[-2:]


def _sources(tree: Path) -> Iterator[Path]:
    for path in tree.rglob("*.py"):
        parts = path.relative_to(tree).parts
        if not {"_vendor", "vendor", "third_party"} & set(parts) and parts[-1] not in ("setup.py", "conftest.py"):
            yield path


def _contents(paths: Iterable[Path]) -> Iterator[tuple[Path, str]]:
    for path in paths:
        if path.is_file() and not path.is_symlink() and path.stat().st_size > SAME_BYTES:
            yield path, hashlib.sha256(path.read_bytes()).hexdigest()
