"""A pytest plugin, run inside the box: which functions of the project the tests call, with what, and what they give.

Only calls from outside the project's code are recorded: what a test calls, not what that calls in turn. Values are
written down as they are at the time, as literals where they can be; addresses are taken out. Writes JSON to the file in
CRRL_TRACE: {test id: {"calls": [Call...], "params": {name: value}, "untyped": what in them looks like a call and is
none, "depth": least number of frames between the test and a function in CRRL_FAULTS}}. A test that takes more than
CRRL_TRACE_CPU_S is stopped, and is the last. Needs pytest only. `tracing.py` reads it.
"""

from __future__ import annotations

import dis
import enum
import gc
import json
import os
import re
import signal
import sys
from collections.abc import Iterable, Iterator
from types import CodeType, FrameType, FunctionType
from typing import Any

import pytest

ROOT = os.getcwd() + "/"
CPU_S = float(os.environ.get("CRRL_TRACE_CPU_S", "30"))
FAULTS = [(path, int(first)) for path, first in json.loads(os.environ.get("CRRL_FAULTS", "[]"))]
MOST_CALLS, LONG, DEEP, MANY = 300, 600, 4, 40
RETURNS = {dis.opmap[name] for name in ("RETURN_VALUE", "RETURN_CONST", "YIELD_VALUE") if name in dis.opmap}
TEST_FILE = re.compile(r"(^|/)(tests?|testing)/|(^|/)(test_[^/]*|tests?|[^/]*_test|conftest)\.py$")
ADDRESS = re.compile(r"(?:\s+at|\s*@|\s+id=)\s*(?:0x[0-9a-fA-F]+|\d{9,})")  # an object's own, another in each run
SUSPENDS = {dis.opmap[name] for name in ("YIELD_VALUE", "YIELD_FROM") if name in dis.opmap}
NESTED, GENERATOR, COROUTINE, ASYNC_GENERATOR = 0x10, 0x20, 0x80, 0x200
LIKE_PLAIN = re.compile(r"[\[{('\"\d+-]|[bf]['\"]|(None|True|False|set\(\))$")  # the repr of a list, of a dict...
PLAIN = (bool, int, float, complex, str, bytes, type(None), type(Ellipsis), type(NotImplemented))
NAME = re.compile(r"[~+-]?[A-Za-z_][\w.]*$")  # the repr of a type variable, of a constant
CALL = re.compile(r"[A-Za-z_][\w.]*\(.*\)", re.DOTALL)
FOUND: dict[str, dict[str, Any]] = {}
DEFAULTS: dict[CodeType, dict[str, Any]] = {}
TYPED: dict[tuple[type, str, str], bool] = {}
UNTYPED: set[str] = set()  # reprs that look like calls, and are none


def shown(value: Any, depth: int = 0) -> str:
    """The value as Python writes it; equal values are written equally."""
    try:
        text = _shown(value, depth)
    except Exception as error:  # a project's own __repr__
        text = f"<{type(value).__name__} whose repr raises {type(error).__name__}>"
    text = re.sub(r" at 0x[0-9a-fA-F]+", "", text)
    return text if len(text) <= LONG else text[:LONG] + "..."


def _shown(value: Any, depth: int) -> str:
    kind = type(value)
    if kind in PLAIN:
        return repr(value) if kind not in (str, bytes) or len(value) <= LONG else f"{value[:LONG]!r}..."
    if depth < DEEP and kind in (list, tuple, set, frozenset) and len(value) <= MANY:
        items = [shown(item, depth + 1) for item in value]
        if kind is list:
            return f"[{', '.join(items)}]"
        if kind is tuple:
            return f"({', '.join(items)}{',' if len(items) == 1 else ''})"
        text = "{" + ", ".join(sorted(items)) + "}" if items else "set()"
        return text if kind is set else f"frozenset({text})"
    if depth < DEEP and kind is dict and len(value) <= MANY:
        return "{" + ", ".join(f"{shown(k, depth + 1)}: {shown(v, depth + 1)}" for k, v in value.items()) + "}"
    if isinstance(value, type) or kind.__name__ in ("function", "builtin_function_or_method", "method"):
        name = getattr(value, "__qualname__", kind.__name__)
        if "<" in name:  # of a lambda, or what a function made: nobody knows it by that
            made = "class" if isinstance(value, type) else "function"
            return f"<{made} of {name.partition('.<')[0].strip('<>')}>"
        return f"<{name}>" if of_tests(value) else name
    if isinstance(value, enum.Enum):
        return f"{kind.__name__}.{value.name}"
    text = ADDRESS.sub("", repr(value))
    if of_tests(kind) or (NAME.match(text) and not of_project(text, value)):
        return f"<{kind.__name__} {text}>"
    if CALL.fullmatch(text) and not can_be_typed(text, value):
        UNTYPED.add(text)
    return f"{kind.__name__}({text})" if LIKE_PLAIN.match(text) else text


def of_project(name: str, value: Any) -> bool:
    """Whether a module of the project has this value by that name."""
    for module in list(sys.modules.values()):
        file = getattr(module, "__file__", None) or ""
        if file.startswith(ROOT) and not in_tests(file) and vars(module).get(name.rpartition(".")[2]) is value:
            return True
    return False


