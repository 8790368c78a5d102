"""Messages in the places where a template takes them: no text is lost, and nothing moves that was rendered before.

Agents put system and developer messages anywhere (Codex sends two first ones, Claude Code one behind the user's),
speak twice in a row, and speak behind tool results. Many templates take one system message, at the beginning, and
strictly alternating turns; they refuse the rest, or drop it silently. `Places` learns by rendering, once, what its
template takes, and puts messages there:

- System messages before any other stay as they are where the template shows each of them apart. Elsewhere they are one
  message, with an empty line between them.
- A later one stays in its place: in the template's own form where it has one there, else as a user's message in
  `<system-reminder>` tags.
- Results stand directly behind the calls that they answer. One that answers none is, where the template does not take
  that, a user's message in `<tool-result>` tags. What stands behind calls without a result is their result where the
  template takes nothing else there.
- An empty user's message stands before the first answer where the template wants one there and the agent sent none.
- Messages that the template does not take in a row are one message, with an empty line between them.

What becomes of a message depends only on those between the same two answers, so an appended message never changes the
tokens before it (invariant 1).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from crrl.gateway.canonical import Call, Message
from crrl.gateway.renderer.api import RenderError, Tools

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": name,
            "description": f"To {name}.",
            "parameters": {"type": "object", "properties": {"at": {"type": "string"}}, "required": ["at"]},
        },
    }
    for name in ("look", "edit")
]
REMINDER = "<system-reminder>\n{}\n</system-reminder>"
RESULT = "<tool-result>\n{}\n</tool-result>"

# Words that stand in no template's own text.
_SYSTEM, _SECOND = Message("system", "Heliotrope."), Message("system", "Cinnabar.")
_USER, _MORE = Message("user", "Bring vermilion."), Message("user", "Bring ultramarine.")
_SAID = Message("assistant", "Here is ochre.")
_CALLED = Message("assistant", "", [Call("look", '{"at":"here"}')])
_RESULT = Message("tool", "Found sienna.")
_LATE = (
    [_SYSTEM, _USER, _SECOND],
    [_USER, _SECOND],
    [_SYSTEM, _USER, _SECOND, _MORE],
    [_SYSTEM, _USER, _SAID, _SECOND],
    [_SYSTEM, _USER, _SAID, _SECOND, _MORE],
    [_SYSTEM, _USER, _SAID, _MORE, _SECOND],
)
_LATE_WITH_TOOLS = (
    [_SYSTEM, _USER, _CALLED, _RESULT, _SECOND],
    [_SYSTEM, _USER, _CALLED, _RESULT, _SECOND, _MORE],
)


class Places:
    """Args:
    text: renders a conversation with its generation prompt. RenderError.
    tools: whether it renders tools.

    What has no place even so is for the proofs to find (`habits.py`, `proof.py`).
    """

    def __init__(self, text: Callable[[list[Message], Tools], str], *, tools: bool) -> None:
        self._text = text
        self._asked: list[Tools] = [None, TOOLS] if tools else [None]
        self.several_first = self.late_system = self.no_user = True
        self.users_in_a_row = self.user_behind_result = self.user_behind_call = self.lone_results = True
        self.users_in_a_row = self._shows([_USER, _MORE])
        self.user_behind_result = not tools or self._shows([_USER, _CALLED, _RESULT, _MORE])
        self.user_behind_call = not tools or self._shows([_USER, _CALLED, _MORE])
        self.lone_results = not tools or all(map(self._shows, ([_USER, _RESULT], [_USER, _SAID, _RESULT])))
        self.no_user = all(map(self._shows, ([_SYSTEM], [_SYSTEM, _SAID, _MORE], [_SAID, _MORE])))
        self.several_first = self._shows([_SYSTEM, _SECOND, _USER])
        self.late_system = all(map(self._shows, [*_LATE, *(_LATE_WITH_TOOLS if tools else ())]))

    @property
    def rule(self) -> str:
        """For the first system messages; for later ones (docs/models.md)."""
        first = "each" if self.several_first else "merged"
        late = "the template's own" if self.late_system else "user's message"
        return f"{first}; {late}"

    def placed(self, messages: list[Message]) -> list[Message]:
        """A whole conversation."""
        first = next((i for i, m in enumerate(messages) if m.role != "system"), len(messages))
        system = messages[:first]
        if len(system) > 1 and not self.several_first:
            system = [Message("system", "\n\n".join(m.content for m in system if m.content.strip()))]
        found = [*system, *self.behind(messages[first:])]
        answer = next((i for i, m in enumerate(found) if m.role == "assistant"), len(found))
        if not self.no_user and not any(m.role == "user" for m in found[:answer]):
            found.insert(answer, Message("user"))
        return found

    def behind(self, messages: list[Message], calls: int = 0) -> list[Message]:
        """Messages that stand behind others, of which the last made so many calls."""
        found: list[Message] = []
        stretch: list[Message] = []
        for message in messages:
            if message.role == "assistant":
                found += [*self._stretch(stretch, calls), message]
                stretch, calls = [], len(message.calls)
            else:
                stretch.append(message)
        return [*found, *self._stretch(stretch, calls)]

    def counts(self, appended: list[Message]) -> bool:
        """Whether it matters how many calls stand before these: it takes a parse to know, 0.1 s with some families."""
        roles = [m.role != "tool" for m in appended]
        return not (self.lone_results and self.user_behind_call) or roles != sorted(roles)

    def _stretch(self, messages: list[Message], calls: int) -> list[Message]:
        """Of one stretch between two answers."""
        found: list[Message] = []
        others: list[Message] = []
        for message in messages:
            (found if message.role == "tool" and len(found) < calls else others).append(message)
        for message in others:
            if message.role == "tool" and not self.lone_results:
                message = Message("user", RESULT.format(message.content))
            if message.role == "system" and not self.late_system:
                if not message.content.strip():
                    continue
                message = Message("user", REMINDER.format(message.content))
            if not found and calls and not self.user_behind_call:
                message = Message("tool", message.content)
            if message.role == "user" and found and self._joins(found[-1]):
                found[-1] = replace(found[-1], content=f"{found[-1].content}\n\n{message.content}")
            else:
                found.append(message)
        return found

    def _joins(self, before: Message) -> bool:
        """Whether the template does not take a user's message behind this one."""
        if before.role == "tool":
            return not self.user_behind_result
        return before.role == "user" and not self.users_in_a_row

    def _shows(self, messages: list[Message]) -> bool:
        """Every text once, in order, with something between them."""
        for tools in self._asked:
            try:
                text = self._text(self.placed(messages), tools)
            except RenderError:
                return False
            end = -1
            for content in filter(None, (m.content for m in messages)):
                at = text.find(content)
                if at <= end or text.count(content) != 1:
                    return False
                end = at + len(content)
        return True
