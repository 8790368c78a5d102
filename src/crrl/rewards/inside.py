"""What the judged test process runs: pytest, driven by hand, its report kept out of patched code's reach.

Imported once by the zygote (standard library and pytest only), run in a fork. Patched code shares this
process, so nothing here is a wall; the walls are the namespaces around it and the supervisor outside. What
this file does is make a forged report hard and leave a trace:

- the report's key and the statuses live on the interpreter's evaluation stack only
  (`deliver(mac(...), run(...))`, `tuple(map(...))`): no variable, closure, plugin or container leads to them;
- an audit hook, which Python code cannot remove, ends the run where patched code reaches for frames, the
  garbage collector, ctypes, /proc memory, its supervisor, or code that claims a trusted file name;
- pytest's, pluggy's, unittest's and the builtins' own callables, and every registered hook, are compared with
  what they were before the workspace was imported: after each test and at the end.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import pathlib
import site
import socket
import sys
import types

# held by name: patched code can replace what `builtins` gives, not what these functions use
from builtins import all, any, frozenset, getattr, id, isinstance, len, map, range, tuple, type, vars  # noqa: UP029
from collections.abc import Callable, Iterator
from operator import is_
from typing import Any

import _pytest.config
import pluggy
import pytest
from _pytest.fixtures import FixtureFunctionDefinition, FixtureManager
from _pytest.main import Session
from _pytest.runner import runtestprotocol

PREPARED = ("-p", "no:cacheprovider")  # the judge's own arguments, known before any run
# what pytest, its plugins and common tests import late; already imported, a fork need not
WARM_IMPORTS = """
_pytest._argcomplete _pytest.pytester_assertions readline faulthandler asyncio bisect configparser copy csv
dataclasses datetime decimal doctest enum fractions functools heapq io itertools logging math multiprocessing
operator pdb queue random re shutil statistics string subprocess tempfile textwrap threading tomllib typing
unittest.mock
"""
for _name in WARM_IMPORTS.split():
    importlib.import_module(_name)

TRUSTED = ("_pytest", "pytest", "pluggy", "iniconfig", "unittest", "builtins", "operator", "_operator")
FRAME_ATTRIBUTES = frozenset({"tb_frame", "gi_frame", "cr_frame", "ag_frame"})
FRAME_GIVERS = frozenset({"currentframe", "stack", "getouterframes", "walk_stack", "walk_tb", "<lambda>"})
CODE_ATTRIBUTES = frozenset({"__code__", "__defaults__", "__kwdefaults__"})
PROBES = {
    "gc.get_objects": "memory_probe",
    "gc.get_referrers": "memory_probe",
    "gc.get_referents": "memory_probe",
    "sys._current_frames": "frame_probe",
    "sys._current_exceptions": "frame_probe",
    "sys.settrace": "frame_probe",
    "sys.setprofile": "frame_probe",
    "sys.addaudithook": "frame_probe",
    "sys.monitoring.register_callback": "frame_probe",
}
KILLS = frozenset({"os.kill", "os.killpg"})
REPLACED = "_getini_unknown_type"  # pytest's own legacypath plugin replaces it at the start
SYSTEM = ("/usr/", "/harness/", "<frozen")


def judge(request: dict, fd: int) -> None:
    """Run the request's tests, report once, end. Never returns."""
    report = socket.socket(fileno=fd)
    exit_now, send = os._exit, report.sendall
    stage(request)
    guard(frozenset(request["patched"]), tamper_exit(send, exit_now))
    deliver(mac(read_key(report)), run(request, tamper_exit(send, exit_now)), send, exit_now)


def read_key(report: socket.socket) -> bytes:
    return report.recv(32, socket.MSG_WAITALL)


def mac(key: bytes) -> hashlib.blake2b:
    return hashlib.blake2b(key=key, digest_size=32)


def deliver(digest: hashlib.blake2b, body: bytes, send: Callable, exit_now: Callable) -> None:
    digest.update(body)
    send(digest.digest() + body)
    exit_now(0)


def tamper_exit(send: Callable, exit_now: Callable) -> Callable[[str], None]:
    def stop(name: str) -> None:
        send(b"TAMPER " + name.encode())
        exit_now(73)

    return stop


