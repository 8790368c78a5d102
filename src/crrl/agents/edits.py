"""Explains why an edit by search and replace is refused, in words that help to do better next time.

The warm start's demonstrations use the same words (`warmstart/demonstrations.py`): after a change here, make a new tiny
policy.
"""

from __future__ import annotations

from difflib import SequenceMatcher

SHOWN_LINES = 4
NEAREST_LINES = 2
CONSIDERED = 2000  # lines of a file, and characters of each of them and of `old`, in the search for near ones
CHARACTERS = 200


def refusal(text: str, path: str, old: str, new: str) -> str | None:
    """Why `old` cannot be replaced by `new` in `text`, the content of `path`; None where it can.

    `old` must occur exactly once. The message shows the lines in which it occurs, or which share most with it, whole,
    so that the next attempt can copy from them.
    """
    if old == new:
        return "old and new are the same"
    count = text.count(old)
    if count == 1:
        return None
    if count == 0:
        return "\n".join([f"text not found in {path}; nearest:", *_nearest(text, old)])
    return "\n".join([f"text occurs {count} times in {path}:", *_occurrences(text, old)])


def _occurrences(text: str, old: str) -> list[str]:
    """The first lines in which occurrences of `old` begin, each once."""
    lines: dict[int, str] = {}
    position = text.find(old)
    while position >= 0 and len(lines) < SHOWN_LINES:
        start = text.rfind("\n", 0, position + 1) + 1 if text[position] != "\n" else position + 1
        line = text[start : text.find("\n", start) if "\n" in text[start:] else len(text)]
        lines[start] = line[:CHARACTERS]
        position = text.find(old, position + len(old))
    return list(lines.values())


def _nearest(text: str, old: str) -> list[str]:
    """The lines that share the longest piece with the first line of `old`."""
    wanted = next((line.strip() for line in old.splitlines() if line.strip()), "")[:CHARACTERS]
    shared = []
    for index, whole in enumerate(text.splitlines()[:CONSIDERED]):
        line = whole[:CHARACTERS]
        size = SequenceMatcher(None, line, wanted, autojunk=False).find_longest_match().size
        if size and line.strip():
            shared.append((-size, index, line))
    return [line for _, _, line in sorted(shared)[:NEAREST_LINES]]
