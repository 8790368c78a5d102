"""Templates in settings: whatever they do is refused before anything starts, under the setting's name."""

from __future__ import annotations

from dataclasses import replace

import pytest

from crrl.conf import schema
from crrl.conf.templates import check_templates
from crrl.errors import UsageError

GOOD = schema.Agent(
    name="command", command="agent --model {{ model }} {{ instruction }}", instruction="{{ task.issue }}"
)


@pytest.mark.parametrize(
    "text",
    [
        "{{ 'x' * 10**10 }}",
        "{{ 'x' | center(10**10) }}",
        "{{ (10 ** (10 ** 8)) | string }}",
        "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    ],
)
def test_a_template_that_takes_too_much_is_refused(text: str) -> None:
    for setting, config in (
        ("agent.command", replace(GOOD, command=text)),
        ("agent.instruction", replace(GOOD, instruction=text)),
        ("agent.env.A", replace(GOOD, env={"A": text})),
        ("agent.files x.toml", replace(GOOD, files={"x.toml": text})),
    )[: 4 if "center" in text else 1]:
        with pytest.raises(UsageError, match=f"^{setting}: takes more than"):
            check_templates(config)


@pytest.mark.parametrize(
    "text", ["{{ 1 / 0 }}", "{{ 1 + 'a' }}", "{{ model.__class__.__mro__ }}", "{{ no }}", "{%", "{{ range(10**6) }}"]
)
def test_a_template_that_fails_is_refused(text: str) -> None:
    check_templates(GOOD)
    with pytest.raises(UsageError, match=r"^agent\.command: "):
        check_templates(replace(GOOD, command=text))