def stage(request: dict) -> None:
    """Make the process look like `python -m pytest` started in the checkout."""
    os.chdir(os.path.join("/workspace", request["cwd"]))
    os.environ.update(request["env"])
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    sys.dont_write_bytecode = True
    sys.path[:] = [os.getcwd(), *(p for p in sys.path if not p.startswith("/harness"))]
    if request["sites"]:  # like a virtual environment: without the system's packages
        sys.path[:] = [p for p in sys.path if not p.endswith("-packages")]
        sys.executable = "/environment/bin/python3"
    for folder in request["sites"]:
        site.addsitedir(folder)
    sys.path.append("/harness/site")
    sys.argv[:] = ["pytest", *request["argv"]]
    for name in ("inside", "__main__"):
        sys.modules.pop(name, None)
    sys.modules["__main__"] = types.ModuleType("__main__")


def guard(patched: frozenset[str], stop: Callable[[str], None]) -> None:
    """Install the audit hook. It blames patched files and code made at run time, not the repository's own."""
    getframe, kill_targets = sys._getframe, frozenset({-1, 0, 1, os.getppid()})
    busy: list[bool] = []

    def blamed(frame: types.FrameType | None, *, direct: bool) -> bool:
        if direct and frame is not None and frame.f_code.co_filename.startswith(SYSTEM):
            if frame.f_code.co_name not in FRAME_GIVERS:
                return False
            frame = frame.f_back
            if frame is not None and frame.f_code.co_filename.startswith(SYSTEM):
                return False
        while frame is not None:
            name = frame.f_code.co_filename
            if name in patched:
                return True
            if name.startswith("/workspace/"):
                return False
            frame = frame.f_back
        return False

    def suspicion(event: str, args: tuple, frame: types.FrameType) -> str | None:
        if event in PROBES:
            return PROBES[event] if blamed(frame, direct=False) else None
        if event == "sys._getframe":
            return "frame_probe" if blamed(frame, direct=True) else None
        if event == "object.__getattr__":
            return "frame_probe" if args[1] in FRAME_ATTRIBUTES and blamed(frame, direct=True) else None
        if event == "object.__setattr__":
            return "patched_pytest" if args[1] in CODE_ATTRIBUTES and blamed(frame, direct=False) else None
        if event in KILLS:
            return "attacked_supervisor" if args[0] in kill_targets and blamed(frame, direct=False) else None
        if event == "open":
            path = args[0]
            probing = type(path) is str and path.startswith("/proc/") and path.endswith(("/mem", "/maps", "/stack"))
            return "memory_probe" if probing and blamed(frame, direct=False) else None
        if event.startswith("ctypes."):
            return "memory_probe" if blamed(frame, direct=False) else None
        filename = args[1] if event in ("compile", "code.__new__") else None
        faked = type(filename) is str and filename.startswith(("/harness/", "/usr/"))
        return "faked_code" if faked and blamed(frame, direct=False) else None

    watched = {*PROBES, *KILLS, "sys._getframe", "object.__getattr__", "object.__setattr__", "open"}
    watched |= {"compile", "code.__new__"}

    def hook(event: str, args: tuple) -> None:
        if (event not in watched and not event.startswith("ctypes.")) or busy:
            return
        busy.append(True)
        try:
            name = suspicion(event, args, getframe(1))
        finally:
            busy.clear()
        if name is not None:
            stop(name)

    sys.addaudithook(hook)


def skip_plugins_without_fixtures() -> None:
    """Spare each run the search for fixtures in pytest's own plugins that hold none."""
    search, bare = FixtureManager.parsefactories, {}

    def holds_none(holder: object) -> bool:
        kind = holder if isinstance(holder, type | types.ModuleType) else type(holder)
        if kind not in bare:
            trusted = getattr(kind, "__module__", None) or kind.__name__
            spaces = map(vars, kind.__mro__) if isinstance(kind, type) else [vars(kind)]
            bare[kind] = str(trusted).startswith("_pytest.") and not any(
                isinstance(value, FixtureFunctionDefinition) for space in spaces for value in space.values()
            )
        return bare[kind]

    def parsefactories(self: FixtureManager, *args: Any, **kwargs: Any) -> None:
        if "holder" not in kwargs or not holds_none(kwargs["holder"]):  # positional: a node, to be searched
            search(self, *args, **kwargs)

    FixtureManager.parsefactories = parsefactories  # type: ignore[method-assign]


def prepare(argv: list[str], plugins: list[object], warm: pytest.Config) -> pytest.Config:
    """pytest's `_prepareconfig`, on a configuration made before the fork unless plugins are switched off."""
    if any(word.startswith(("no:", "-pno:")) for word in argv if word not in PREPARED):
        return _pytest.config._prepareconfig(argv, plugins)
    warm.invocation_params = warm.InvocationParams(args=argv, plugins=plugins, dir=pathlib.Path.cwd())
    for plugin in plugins:
        warm.pluginmanager.register(plugin)
    return warm.pluginmanager.hook.pytest_cmdline_parse(pluginmanager=warm.pluginmanager, args=argv)


