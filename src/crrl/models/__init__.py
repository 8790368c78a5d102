"""Policies that come with the package. `tiny/` was made by `crrl sft warmstart`; its README.md is its card."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path


def model_folder(path: str) -> Path:
    """`tiny` is the policy shipped with the package; anything else is a Hugging Face folder."""
    return Path(str(files("crrl") / "models" / "tiny")) if path == "tiny" else Path(path)
