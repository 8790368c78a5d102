"""Containers: what bubblewrap boxes do, in a container of an image; and nothing of them is left, however it ends.

`make test-containers`; without an engine each is skipped, with the reason.
"""

# ruff: noqa: ASYNC221 (blocking calls are fine in tests)
from __future__ import annotations

import asyncio
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import docker
import pytest
from box_kit import SMALL
from container_kit import BUGGY, FIXED, IMAGE, WORKER_IMAGE, drop_image, engine_or_skip, history, image_task, put_image
from host_processes import processes

from crrl.errors import CrrlError
from crrl.sandbox.api import Mount, Spec, Workspace
from crrl.sandbox.containers.backend import ContainerSandbox
from crrl.sandbox.containers.box import ContainerBox
from crrl.sandbox.containers.engine import OWNER, ContainerEngine
from crrl.task import Source
from crrl.tasks.diffs import between

pytestmark = [pytest.mark.containers, pytest.mark.timeout(600)]


@pytest.fixture(scope="module", params=["podman", "docker"])
def engine(request: pytest.FixtureRequest) -> Iterator[ContainerEngine]:
    engine = engine_or_skip(request.param)
    put_image(engine)
    put_image(engine, WORKER_IMAGE, user="worker")
    yield engine
    for name in (IMAGE, WORKER_IMAGE):
        drop_image(engine, name)


@pytest.fixture
async def sandbox(engine: ContainerEngine, state_dir: Path) -> AsyncIterator[ContainerSandbox]:
    sandbox = ContainerSandbox(engine.name, state_dir=state_dir)
    yield sandbox
    await sandbox.close()
    assert containers(engine) == []


@pytest.fixture
async def workspace(sandbox: ContainerSandbox) -> Workspace:
    return await sandbox.prepare(image_task().source)


@pytest.fixture
async def box(sandbox: ContainerSandbox, workspace: Workspace) -> AsyncIterator[ContainerBox]:
    box = await sandbox.start(Spec(workspace, limits=SMALL))
    yield box
    await box.close()


def containers(engine: ContainerEngine) -> list[str]:
    """All of ours that the engine knows of, volumes included."""
    client = docker.APIClient(base_url=engine.address, version="1.41")
    found = [f"container {each['Id']}" for each in client.containers(all=True, filters={"label": OWNER})]
    volumes = [f"volume {each['Name']}" for each in client.volumes()["Volumes"] or []]
    client.close()
    return found + volumes


async def sh(box: ContainerBox, line: str, **options):
    return await box.exec(["bash", "-c", line], **{"timeout_s": 20, **options})


async def test_a_command_runs_in_the_image(box: ContainerBox) -> None:
    result = await sh(
        box, "pwd; echo $HOME $OF_THE_IMAGE $X; id -u; cat /workspace/calc.py; exit 3", env={"X": "given"}
    )
    assert (result.reason, result.code) == ("exit", 3)
    assert result.output == f"/testbed\n/root yes given\n0\n{BUGGY}"
    assert (await box.exec(["no-such-program"])).code == 127
    assert (await sh(box, "kill -9 $$")).code == 137


async def test_reads_and_writes(box: ContainerBox) -> None:
    await box.write("new/a.txt", b"\0" * 300_000)
    assert await box.read("new/a.txt") == b"\0" * 300_000 and (await box.read("calc.py")).decode() == BUGGY
    with pytest.raises(FileNotFoundError):
        await box.read("none")
    with pytest.raises(ValueError):
        await box.read("/etc/passwd")


async def test_a_timeout_kills_the_whole_tree_and_keeps_the_output(box: ContainerBox) -> None:
    word = f"{8000 + os.getpid() % 1000}.5"
    result = await sh(box, f"echo before; setsid sleep {word} & sleep {word}", timeout_s=1)
    assert (result.reason, result.code, result.output) == ("timeout", None, "before\n")
    assert processes(f"sleep {word}") == []
    assert (await sh(box, f"setsid sleep {word} >/dev/null 2>&1 &")).code == 0  # what is left in the background, too
    assert processes(f"sleep {word}") == []