def can_be_typed(text: str, value: Any) -> bool:
    """Whether the repr, where its class is known, gives such a value again. `dict_keys(['a'])` does not."""
    kind, trace = type(value), sys.gettrace()
    names = [vars(sys.modules.get(name) or object) for name in (kind.__module__.partition(".")[0], kind.__module__)]
    sys.settrace(None)
    try:
        key = (kind, *_seen(value))
        if key not in TYPED:
            TYPED[key] = False  # unless it can be
            known = sys.modules | names[0] | names[1] | {kind.__name__: kind}
            TYPED[key] = (kind, *_seen(eval(text, known))) == key  # noqa: S307
        return TYPED[key]
    except (Exception, SystemExit):
        return False
    finally:
        sys.settrace(trace)


def _seen(value: Any) -> tuple[str, str]:
    """Its repr, and its attributes: what a value with the same repr may have otherwise."""
    return ADDRESS.sub("", repr(value)), ADDRESS.sub("", repr(getattr(value, "__dict__", None)))


def untyped(values: Iterable[str]) -> list[str]:
    """What in these values looks like a call that one cannot make."""
    told = "\n".join(values)
    return sorted(text for text in UNTYPED if text in told)


def in_tests(file: str) -> bool:
    return file.startswith(ROOT) and TEST_FILE.search(file[len(ROOT) :]) is not None


def of_tests(value: Any) -> bool:
    """Whether a function or class is defined in a test file: by its name alone nobody knows it."""
    return in_tests(getattr(sys.modules.get(getattr(value, "__module__", None) or ""), "__file__", None) or "")


def said(error: BaseException) -> str:
    """Its message, in one line."""
    try:
        text = " ".join(str(error).split())
    except Exception:  # a project's own __str__
        return ""
    return re.sub(r" at 0x[0-9a-fA-F]+", "", text)[:LONG]


def defaults(code: CodeType) -> dict[str, Any]:
    """Of the parameters of the function that has this code; none where several functions have it."""
    if code not in DEFAULTS:
        gc.unfreeze()  # referrers that a project froze are not found
        made = [f for f in gc.get_referrers(code) if isinstance(f, FunctionType) and f.__code__ is code]
        DEFAULTS[code] = {}
        if len(made) == 1:
            own = made[0].__defaults__ or ()
            names = code.co_varnames[code.co_argcount - len(own) : code.co_argcount]
            DEFAULTS[code] = dict(zip(names, own, strict=True)) | (made[0].__kwdefaults__ or {})
    return DEFAULTS[code]


def arguments(frame: FrameType) -> list[tuple[str, str]]:
    """(name, value) as it is called, without those that are the default. `*`: one of those that a star takes; `name=`:
    has to be named."""
    code, values = frame.f_code, frame.f_locals
    names, first, count = code.co_varnames, code.co_argcount, code.co_argcount + code.co_kwonlyargcount
    stars = values.get(names[count], ()) if code.co_flags & 0x04 else ()
    default, nothing = defaults(code), object()
    unsaid = {name for name in names[:count] if name in default and values.get(name, nothing) is default[name]}
    unsaid -= set(names[: first if stars else code.co_posonlyargcount])  # those after them could not be given
    found, named = list[tuple[str, str]](), False
    for name in names[:first]:
        named = named or name in unsaid
        if name in values and name not in unsaid:
            found.append((f"{name}=" if named else name, shown(values[name])))
    found += [("*", shown(value)) for value in stars]
    said_by_name = [name for name in names[first:count] if name in values and name not in unsaid]
    found += [(f"{name}=", shown(values[name])) for name in said_by_name]
    if code.co_flags & 0x08:
        rest = values.get(names[count + bool(code.co_flags & 0x04)], {})
        found += [(f"{key}=", shown(value)) for key, value in rest.items()]
    return found


def state(frame: FrameType) -> dict[str, str]:
    """What a call may have changed: its object's public attributes, containers among its arguments."""
    code, values, found = frame.f_code, frame.f_locals, {}
    for name in code.co_varnames[: code.co_argcount]:
        value = values.get(name)
        if isinstance(value, list | dict | set | bytearray):
            found[name] = shown(value)
        elif name == "self":
            public = [(k, v) for k, v in getattr(value, "__dict__", {}).items() if not k.startswith("_")][:MANY]
            found |= {f"self.{k}": shown(v) for k, v in public}
    return found


def of_a_class(name: str) -> bool:
    """Whether a function of that qualified name is a method; before 3.11 there is none to tell by."""
    return sys.version_info < (3, 11) or "." in name.rpartition("<locals>.")[2]


