"""Where the worker reaches an engine: at an address of its own, or at a socket that the run opens for it."""

from __future__ import annotations

from pathlib import Path

import pytest
from engine_kit import collect

from crrl.engines import Request, connect
from crrl.engines.scripted import ScriptedEngine
from crrl.engines.wire import serving
from crrl.errors import UsageError


class Elsewhere(ScriptedEngine):
    """An engine that listens by itself."""

    address = "http://127.0.0.1:1"
    tokens = 7


async def test_an_engine_without_an_address_gets_a_socket(tmp_path: Path) -> None:
    with serving(ScriptedEngine([[1, 2, 3]]), tmp_path / "e.sock") as served:
        remote = connect(served.address)
        assert (await collect(remote, Request("a", [5], 9))).ids == [1, 2, 3]
        assert served.tokens == 3
        await remote.close()
    assert not (tmp_path / "e.sock").exists()


def test_an_engine_with_an_address_is_reached_there(tmp_path: Path) -> None:
    engine = Elsewhere([])
    with serving(engine, tmp_path / "e.sock") as served:
        assert served is engine
        assert not (tmp_path / "e.sock").exists()


@pytest.mark.parametrize("address", ["", "unix:", "e.sock", "gopher://host", "unix"])
def test_other_addresses_are_refused(address: str) -> None:
    with pytest.raises(UsageError, match="not an engine's address"):
        connect(address)