async def test_limits(box: ContainerBox) -> None:
    hog = "b = []\nwhile True: b.append(b'x' * (4 << 20))"
    many = f'for i in 1 2 3; do python3 -c "{hog}" & done; wait'
    assert (await box.exec(["python3", "-c", hog], timeout_s=20)).reason in ("exit", "memory")
    assert (await sh(box, many)).reason == "memory"
    assert (await sh(box, "yes", output_limit=1000)).reason == "output"
    result = await sh(box, "i=0; while :; do sleep 30 & i=$((i+1)); [ $i -gt 400 ] && break; done; echo never")
    assert "retry" in result.output or "Resource temporarily unavailable" in result.output
    full = await sh(box, "cat /dev/zero > big")
    assert full.reason == "disk" and (await sh(box, "rm big; echo ok")).output == "ok\n"
    assert (await sh(box, "for i in $(python3 -c 'print(*range(3000))'); do : > f$i || exit 1; done")).reason == "disk"


async def test_no_network_and_no_power(box: ContainerBox) -> None:
    """No device but loopback; no mounts, namespaces, raw sockets, devices; PID 1 is out of reach."""
    probe = """
import ctypes, os, socket
print(sorted(name for _, name in socket.if_nameindex()))
libc = ctypes.CDLL(None, use_errno=True)
print(libc.unshare(0x10000000), libc.mount(b"none", b"/tmp", b"tmpfs", 0, None), libc.chroot(b"/tmp"))
def attempt(act):
    try:
        act()
        return "done"
    except OSError as error:
        return type(error).__name__
print(attempt(lambda: socket.create_connection(("192.0.2.1", 80), 2)))
print(attempt(lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)))
print(attempt(lambda: os.mknod("/tmp/sda", 0o60600, os.makedev(8, 0))))
print(attempt(lambda: os.kill(1, 9)), attempt(lambda: os.readlink("/proc/1/fd/0")), os.listdir("/.crrl"))
print(attempt(lambda: open("/proc/1/mem", "rb+")), attempt(lambda: open("/proc/1/environ").read()))
print([line.split()[1] for line in open("/proc/self/status") if line.startswith(("CapEff", "CapBnd", "NoNewPrivs"))])
"""
    lines = (await box.exec(["python3", "-c", probe])).output.splitlines()
    assert lines[0] == "['lo']" and lines[1] == "-1 -1 -1"
    assert lines[2:5] == ["OSError", "PermissionError", "PermissionError"]
    assert lines[5] == "done PermissionError []"
    assert lines[6] == "PermissionError PermissionError"
    assert lines[7] == "['00000000000000fb', '00000000000000fb', '1']"
    assert (await sh(box, "echo still here")).output == "still here\n"


async def test_the_future_is_hidden(sandbox: ContainerSandbox, workspace: Workspace, box: ContainerBox) -> None:
    """The image's own history, and a mirror of it elsewhere in the image, hold the repair (invariant 5)."""
    _, base, fix = history()
    assert workspace.image is not None and workspace.image.hide == ("/opt/mirror.git",)
    result = await sh(box, f"git log --all --oneline; git show {fix}; git show {base}; ls /opt; git status -s")
    assert result.output.splitlines()[0].endswith(" base") and result.output.count("fatal: bad object") == 2
    assert "mirror" not in result.output and "?? " not in result.output
    bare = replace(workspace.image, layer=workspace.lower.parent, hide=())  # without the layer: it is found
    assert set(await sandbox._find(bare, [fix])) == {"/testbed/.git", "/opt/mirror.git"}