class Tracer:
    """The trace function of one test: of all calls, then of what becomes of those that are recorded."""

    def __init__(self, id: str) -> None:
        self.calls: list[dict[str, Any]] = []
        self.open: dict[int, tuple[FrameType, dict[str, Any]]] = {}
        self.raised: dict[int, int] = {}  # frame -> the instruction that raised last
        self.depth: int | None = None
        self.of_test: dict[str, bool] = {}
        FOUND[id] = {"calls": self.calls}

    def __call__(self, frame: FrameType, event: str, arg: Any) -> Any:
        if event == "call" and frame.f_code.co_filename.startswith(ROOT):
            self.called(frame)
            if id(frame) in self.open:
                frame.f_trace_lines = False
                return self.ending
        return None

    def ending(self, frame: FrameType, event: str, arg: Any) -> Any:
        if event == "exception":
            self.raised[id(frame)] = frame.f_lasti
            self.open[id(frame)][1]["error"] = [arg[0].__name__, said(arg[1])]
        elif event == "return":
            self.returned(frame, arg)
        return self.ending

    def called(self, frame: FrameType) -> None:
        file = frame.f_code.co_filename[len(ROOT) :]
        if self.is_test(frame.f_code.co_filename):
            return
        if (file, frame.f_code.co_firstlineno) in FAULTS:
            self.measure(frame)
        if id(frame) in self.open or len(self.calls) >= MOST_CALLS or frame.f_code.co_flags & ASYNC_GENERATOR:
            return  # what an asynchronous generator yields is wrapped
        back = frame.f_back
        while back is not None and not back.f_code.co_filename.startswith(ROOT):
            back = back.f_back
        if back is None or not self.is_test(back.f_code.co_filename):
            return  # called by the project itself, or by no test
        values = frame.f_locals
        name = frame.f_code.co_qualname if sys.version_info >= (3, 11) else frame.f_code.co_name
        call: dict[str, Any] = {"name": name.rpartition("<locals>.")[2], "path": file}
        call["line"] = back.f_lineno if back is frame.f_back else 0
        call["args"] = arguments(frame)
        call["untyped"] = untyped(value for _, value in call["args"])
        first = call["args"][0][0] if call["args"] else ""
        if first in ("self", "cls") and not of_a_class(name):
            call["args"][0] = ("*", call["args"][0][1])  # a function's own, whatever its name
        elif first == "self":
            call["kind"] = type(values["self"]).__name__
            call["property"] = isinstance(getattr(type(values["self"]), frame.f_code.co_name, None), property)
        if "kind" not in call and frame.f_code.co_flags & NESTED:
            call["local"] = True
        if frame.f_code.co_flags & GENERATOR:
            call["yielded"] = []
        if frame.f_code.co_flags & COROUTINE:
            call["awaited"] = True
        self.calls.append(call)
        self.open[id(frame)] = (frame, call)

    def returned(self, frame: FrameType, arg: Any) -> None:
        _, call = self.open[id(frame)]
        code = frame.f_code.co_code
        ended = code[frame.f_lasti] in RETURNS
        waits = code[frame.f_lasti] in SUSPENDS and (arg is not None or self.raised.get(id(frame)) != frame.f_lasti)
        if "awaited" in call and waits:
            return
        resumed = "yielded" in call and ended and code[frame.f_lasti] == dis.opmap["YIELD_VALUE"]
        if resumed:
            if len(call["yielded"]) <= MANY:
                call["yielded"].append(shown(arg) if len(call["yielded"]) < MANY else "...")
            return
        del self.open[id(frame)]
        self.raised.pop(id(frame), None)
        if ended:
            call.pop("error", None)  # caught again
            if "yielded" not in call:
                call["returned"] = shown(arg)
        call["after"] = state(frame)

    def measure(self, frame: FrameType) -> None:
        depth, back = 0, frame.f_back
        while back is not None and not self.is_test(back.f_code.co_filename):
            depth += back.f_code.co_filename.startswith(ROOT)
            back = back.f_back
        if back is not None:
            self.depth = depth if self.depth is None else min(depth, self.depth)

    def is_test(self, file: str) -> bool:
        if file not in self.of_test:
            self.of_test[file] = in_tests(file)
        return self.of_test[file]


class EndlessError(BaseException):
    """A test took too long: not caught by `except Exception`, and raised again each second."""


def stop(signum: int, frame: FrameType | None) -> None:
    raise EndlessError(f"more than {CPU_S:.0f} s")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    tracer = Tracer(item.nodeid)
    signal.signal(signal.SIGPROF, stop)
    params = getattr(getattr(item, "callspec", None), "params", {})
    FOUND[item.nodeid]["params"] = {name: shown(value) for name, value in params.items()}
    FOUND[item.nodeid]["untyped"] = untyped(FOUND[item.nodeid]["params"].values())
    signal.setitimer(signal.ITIMER_PROF, CPU_S, 1.0)
    sys.settrace(tracer)
    try:
        return (yield)
    except BaseException as error:
        signal.setitimer(signal.ITIMER_PROF, 0)
        FOUND[item.nodeid]["error"] = [type(error).__name__, said(error)]
        if isinstance(error, EndlessError):
            item.session.shouldstop = str(error)
        raise
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        sys.settrace(None)
        FOUND[item.nodeid]["depth"] = tracer.depth


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish() -> None:
    with open(os.environ["CRRL_TRACE"], "w") as out:
        json.dump(FOUND, out)
