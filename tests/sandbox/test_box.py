"""The protocol: what commands give back, reads and writes, cancelling, many boxes at once."""

from __future__ import annotations

import asyncio
import time

import pytest

from crrl.errors import LostError
from crrl.sandbox.api import Spec, Workspace
from crrl.sandbox.bubblewrap import BubblewrapBox


async def sh(box: BubblewrapBox, command: str, **options):
    return await box.exec(["bash", "-c", command], **options)


async def test_exit_code_merged_output_cwd_and_environment(box):
    result = await sh(box, "echo out; echo err >&2; pwd; echo $MINE $HOME; exit 3", cwd="tests", env={"MINE": "é"})
    assert (result.code, result.reason) == (3, "exit")
    assert result.output == "out\nerr\n/workspace/tests\né /home/agent\n"
    assert 0 < result.cpu_s <= 2 and 0 < result.wall_s < 10


async def test_names_that_programs_look_up(box):
    code = "import grp, os, pwd, socket; print(socket.gethostbyname('localhost'), socket.gethostbyname('box'))\n"
    code += "print(pwd.getpwuid(os.getuid()).pw_name, grp.getgrgid(os.getgid()).gr_name)"
    assert (await box.exec(["python3", "-c", code])).output == "127.0.0.1 127.0.0.1\nagent agent\n"


async def test_missing_program_missing_folder_and_signals_are_exit_codes(box):
    assert (await box.exec(["no-such-program"])).code == 127
    assert (await box.exec(["true"], cwd="nowhere")).code == 127
    assert (await box.exec(["/workspace/stats.py"])).code == 126
    assert (await sh(box, "kill -9 $$")).code == 137


async def test_the_agent_sees_one_commit_and_a_clean_tree(box):
    result = await sh(box, "git log --oneline --all | wc -l; git status --porcelain; git reflog | wc -l")
    assert result.output == "1\n0\n"
    committed = await sh(box, "echo x >> README.md && git commit -qam change && git log --oneline | wc -l")
    assert committed.output == "2\n"


async def test_output_keeps_head_and_tail(box):
    result = await sh(box, "echo start; seq 20000; echo end", output_limit=200)
    assert result.output.startswith("start\n1\n2\n") and result.output.endswith("20000\nend\n")
    assert "bytes omitted" in result.output and len(result.output) < 260


async def test_timeout_keeps_partial_output(box):
    start = time.monotonic()
    result = await sh(box, "echo begin; sleep 60; echo never", timeout_s=0.5)
    assert (result.reason, result.code, result.output) == ("timeout", None, "begin\n")
    assert time.monotonic() - start < 5
    assert (await sh(box, "echo again")).output == "again\n"


async def test_endless_output_is_ended(box):
    result = await sh(box, "yes", timeout_s=30, output_limit=1000)
    assert result.reason == "output" and len(result.output) < 1100 and result.wall_s < 20


async def test_cancelled_command_leaves_a_usable_box(box):
    running = asyncio.create_task(sh(box, "echo stale | tee made; sleep 60"))
    await asyncio.sleep(0.4)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    result = await sh(box, "cat made; pgrep sleep")
    assert result.output == "stale\n" and result.code == 1
    assert "+stale" in await box.patch()


async def test_a_cancellation_that_comes_with_the_answer_is_not_lost(box, monkeypatch):
    replied = box._on_reply

    def and_cancel():
        replied()
        running.cancel()

    box._loop.add_reader(box._control, and_cancel)
    running = asyncio.create_task(sh(box, "echo first"))
    with pytest.raises(asyncio.CancelledError):
        await running
    box._loop.add_reader(box._control, replied)
    assert (await sh(box, "echo second")).output == "second\n"


async def test_two_callers_take_turns(box):
    first, second = await asyncio.gather(sh(box, "sleep 0.2; echo a"), sh(box, "echo b"))
    assert (first.output, second.output) == ("a\n", "b\n")


async def test_read_and_write(box):
    data = bytes(range(256)) * 2000
    await box.write("deep/er/file.bin", data)
    assert await box.read("deep/er/file.bin") == data
    assert await box.read("deep/er/file.bin", limit=1000) == data[:1000]
    assert (await sh(box, "sha256sum < deep/er/file.bin; chmod +x stats.py; ls -A")).code == 0
    await box.write("stats.py", b"pass\n")
    assert (await sh(box, "test -x stats.py && cat stats.py")).output == "pass\n"
    assert await box.read("./tests/../README.md") == b"hello\n"


async def test_read_and_write_errors(box):
    with pytest.raises(FileNotFoundError):
        await box.read("nothing")
    with pytest.raises(IsADirectoryError):
        await box.read("tests")
    with pytest.raises(IsADirectoryError):
        await box.write("tests", b"")
    for path in ("../etc/passwd", "/etc/passwd", "tests/../../tmp/x"):
        with pytest.raises(ValueError, match="leaves the workspace"):
            await box.read(path)
        with pytest.raises(ValueError, match="leaves the workspace"):
            await box.write(path, b"x")
    await sh(box, "ln -s /etc out; ln -s /proc/1/environ env; mkfifo pipe .crrl-write~; chmod 000 README.md")
    for path in ("out/passwd", "env"):
        with pytest.raises(ValueError, match="leaves the workspace"):
            await box.read(path)
    assert await box.read("pipe") == b""
    await box.write("stats.py", b"ok\n")  # over the pipe that lies in its way
    with pytest.raises(PermissionError):
        await box.read("README.md")
    with pytest.raises(OSError):
        await box.write("a/" * 3000 + "b", b"x")
    with pytest.raises(OSError, match="space"):
        await box.write("big", b"x" * (30 << 20))
    assert await box.read("stats.py") == b"ok\n"


async def test_empty_workspace_has_no_patch(sandbox):
    box = await sandbox.start(Spec(root=None))
    assert (await sh(box, "touch a; ls -A")).output == "a\n"
    with pytest.raises(ValueError):
        await box.patch()
    await box.close()


async def test_a_workspace_that_is_gone_is_lost_with_the_reason(sandbox, tmp_path):
    missing = Workspace(tmp_path / "nowhere", tmp_path / "git", "0" * 40)
    with pytest.raises(LostError, match="nowhere"):
        await sandbox.start(Spec(root=missing))


async def test_32_boxes_at_once(sandbox, workspace):
    async def episode(number: int) -> str:
        box = await sandbox.start(Spec(root=workspace))
        try:
            await sh(box, f"echo {number} > mine.txt")
            assert (await sh(box, "cat mine.txt")).output == f"{number}\n"
            return await box.patch()
        finally:
            await box.close()

    patches = await asyncio.gather(*(episode(n) for n in range(32)))
    assert all(f"+{n}\n" in patch for n, patch in enumerate(patches))