async def test_the_patch(box: ContainerBox, workspace: Workspace, tmp_path: Path) -> None:
    """Committed, untracked, deleted, renamed, linked and binary; builds that the base ignores are not in it; what an
    agent does to .gitignore hides nothing."""
    script = """
    sed -i 's/a - b/a + b/' calc.py && git add -A && git commit -qm mine
    rm link.py && ln -s /etc/passwd link.py
    mkdir -p pkg/deep build && echo 1 > pkg/deep/new.txt && echo o > build/new.o
    printf '\\000\\001' > blob && mv runner.py moved.py && chmod +x moved.py
    echo 'hidden.txt' >> .gitignore && echo 2 > hidden.txt
    git config core.fsmonitor 'touch /tmp/ran'
    """
    assert (await sh(box, script)).code == 0
    patch = await box.patch()
    assert (await box.exec(["true"])).reason == "lost"  # nothing runs afterwards
    tree = tmp_path / "tree"
    subprocess.run(["cp", "-r", workspace.lower, tree], check=True)
    subprocess.run(["git", "apply", "-"], cwd=tree, input=patch.encode(), check=True)
    assert (tree / "calc.py").read_text() == FIXED and (tree / "pkg/deep/new.txt").read_text() == "1\n"
    assert os.readlink(tree / "link.py") == "/etc/passwd" and (tree / "blob").read_bytes() == b"\0\1"
    assert os.access(tree / "moved.py", os.X_OK) and not (tree / "runner.py").exists()
    assert (tree / "hidden.txt").exists() and "build/" not in patch.replace(" build/", "")


async def test_an_untouched_repository_gives_no_patch(box: ContainerBox) -> None:
    await sh(box, "python3 runner.py; git status")
    assert await box.patch() == ""


async def test_a_source_s_patches_are_on_the_image_s_tree(sandbox: ContainerSandbox) -> None:
    """As SWE-smith has its bugs: a patch on top of the image."""
    source = replace(image_task().source, patches=[between("calc.py", BUGGY, FIXED), between("new.py", None, "x\n")])
    box = await sandbox.start(Spec(await sandbox.prepare(source), limits=SMALL))
    assert (await sh(box, "cat calc.py new.py; git status -s")).output == f"{FIXED}x\n"
    assert await box.patch() == ""
    await box.close()


async def test_an_image_s_own_user_is_kept(sandbox: ContainerSandbox) -> None:
    source = replace(image_task().source, image=WORKER_IMAGE, patches=[between("own.py", None, "x\n")])
    box = await sandbox.start(Spec(await sandbox.prepare(source), limits=SMALL))
    result = await sh(
        box, "id -u; echo $HOME; echo 1 > /tmp/a && echo ok; echo 2 > /etc/passwd; echo x >> own.py && echo mine"
    )
    assert result.output.splitlines()[:3] == ["1234", "/home/worker", "ok"] and "ermission denied" in result.output
    assert result.output.endswith("mine\n")
    assert "+x\n" in await box.patch()
    await box.close()


async def test_mounts_and_gateway(
    sandbox: ContainerSandbox, workspace: Workspace, tmp_path: Path, state_dir: Path
) -> None:
    shown = state_dir / "shown"
    shown.mkdir(exist_ok=True)
    (shown / "tool").write_text("a tool")
    door = tmp_path / "door"

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello " + await reader.readline())
        writer.close()

    server = await asyncio.start_unix_server(answer, door)
    mounts = (Mount(shown, "/opt/shown"),)
    box = await sandbox.start(Spec(workspace, mounts, SMALL, gateway_socket=door, env={"OF_THE_BOX": "1"}))
    call = "import socket; s = socket.create_connection(('localhost', 8000)); s.sendall(b'box\\n'); print(s.recv(99))"
    result = await sh(box, f'cat /opt/shown/tool; echo; echo $OF_THE_BOX; : > /opt/shown/x; python3 -c "{call}"')
    assert (
        result.output.startswith("a tool\n1\n") and "Read-only" in result.output and "b'hello box\\n'" in result.output
    )
    await box.close()
    server.close()


async def test_a_cancelled_command_is_ended_and_the_box_goes_on(box: ContainerBox) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.5):
            await sh(box, "echo a; sleep 100", timeout_s=100)
    assert (await sh(box, "echo b")).output == "b\n"


async def test_an_image_that_is_not_here_is_said_with_the_remedy(sandbox: ContainerSandbox) -> None:
    with pytest.raises(CrrlError, match="needs the image no/such:one") as caught:
        await sandbox.prepare(Source(image="no/such:one", workdir="/testbed"))
    assert "crrl tasks fetch" in caught.value.remedy
    with pytest.raises(CrrlError, match="has no /nowhere"):
        await sandbox.prepare(Source(image=IMAGE, workdir="/nowhere"))


