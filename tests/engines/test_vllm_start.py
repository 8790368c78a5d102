"""How a vLLM server's start is told: that it is ready, or what is wrong with it. A small program stands in for vLLM."""

from __future__ import annotations

import ssl
import sys
import tempfile
import textwrap
from pathlib import Path

import httpx
import psutil
import pytest

from crrl.engines.vllm import client
from crrl.engines.vllm.server import VllmServer, private_folder
from crrl.errors import CrrlError, UsageError

ANSWERS = """
import http.server, socketserver, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(503 if self.path == "/broken" else 200)
        self.send_header("content-length", "0")
        self.end_headers()
    def address_string(self):
        return "somebody"
class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
print("INFO 11-27 16:16:57 [server.py:1] It loads", flush=True)
Server(sys.argv[sys.argv.index("--uds") + 1], Handler).serve_forever()
"""


def server(folder: Path, program: str) -> VllmServer:
    """Whose python runs `program`, whatever else it is told."""
    python = folder / "python"
    (folder / "program.py").write_text(textwrap.dedent(program))
    python.write_text(f'#!/bin/sh\nshift 2\nexec {sys.executable} {folder / "program.py"} "$@"\n')
    python.chmod(0o755)
    private = folder / "private"
    private.mkdir()
    return VllmServer(python, ["--dtype", "float32"], {}, private, folder / "vllm.log")


def test_who_asks_by_a_socket_reads_no_certificates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """24 ms of CPU for each client."""

    def read(*_: object, **__: object) -> None:
        raise AssertionError("certificates are read")

    monkeypatch.setattr(ssl.SSLContext, "load_verify_locations", read)
    monkeypatch.setattr(ssl.SSLContext, "load_default_certs", read)
    with pytest.raises(AssertionError, match="are read"), httpx.Client():
        pass
    server(tmp_path, "").http().close()
    client._reaching(str(tmp_path / "vllm.sock"))


def test_it_is_found_when_it_is_shown(tmp_path: Path) -> None:
    made, notes = server(tmp_path, ANSWERS), []
    made.start(Path("model"), notes.append)
    try:
        assert notes[0] == "vLLM starts in a process of its own" and notes[-1].startswith("vLLM serves after")
        assert not made.socket.exists() and not made.healthy()
        made.show()
        assert made.socket.exists() and made.healthy()
        assert made.pid is not None
        inside = psutil.Process(made.pid).children(recursive=True)
        inside[0].kill()
        psutil.wait_procs(inside, 30)
        assert not made.healthy()
        made.stop()
        made.start(Path("model"), notes.append)
        made.show()
        assert made.healthy()
    finally:
        made.stop()
        made.stop()
    assert not made.alive and not made.socket.exists()


@pytest.mark.parametrize(
    ("said", "named", "remedy"),
    [
        ("OSError: [Errno 98] Address already in use", "another process has a port", "VLLM_PORT"),
        (
            "ValueError: Free memory on device cuda:0 (9/80 GiB) is less than desired GPU memory utilization",
            "too little memory left",
            "engine.memory_share",
        ),
        ("torch.OutOfMemoryError: CUDA out of memory. Tried", "not enough memory", "engine.memory_gb"),
        ("ValueError: No available memory for the cache blocks.", "no memory for keys", "Raise engine.memory_gb"),
        ("To serve at least one request with the model's max seq len (32768), 8 GiB", "too little", "engine.context"),
        ("ValueError: Model architectures ['FooForCausalLM'] are not supported for now.", "does not know", "local"),
        ("OSError: [Errno 28] No space left on device", "is full", "Make room"),
        ("KeyError: 'something new'", "ended with 1 while it started", "The log says why"),
    ],
)
def test_faults_have_names(said: str, named: str, remedy: str, tmp_path: Path) -> None:
    made = server(tmp_path, f"print('line before')\nraise SystemExit({said!r})")
    (tmp_path / "vllm.log").write_text("address already in use: of the start before\n" * 30)
    with pytest.raises(CrrlError) as caught:
        made.start(Path("model"), lambda note: None)
    made.stop()
    assert named in caught.value.message
    assert said in caught.value.message and "of the start before" not in caught.value.message
    assert remedy in caught.value.remedy and str(tmp_path / "vllm.log") in caught.value.remedy
    assert len(caught.value.message.splitlines()) < 20


def test_vllms_own_sockets_go_with_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = server(tmp_path, 'import os, sys; print(os.environ["TMPDIR"]); sys.exit(1)')
    with pytest.raises(CrrlError):
        made.start(Path("model"), lambda note: None)
    assert str(made.socket.parent) in made.log.read_text().splitlines()
    far = tmp_path / "far" / ("a" * 90)
    far.mkdir(parents=True)
    monkeypatch.setattr(tempfile, "tempdir", str(far))
    with pytest.raises(UsageError, match="107 bytes") as refused:
        private_folder()
    assert "TMPDIR" in refused.value.remedy and not list(far.iterdir())
