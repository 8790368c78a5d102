"""What a push writes and sends, without a server: adapters that do not fit are refused, a stream gives the very tensors
to whoever has the key, sessions stay with their server. The real one takes them in test_vllm_transports.py."""

from __future__ import annotations

import importlib.util
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from crrl.conf.schema import Adapter
from crrl.engines.api import AdapterWeights
from crrl.engines.load import load_model
from crrl.engines.vllm import transports, weights
from crrl.engines.vllm.routes import Routes
from crrl.engines.vllm.sender import Sender, local_address
from crrl.engines.vllm.server import PLUGIN
from crrl.errors import CrrlError, UsageError
from crrl.learning import lora
from crrl.learning.push import ModuleWeights
from crrl.models import model_folder

TENSORS = {
    "model.a": torch.randn(7, 5),
    "model.b": torch.randn(300, 400).to(torch.bfloat16),
    "model.none": torch.zeros(0, 4),
    "model.one": torch.tensor(3.5),
    "model.turned": torch.randn(6, 8).t(),
}


def plugin() -> Any:
    """The other end of a stream: it imports nothing of ours, and vLLM only when it runs."""
    spec = importlib.util.spec_from_file_location("crrl_vllm", PLUGIN / "crrl_vllm.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "pushed"
    made.mkdir()
    names = sorted(TENSORS)
    save_file({name: TENSORS[name].contiguous() for name in names[:2]}, made / "model-00000.safetensors")
    save_file({name: TENSORS[name].contiguous() for name in names[2:]}, made / "model-00001.safetensors")
    return made


def taken(sender: Sender, key: str) -> dict[str, torch.Tensor]:
    other = plugin()
    with other._connected(sender.address) as connection:
        connection.sendall(key.encode())
        return dict(other._tensors(connection))


@pytest.mark.parametrize("tcp", [False, True])
def test_a_stream_gives_the_very_tensors_to_every_worker(folder: Path, tmp_path: Path, tcp: bool) -> None:
    with Sender(folder, "127.0.0.1" if tcp else tmp_path) as sender:
        found: list[dict[str, torch.Tensor]] = []
        workers = [threading.Thread(target=lambda: found.append(taken(sender, sender.key))) for _ in range(3)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    assert len(found) == 3
    for each in found:
        assert set(each) == set(TENSORS)
        for name, tensor in TENSORS.items():
            assert each[name].dtype == tensor.dtype and torch.equal(each[name], tensor), name
    assert not list(tmp_path.glob("*.sock"))


def test_who_has_not_the_key_gets_nothing(folder: Path, tmp_path: Path) -> None:
    with Sender(folder, tmp_path) as sender:
        assert (tmp_path / Path(sender.address).name).stat().st_mode & 0o777 == 0o600
        for key in ("0" * 64, "", sender.key[:-1] + "?"):
            with socket.socket(socket.AF_UNIX) as connection:
                connection.connect(sender.address)
                connection.sendall(key.encode())
                connection.shutdown(socket.SHUT_WR)
                assert connection.recv(1) == b""


def test_weights_that_break_off_are_an_error(tmp_path: Path) -> None:
    """vLLM would go on with the weights that it has got, and only warn."""
    other = plugin()
    save_file({"a": torch.ones(9, 9), "b": torch.ones(5)}, tmp_path / "m.safetensors")
    with Sender(tmp_path, tmp_path) as sender, other._connected(sender.address) as connection:
        connection.sendall(sender.key.encode())
        whole = connection.recv(1 << 20, socket.MSG_WAITALL)
        for length in (0, 3, 4, 20, len(whole) // 2, len(whole) - 4, len(whole) - 1):
            here, there = socket.socketpair()
            with here:
                with there:
                    there.sendall(whole[:length])
                with pytest.raises(ConnectionError, match="broke off"):
                    list(other._tensors(here))


def test_a_stream_ends_with_its_push(folder: Path, tmp_path: Path) -> None:
    with Sender(folder, "127.0.0.1") as sender:
        host, port = sender.address.split(":")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((host, int(port)))


def test_the_address_that_a_server_reaches() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        assert local_address("localhost", listening.getsockname()[1]) == "127.0.0.1"


# Adapters ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def policy() -> Any:
    return lora.new(load_model(model_folder("tiny")), Adapter(name="lora", r=4, alpha=8), 1)


class Changed:
    """The adapter of a policy, with something changed."""

    def __init__(self, policy: Any, change: Any) -> None:
        self._policy, self._change = policy, change

    def tensors(self) -> Iterator[tuple[str, torch.Tensor]]:
        return ModuleWeights(self._policy).tensors()

    def adapter(self) -> AdapterWeights | None:
        found = ModuleWeights(self._policy).adapter()
        assert found is not None
        changed = self._change({name: tensor.clone() for name, tensor in found.tensors})
        return AdapterWeights(found.config, (pair for pair in changed.items()))


def nan(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    next(iter(tensors.values()))[0, 0] = float("nan")
    return tensors


def without(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return dict(list(tensors.items())[1:])


def renamed(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name.replace("layers.0.", "layers.99."): tensor for name, tensor in tensors.items()}


def wider(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: torch.cat([tensor, tensor]) for name, tensor in tensors.items()}


def test_an_adapter_is_written_as_peft_writes_it(policy: Any, tmp_path: Path) -> None:
    shapes = weights.shapes_in(model_folder("tiny"))
    weights.write_adapter(ModuleWeights(policy), shapes, tmp_path / "mine")
    policy.save_pretrained(tmp_path / "theirs")
    mine = load_file(tmp_path / "mine" / "adapter_model.safetensors")
    theirs = load_file(tmp_path / "theirs" / "adapter_model.safetensors")
    assert set(mine) == set(theirs) and all(torch.equal(mine[name], theirs[name]) for name in mine)
    assert transports.rank_in(tmp_path / "mine") == 4


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (nan, "NaN"),
        (without, "missing"),
        (renamed, "no such layer"),
        (wider, "layer takes"),
        (lambda tensors: {}, "it is empty"),
    ],
)
def test_an_adapter_that_does_not_fit_is_refused(policy: Any, change: Any, says: str, tmp_path: Path) -> None:
    with pytest.raises(CrrlError, match=says):
        weights.write_adapter(Changed(policy, change), weights.shapes_in(model_folder("tiny")), tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_whole_weights_are_no_adapter(tmp_path: Path) -> None:
    with pytest.raises(CrrlError, match="no adapter"):
        weights.write_adapter(ModuleWeights(load_model(model_folder("tiny"))), {}, tmp_path / "a")


def test_an_untrained_adapter_changes_nothing(tmp_path: Path) -> None:
    from crrl.engines.adapter import merged

    shapes = weights.shapes_in(model_folder("tiny"))
    weights.write_identity(shapes, tmp_path / "a")
    base, same = load_model(model_folder("tiny")), merged(load_model(model_folder("tiny")), tmp_path / "a")
    for mine, theirs in zip(base.parameters(), same.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    with pytest.raises(CrrlError, match="no linear layer"):
        weights.write_identity({"transformer.h.0.attn.c_attn.weight": (8, 24)}, tmp_path / "b")


def test_room_for_the_rank() -> None:
    for rank, room in ((1, "1"), (4, "8"), (16, "16"), (33, "64"), (512, "512")):
        words = transports.Adapter(model_folder("tiny"), rank).arguments()
        assert words[words.index("--max-lora-rank") + 1] == room
    layers = words[words.index("--lora-target-modules") + 1 :]
    assert layers == ["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"], "not the head"
    with pytest.raises(UsageError, match="at most"):
        transports.Adapter(model_folder("tiny"), 513).arguments()


# Several servers ----------------------------------------------------------------------------------------------------


def test_a_session_stays_and_a_new_one_goes_where_least_is_going_on() -> None:
    routes = Routes(3)
    with routes.through("a") as a, routes.through("b") as b, routes.through("c") as c:
        assert sorted([a, b, c]) == [0, 1, 2]
        with routes.through("a") as again, routes.through("d") as d:
            assert again == a and d != a, "the one with a has two requests under way"
    order = [0] * 3
    for number in range(30):  # one after the other: none is busy
        with routes.through(f"later-{number}") as at:
            order[at] += 1
    assert max(order) - min(order) <= 2
    with routes.through("") as one, routes.through("") as two:
        assert one != two


def test_sessions_are_forgotten_at_some_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crrl.engines.vllm.routes.REMEMBERED", 2)
    routes = Routes(2)
    for session in "abc":
        with routes.through(session):
            pass
    assert list(routes._of) == ["b", "c"]