async def test_32_at_once_and_none_left(
    engine: ContainerEngine, sandbox: ContainerSandbox, workspace: Workspace
) -> None:
    boxes = await asyncio.gather(*(sandbox.start(Spec(workspace, limits=SMALL)) for _ in range(32)))
    assert sum(line.startswith("container") for line in containers(engine)) == 32
    results = await asyncio.gather(*(sh(box, f"echo {n}", timeout_s=60) for n, box in enumerate(boxes)))
    assert [result.output for result in results] == [f"{n}\n" for n in range(32)]
    await asyncio.gather(*(box.close() for box in boxes))
    assert containers(engine) == []


async def test_what_it_costs(engine: ContainerEngine, sandbox: ContainerSandbox, workspace: Workspace) -> None:
    """Prints what `docs/performance.md` has: make test-containers ARGS='-k costs -s'."""
    took: dict[str, list[float]] = {}

    @contextmanager
    def timed(name: str) -> Iterator[None]:
        started = time.monotonic()
        yield
        took.setdefault(name, []).append(time.monotonic() - started)

    for _ in range(5):
        with timed("start"):
            box = await sandbox.start(Spec(workspace, limits=SMALL))
        for _ in range(10):
            with timed("exec"):
                assert (await box.exec(["true"])).code == 0
        await box.write("calc.py", FIXED.encode())
        with timed("patch"):
            assert "a + b" in await box.patch()
        with timed("close"):
            await box.close()
    with timed("32 at once"):
        boxes = await asyncio.gather(*(sandbox.start(Spec(workspace, limits=SMALL)) for _ in range(32)))
    with timed("32 closed"):
        await asyncio.gather(*(box.close() for box in boxes))
    print(f"\n{engine.name}:", ", ".join(f"{name} {1000 * statistics.median(t):.0f} ms" for name, t in took.items()))
    assert containers(engine) == []


OWNER_CODE = """
import asyncio, sys
from pathlib import Path
from crrl.sandbox.api import Spec
from crrl.sandbox.containers.backend import ContainerSandbox
from crrl.task import Source
async def main():
    engine, state_dir, image, base, word, count = sys.argv[1:]
    sandbox = ContainerSandbox(engine, state_dir=Path(state_dir))
    root = await sandbox.prepare(Source(image=image, workdir="/testbed", base_commit=base))
    async def one():
        box = await sandbox.start(Spec(root))
        print("up", flush=True)
        await box.exec(["bash", "-c", f"echo > f; setsid sleep {word} & sleep {word}"], timeout_s=300)
    await asyncio.gather(*(one() for _ in range(int(count))))
asyncio.run(main())
"""


@pytest.mark.parametrize("up", [0, 3, 32])
def test_kill_9_of_the_owner_leaves_nothing(
    engine: ContainerEngine, state_dir: Path, workspace: Workspace, up: int
) -> None:
    """While all run (3, 32), and in the middle of starting them (0)."""
    word = f"{9000 + os.getpid() % 1000}.{up}"
    arguments = [engine.name, str(state_dir), IMAGE, history()[1], word, str(up or 8)]
    doors = set(state_dir.glob("doors-*"))
    owner = subprocess.Popen([sys.executable, "-c", OWNER_CODE, *arguments], stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    for _ in range(up or 1):
        assert owner.stdout.readline() == "up\n"
    deadline = time.monotonic() + 60
    while up and len(processes(f"sleep {word}")) < 3 * up and time.monotonic() < deadline:
        time.sleep(0.05)
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    deadline = time.monotonic() + 180
    while (left := containers(engine)) or processes(f"sleep {word}") or processes(f":{owner.pid}:"):
        assert time.monotonic() < deadline, left
        time.sleep(0.2)
    assert set(state_dir.glob("doors-*")) == doors  # those of this test's own sandbox


def test_what_a_dead_owner_left_is_swept_at_the_next_start(engine: ContainerEngine) -> None:
    client = docker.APIClient(base_url=engine.address, version="1.41")
    labels = {OWNER: engine.labels[OWNER].rpartition(":")[0] + ":1.00"}  # this pid, but another start
    client.create_container(IMAGE, command=["true"], labels=labels)
    assert engine.left() == 1 and engine.sweep() == 1 and engine.left() == 0
    client.close()
    assert containers(engine) == []
