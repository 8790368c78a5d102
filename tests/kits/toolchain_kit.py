"""Tests that need what a task's language needs: they skip, with what is missing and how to get it."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from crrl.errors import CrrlError
from crrl.sandbox import default_state_dir
from crrl.tasks.setup import toolchains


def require(needs: Sequence[str]) -> None:
    try:
        toolchains.require(list(needs), default_state_dir())
    except CrrlError as error:
        pytest.skip(f"{error.message}: {error.remedy}")
