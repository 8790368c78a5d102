"""The negative control of tasks without decoys: the same tests, made to fail after the code under test has run.

Decoys (`decoys/`) are the stronger means. Where a task's tests have no assertion that can be made wrong, this is left:
it tells reports that were made up and tests that were swapped, not answers that equal anything. A patch under which all
tests pass is run once more with its tests sabotaged; the known fix is run so first, and only tests that fail under it,
as they should, can convict (invariant 3; what remains possible is told in `docs/security.md`).

To add a language: a function below that makes every test of a file fail at its end, and its suffix in `SABOTAGE`.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Mapping

from crrl.rewards import patching

Files = Mapping[str, patching.File | None]


def sabotaged(tests: Files, name: str) -> dict[str, patching.File | None]:
    """The test files, each test in them failing once its own code has run. `name`: the canary's.
    Files in which no test was found are as they were."""
    made: dict[str, patching.File | None] = dict(tests)
    for path, file in tests.items():
        sabotage = SABOTAGE.get(posixpath.splitext(path)[1])
        if file is None or file.link is not None or sabotage is None:
            continue
        text = sabotage(file.data.decode("utf-8", "surrogateescape"), name)
        made[path] = patching.File(text.encode("utf-8", "surrogateescape"), file.executable)
    return made


def python(text: str, name: str) -> str:
    """Wraps test functions and methods, fixtures and signatures kept."""
    if not re.search(r"^\s*(?:async\s+)?def test", text, flags=re.MULTILINE):
        return text
    return text.rstrip("\n") + PYTHON.replace("NAME", name)


def java(text: str, name: str) -> str:
    """JUnit 4 and 5, and `tearDown` of JUnit 3: a method that runs after each test."""
    opened = re.search(r"\bclass\s+\w+[^{]*\{", text)
    if opened is None:
        return text
    fails = f'{{ if (true) throw new AssertionError("{name}"); }}'
    if "org.junit.jupiter" in text:
        added = f" @org.junit.jupiter.api.AfterEach public void after{name}() {fails}"
    elif "org.junit." in text:
        added = f" @org.junit.After public void after{name}() {fails}"
    elif "tearDown" not in text:
        added = f" protected void tearDown() {fails}"
    else:
        return text
    return text[: opened.end()] + added + text[opened.end() :]


def script(text: str, name: str) -> str:
    """jest and vitest. The canary stands in the same file."""
    own = f"expect.getState().currentTestName.includes('{name}')"
    return f"{text}\nafterEach(() => {{ if (!{own}) throw new Error('{name}'); }});\n"


def go(text: str, name: str) -> str:
    test = re.compile(r"^func Test\w+\((\w+) \*testing\.T\) \{", flags=re.MULTILINE)
    return test.sub(rf'\g<0> \1.Cleanup(func() {{ \1.Errorf("{name}") }});', text)


def rust(text: str, name: str) -> str:
    test = re.compile(r"(#\[test\]\s*(?:#\[[^\]]*\]\s*)*(?:async\s+)?fn\s+\w+\(\)[^{]*\{)")
    guard = f"\nstruct {name};\nimpl Drop for {name} {{\n    fn drop(&mut self) {{\n"
    guard += f'        if !std::thread::panicking() {{ panic!("{name}") }}\n    }}\n}}\n'
    made, count = test.subn(rf"\1 let _{name.lower()} = {name};", text)
    return made + guard if count else text


def catch(text: str, name: str) -> str:
    test = re.compile(r"^(TEST_CASE\((?:[^()\"]|\"(?:[^\"\\]|\\.)*\")*\)\s*\{)", flags=re.MULTILINE)
    head = re.compile(r"\A(?:.*\n)*?(?=TEST_CASE)")
    guard = f"namespace {{ struct {name} {{ ~{name}() {{ CHECK(false); }} }}; }}\n"
    made, count = test.subn(rf"\1 {name} at_end;", text)
    return head.sub(lambda found: found[0] + guard, made, count=1) if count else text


PYTHON = """


def _NAME():
    import functools
    import inspect
    import unittest

    def failing(test):
        @functools.wraps(test)
        def run(*args, **kwargs):
            test(*args, **kwargs)
            raise AssertionError("NAME")

        @functools.wraps(test)
        async def run_async(*args, **kwargs):
            await test(*args, **kwargs)
            raise AssertionError("NAME")

        return run_async if inspect.iscoroutinefunction(test) else run

    for key, value in list(globals().items()):
        if key.startswith("test") and inspect.isfunction(value):
            globals()[key] = failing(value)
        elif isinstance(value, type) and (key.startswith("Test") or issubclass(value, unittest.TestCase)):
            for name, test in list(vars(value).items()):
                if name.startswith("test") and inspect.isfunction(test):
                    setattr(value, name, failing(test))


_NAME()
"""
SABOTAGE: dict[str, Callable[[str, str], str]] = {
    ".py": python,
    ".java": java,
    ".go": go,
    ".rs": rust,
    ".cpp": catch,
    **dict.fromkeys((".js", ".jsx", ".mjs", ".cjs", ".ts", ".mts", ".cts", ".tsx"), script),
}
