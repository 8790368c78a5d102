"""Policies that come with the package. Each folder has a README.md, its card; `crrl sft RECIPE` made it."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path


@dataclass(frozen=True)
class Shipped:
    """`recipe`: that it is for. `agent`: whose questions it answers, with the prompts `tiny`; it knows no other."""

    recipe: str
    agent: str


SHIPPED = {
    "tiny": Shipped("quickstart", "builtin"),
}


def model_folder(path: str) -> Path:
    """A name in `SHIPPED`; anything else is a Hugging Face folder."""
    return Path(str(files("crrl") / "models" / path)) if path in SHIPPED else Path(path)
