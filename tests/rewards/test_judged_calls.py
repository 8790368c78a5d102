"""Invariant 4 in the judge: judged code has the same system call filter as a box, and no way out of it."""

from __future__ import annotations

from judge_kit import FIXED, diff, make_task

from crrl.rewards.judge import PytestJudge

TRIES = """
import ctypes, errno

libc = ctypes.CDLL(None, use_errno=True)


def tried(number, *arguments):
    ctypes.set_errno(0)
    return libc.syscall(number, *arguments), ctypes.get_errno()


assert "Seccomp:\\t2" in open("/proc/self/status").read()
assert tried(428, -100, b"/", 0) == (-1, errno.EPERM)  # open_tree: an unfiltered kernel gives a descriptor
assert tried(467, -100, b"/", 0, 0, 0) == (-1, errno.ENOSYS)  # open_tree_attr: younger than the filter
assert tried(9999) == (-1, errno.ENOSYS)
assert libc.unshare(0x10000000) == -1 and libc.prctl(22, 0, 0, 0, 0) == -1
"""


async def test_judged_code_is_filtered(judge: PytestJudge) -> None:
    results = await judge.run(make_task(), diff({"stats.py": TRIES + FIXED}))
    assert set(results.tests.values()) == {"passed"}, results.output
