"""Reward `habits`: looks around before it edits, in [0, 1]: a shaping reward, for agents that run commands.

0.3 for listing files in the first two commands, 0.4 for searching in the first ten, 0.3 for reading a part of a file
from the third on: those of the first CodeRepairRL. Paid only where the patch changes something, and once for a command:
its own were paid for three in one line. Gamed by running such commands for nothing. None: no commands.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from crrl.gateway.api import Sample
from crrl.rewards.api import TestResults
from crrl.task import Task

LIST = re.compile(r"^\s*(?:ls|tree|git\s+ls-files)\b")
SEARCH = re.compile(r"^\s*(?:rg|grep|find|git\s+grep)\b")
READ = re.compile(r"^\s*(?:sed\s+-n|head|tail)\b")


class Habits:
    def __call__(self, task: Task, patch: str, results: TestResults | None, samples: Sequence[Sample]) -> float | None:
        commands = results.trace.commands if results is not None else []
        if not commands:
            return None
        if not patch.strip():
            return 0.0
        parts = ((0.3, LIST, commands[:2]), (0.4, SEARCH, commands[:10]), (0.3, READ, commands[2:]))
        return sum(paid for paid, pattern, among in parts if any(map(pattern.search, among)))
