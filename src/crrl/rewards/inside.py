"""What the judged test process runs: pytest, driven by hand, its report kept out of plain reach.

Imported once by the zygote (standard library and pytest only), run in a fork. Patched code shares this process, so
nothing here is a wall and nothing here looks for cheats: the walls are the namespaces around it, and what a report is
worth is found from outside, by tests whose right answers nobody in this process knows (`decoys/`). So whatever a
project's plugins patch is their business.

The report's key and the statuses live on the interpreter's evaluation stack only (`deliver(mac(...), run(...))`,
`tuple(map(...))`): a report that was written in passing does not count.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.machinery
import json
import os
import pathlib
import site
import socket
import sys
import traceback
import types
from collections.abc import Callable, Iterator
from typing import Any

import _pytest.config
import pytest
from _pytest.fixtures import FixtureFunctionDefinition, FixtureManager
from _pytest.main import Session
from _pytest.runner import runtestprotocol

NEEDS = ("pluggy", "iniconfig", "packaging", "pygments")  # `harness.NEEDS`
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


def judge(request: dict, fd: int) -> None:
    """Run the request's tests, report once, end. Never returns."""
    report = socket.socket(fileno=fd)
    exit_now, send = os._exit, report.sendall
    stage(request)
    try:
        deliver(mac(read_key(report)), run(request), send, exit_now)
    except BaseException:
        traceback.print_exc()  # what broke the run is part of what it printed
        raise


def read_key(report: socket.socket) -> bytes:
    return report.recv(32, socket.MSG_WAITALL)


def mac(key: bytes) -> hashlib.blake2b:
    return hashlib.blake2b(key=key, digest_size=32)


def deliver(digest: hashlib.blake2b, body: bytes, send: Callable, exit_now: Callable) -> None:
    digest.update(body)
    send(digest.digest() + body)
    exit_now(0)


def stage(request: dict) -> None:
    """Make the process look like `python -m pytest` started in the checkout."""
    os.chdir(os.path.join("/workspace", request["cwd"]))
    os.environ.update(request["env"])
    if not request["sites"]:  # nothing is installed beside pytest; else the task's environment brings its plugins
        os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    sys.dont_write_bytecode = True
    given = [os.path.abspath(p) for p in request["env"].get("PYTHONPATH", "").split(":") if p]
    sys.path[:] = [os.getcwd(), *given, *(p for p in sys.path if not p.startswith("/harness"))]
    if request["sites"]:  # like a virtual environment: without the system's packages
        sys.path[:] = [p for p in sys.path if not p.endswith("-packages")]
        sys.executable = "/environment/bin/python3"
    for folder in request["sites"]:
        site.addsitedir(folder)
    sys.path.append("/harness/site")
    sys.argv[:] = ["pytest", *request["argv"]]
    for name in ("inside", "judged_init", "memory_use", "memory_watch", "__main__"):  # a project may have one
        sys.modules.pop(name, None)
    sys.modules["__main__"] = types.ModuleType("__main__")
    give_way()


def give_way() -> None:
    """To the checkout's packages: a project that pytest needs is imported from there. pytest keeps what it holds."""
    for name in NEEDS:
        spec = importlib.machinery.PathFinder.find_spec(name)
        if spec is not None and (spec.origin or "").startswith("/workspace/"):
            for loaded in [key for key in sys.modules if key == name or key.startswith(f"{name}.")]:
                del sys.modules[loaded]


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
    """pytest's `_prepareconfig`, on a configuration made before the fork unless plugins are switched off or on."""
    autoload = "PYTEST_DISABLE_PLUGIN_AUTOLOAD" not in os.environ
    if autoload or any(word.startswith(("no:", "-pno:")) for word in argv if word not in PREPARED):
        return _pytest.config._prepareconfig(argv, plugins)
    warm.invocation_params = warm.InvocationParams(args=argv, plugins=plugins, dir=pathlib.Path.cwd())
    for plugin in plugins:
        warm.pluginmanager.register(plugin)
    return warm.pluginmanager.hook.pytest_cmdline_parse(pluginmanager=warm.pluginmanager, args=argv)


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


def run(request: dict) -> bytes:
    """Collect and run; the result is the report's body: {"tests": [[id, status], ...]}."""
    dumps = json.dumps
    config = prepare(request["argv"], [Protocol()], WARM)
    if hasattr(config.option, "dist"):  # pytest-xdist: what runs elsewhere reports elsewhere
        config.option.dist, config.option.tx = "no", []
    config._do_configure()
    give_way()  # `pythonpath` of the project's settings
    session = Session.from_config(config)
    config.hook.pytest_sessionstart(session=session)

    def run_one(place: int) -> tuple[str, str]:
        item = items[place]
        following = items[place + 1] if place + 1 < len(items) else None
        return (item.nodeid, config.hook.pytest_runtest_protocol(item=item, nextitem=following))

    def places() -> Iterator[int]:
        for place in range(len(items)):
            if session.shouldfail or session.shouldstop:
                return
            yield place

    broken = not collected(config, session)
    items = tuple(session.items)
    return finish(config, session, dumps, () if broken else tuple(map(run_one, places())))


def collected(config: pytest.Config, session: Session) -> bool:
    """Collect; like pytest, errors in collection mean that nothing runs."""
    try:
        config.hook.pytest_collection(session=session)
    except Session.Failed:
        return False
    return not session.testsfailed or config.option.continue_on_collection_errors


def finish(config: pytest.Config, session: Session, dumps: Callable, statuses: tuple[tuple[str, str], ...]) -> bytes:
    body = dumps({"tests": statuses}).encode()
    status = pytest.ExitCode.TESTS_FAILED if session.testsfailed else pytest.ExitCode.OK
    config.hook.pytest_sessionfinish(session=session, exitstatus=status)
    sys.stdout.flush()
    return body


skip_plugins_without_fixtures()
WARM = _pytest.config.get_config(PREPARED)