def snapshot() -> tuple:
    """Every callable that pytest, pluggy, unittest and the builtins hold, by identity."""
    own = {name: value for name, value in globals().items() if callable(value)}
    taken: list[tuple] = [(globals().get, tuple(own), tuple(own.values()))]
    for name, module in tuple(sys.modules.items()):
        if name.partition(".")[0] not in TRUSTED:
            continue
        spaces: list = [vars(module)]
        spaces += [
            vars(v)
            for v in vars(module).values()
            if isinstance(v, type) and v.__module__ == name and name not in ("builtins", "_operator")
        ]
        for space in spaces:
            kinds = (property, classmethod, staticmethod)
            names = tuple(k for k, v in space.items() if (callable(v) or isinstance(v, kinds)) and k != REPLACED)
            taken.append((space.get, names, tuple(space[k] for k in names)))
    return tuple(taken)


def untouched(taken: tuple, all: Callable = all, map: Callable = map, is_: Callable = is_) -> bool:
    """Defaults, not globals: patched code that finds this module's globals must not switch the check off."""
    return all(all(map(is_, map(get, names), values)) for get, names, values in taken)


def strange_hooks(config: pytest.Config, known: frozenset[int]) -> bool:
    """Whether a hook runs a function that neither pytest, nor configuration, nor a conftest.py brought."""
    for caller in vars(config.hook).values():
        if not isinstance(caller, pluggy.HookCaller):
            continue
        for impl in caller.get_hookimpls():
            plugin = impl.plugin
            file = getattr(plugin, "__file__", None) or ""
            if id(plugin) in known or os.path.basename(file) == "conftest.py":
                continue
            if not impl.function.__code__.co_filename.startswith("/harness/"):
                return True
    return False


class Protocol:
    """The one plugin of ours: gives a test's status back as the hook's result. It keeps nothing."""

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item, nextitem: pytest.Item | None) -> str:
        item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
        reports = runtestprotocol(item, nextitem=nextitem)
        item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
        return status_of(reports)


def status_of(reports: list[pytest.TestReport]) -> str:
    """pytest's own words: a failing set-up or tear-down is an error, an expected failure is skipped."""
    by_phase = {report.when: report.outcome for report in reports}
    if by_phase.get("setup") == "failed" or by_phase.get("teardown") == "failed":
        return "error" if by_phase.get("call") != "failed" else "failed"
    if by_phase.get("setup") == "skipped":
        return "skipped"
    return by_phase.get("call", "missing")


def run(request: dict, stop: Callable[[str], None]) -> bytes:
    """Collect and run; the result is the report's body: {"tests": {id: status}, "collected": n}."""
    before, dumps, intact, strange = BEFORE, json.dumps, untouched, strange_hooks
    config = prepare(request["argv"], [Protocol()], WARM)
    known = frozenset(map(id, config.pluginmanager.get_plugins()))
    config._do_configure()
    session = Session.from_config(config)
    config.hook.pytest_sessionstart(session=session)

    def verify() -> None:
        if not intact(before) or strange(config, known):
            stop("patched_pytest")

    def run_one(place: int) -> tuple[str, str]:
        item = items[place]
        following = items[place + 1] if place + 1 < len(items) else None
        status = config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        verify()
        return (item.nodeid, status)

    def places() -> Iterator[int]:
        for place in range(len(items)):
            if session.shouldfail or session.shouldstop:
                return
            yield place

    try:
        broken = not collected(config, session)
        items = tuple(session.items)
        verify()
        return finish(config, session, dumps, verify, () if broken else tuple(map(run_one, places())))
    except BaseException:
        verify()  # a run that breaks off may do so because of what was tampered with: name it
        raise


def collected(config: pytest.Config, session: Session) -> bool:
    """Collect; like pytest, errors in collection mean that nothing runs."""
    try:
        config.hook.pytest_collection(session=session)
    except Session.Failed:
        return False
    return not session.testsfailed or config.option.continue_on_collection_errors


def finish(
    config: pytest.Config,
    session: Session,
    dumps: Callable,
    verify: Callable,
    statuses: tuple[tuple[str, str], ...],
) -> bytes:
    body = dumps({"tests": statuses}).encode()
    status = pytest.ExitCode.TESTS_FAILED if session.testsfailed else pytest.ExitCode.OK
    config.hook.pytest_sessionfinish(session=session, exitstatus=status)
    sys.stdout.flush()
    verify()
    return body


skip_plugins_without_fixtures()
WARM = _pytest.config.get_config(PREPARED)
BEFORE = snapshot()
