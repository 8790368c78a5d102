"""Each judged run has a network of its own: localhost answers, nothing else does."""

from __future__ import annotations

import pytest
from judge_kit import FILES, FIXED, diff, make_task

from crrl.rewards.judge import PytestJudge

TESTS = """import socket
import pytest


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_localhost(host):
    with socket.create_server((host, 0)) as server, socket.create_connection(server.getsockname(), timeout=5) as client:
        connection, _ = server.accept()
        client.sendall(b"hello")
        assert connection.recv(5) == b"hello"
        connection.close()


@pytest.mark.parametrize("place", ["192.0.2.1", "10.0.0.1", "169.254.169.254"])
def test_elsewhere(place):
    with pytest.raises(OSError, match="unreachable"):
        socket.create_connection((place, 80), timeout=5)
"""


@pytest.mark.timeout(300)
async def test_localhost_answers_and_nothing_else(judge: PytestJudge) -> None:
    task = make_task(FILES | {"tests/test_network.py": TESTS})
    places = ["192.0.2.1", "10.0.0.1", "169.254.169.254"]
    ids = [f"test_localhost[{host}]" for host in ("127.0.0.1", "localhost")]
    ids += [f"test_elsewhere[{place}]" for place in places]
    task.test.pass_to_pass.extend(f"tests/test_network.py::{id}" for id in ids)
    results = await judge.run(task, diff({"stats.py": FIXED}))
    assert set(results.tests.values()) == {"passed"}, results.output
