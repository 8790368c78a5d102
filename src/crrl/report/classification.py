"""Classification in words: the rows of a table, from what `evaluation/classification.py` measured."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

Found = Mapping[str, Any]
"""`Summary.classification`."""


def cells(found: Found) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """(split, decoding and phase; rows) of a run that classified functions."""
    for phase, splits in found.items():
        for split, decodings in splits.items():
            for decoding, metrics in decodings.items():
                yield f"{split}, {decoding}, {phase}", numbers(metrics)


def of_cell(found: Found, split: str, decoding: str) -> list[tuple[str, str]]:
    """The rows of an evaluation; none where nothing was classified."""
    metrics = found.get("after", {}).get(split, {}).get(decoding)
    return numbers(metrics) if metrics else []


def numbers(metrics: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(what, number) of `measure`."""
    rows = [
        ("balanced accuracy, F1 macro", f"{_percent(metrics['balanced_accuracy'])}, {_percent(metrics['f1_macro'])}"),
        (
            "F1 of vulnerable, of not vulnerable",
            f"{_percent(metrics['f1']['vulnerable'])}, {_percent(metrics['f1']['not_vulnerable'])}",
        ),
        ("VD-S: missed at 0.5% false positives", _percent(metrics["vd_s"])),
        ("cannot tell, unreadable", f"{_percent(metrics['cannot_tell'])}, {_percent(metrics['unreadable'])}"),
    ]
    if (told := metrics["pairs"]) is not None:
        shares = ", ".join(_percent(told[name]) for name in ("p_c", "p_v", "p_b", "p_r", "undecided"))
        rows.append((f"P-C, P-V, P-B, P-R, undecided of {told['pairs']} pairs", shares))
    if (told := metrics["calibration"]) is not None:
        rows.append(("Brier score, expected calibration error", f"{told['brier']:.3f}, {told['ece']:.3f}"))
    if (told := metrics["cwe"]) is not None:
        rows.append((f"weakness named rightly, of {told['functions']} found", _percent(told["right"])))
    if (told := metrics["lines"]) is not None:
        said = f"{_percent(told['precision'])}, {_percent(told['recall'])}, {told['informedness']:.2f}"
        rows.append((f"cited lines: precision, recall, informedness, of {told['functions']} found", said))
    for one in metrics["majority"]:
        said = f"{_percent(one['accuracy'])}, {one['tokens']:,.0f} (of {one['tasks']} functions)"
        rows.append((f"majority@{one['k']}, tokens", said))
    return rows


def _percent(value: float | None) -> str:
    return "none" if value is None else f"{value:.1%}"
