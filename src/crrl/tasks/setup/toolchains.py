"""The toolchains that a task's commands need, by name (`TestPlan.needs`), and the remedy if one is missing.

A toolchain is below /usr, which every box sees, or in `toolchains/` of the sandbox's state folder, which boxes mount
read-only. This file installs nothing.
"""

from __future__ import annotations

import glob
import importlib.metadata
import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from crrl.errors import CrrlError
from crrl.sandbox import in_use
from crrl.sandbox.api import Mount
from crrl.tasks.setup import interpreters

JARS = "/usr/share/java"
JUNIT4 = f"{JARS}/junit4.jar:{JARS}/hamcrest.jar"
JUNIT = ":".join(
    f"{JARS}/{name}.jar"
    for name in (
        "junit-platform-console",
        "junit-platform-commons",
        "junit-platform-engine",
        "junit-platform-launcher",
        "junit-platform-reporting",
        "junit-jupiter-api",
        "junit-jupiter-engine",
        "junit-jupiter-params",
        "junit-vintage-engine",
        "junit4",
        "hamcrest",
        "opentest4j",
        "apiguardian-api",
        "picocli",
        "univocity-parsers",
    )
)
DEBIAN_JAVA = "apt-get install openjdk-17-jdk-headless junit5 libpicocli-java"


@dataclass(frozen=True)
class Toolchain:
    """Args:
    paths: must exist; a pattern (`*`) must match something.
    mounts: host path or pattern -> path in the box; those that do not exist are left out.
    env: of every command of a task that needs it.
    remedy: how to install it.
    """

    paths: tuple[str, ...]
    remedy: str
    mounts: Mapping[str, str] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)

    def missing(self, state_dir: Path) -> list[str]:
        return [path for path in self.paths if not glob.glob(_full(path, state_dir))]


DEFECTS4J = "{defects4j}"  # stands for its folder, wherever that is
JAVA_SETTINGS = {"/etc/java-*-openjdk": ""}  # "": where it is on the host; Debian's JDK reads its settings there
TOOLCHAINS: dict[str, Toolchain] = {
    "junit": Toolchain(("/usr/bin/javac", *JUNIT.split(":")), DEBIAN_JAVA, JAVA_SETTINGS),
    "assertj": Toolchain((f"{JARS}/assertj-core.jar",), "apt-get install libassertj-core-java"),
    "go": Toolchain(
        ("/usr/bin/go",),
        "apt-get install golang-go",
        env={
            "GOCACHE": "/tmp/go",
            "GOPATH": "/tmp/gopath",
            "GOPROXY": "off",
            "GOTOOLCHAIN": "local",
            "GOFLAGS": "-mod=mod",
        },
    ),
    "rust": Toolchain(  # boxes do not see a toolchain under a home folder
        ("/usr/bin/cargo", "/usr/bin/rustc"),
        "apt-get install cargo",
        env={"CARGO_HOME": "/tmp/cargo", "CARGO_NET_OFFLINE": "true"},
    ),
    "cmake": Toolchain(("/usr/bin/cmake", "/usr/bin/make", "/usr/bin/g++"), "apt-get install cmake make g++"),
    "jest": Toolchain(
        ("/usr/bin/node", "jest/node_modules/jest", "jest/node_modules/@exercism/babel-preset-javascript"),
        "npm install --prefix {toolchains}/jest jest@29 babel-jest@29 @babel/core@7 core-js@3.37 "
        "@exercism/babel-preset-javascript@0.2.1",
        {"jest/node_modules": "/node_modules"},  # where Node looks for a module from /workspace
    ),
    "node": Toolchain(("/usr/bin/node",), "apt-get install nodejs npm, or a newer Node.js below /usr"),
    "maven": Toolchain(
        ("/usr/bin/mvn", "m2"),
        "apt-get install maven, then in a checkout with network: mvn -Dmaven.repo.local={toolchains}/m2 test",
        {**JAVA_SETTINGS, "/etc/maven": "", "m2": "/opt/m2"},
    ),
    "gradle": Toolchain(
        ("gradle/bin/gradle", "gradle-home"),
        "unpack a Gradle into {toolchains}/gradle, then, in a checkout and with network: "
        "gradle -g {toolchains}/gradle-home test",
        {**JAVA_SETTINGS, "gradle": "/opt/gradle", "gradle-home": "/opt/gradle-home"},
    ),
    "defects4j": Toolchain(
        (f"{DEFECTS4J}/framework/bin/defects4j", "/usr/bin/javac", "/usr/bin/perl"),
        "install Defects4J (its README: Java 11 for version 3, Perl modules, ./init.sh with network) outside HOME, and "
        "set DEFECTS4J_HOME; only Lang, Math and Jsoup can be built without it",
        {
            **JAVA_SETTINGS,
            f"{DEFECTS4J}/project_repos/README": "",
            f"{DEFECTS4J}/major": "",
            f"{DEFECTS4J}/framework/[bcul]*": "",
            f"{DEFECTS4J}/framework/projects/*.*": "",
            f"{DEFECTS4J}/framework/projects/lib": "",
            f"{DEFECTS4J}/framework/projects/[A-Z]*/[!pm]*": "",  # not patches, not modified_classes
        },
        {"PATH": f"{DEFECTS4J}/framework/bin:/usr/bin:/bin", "TZ": "America/Los_Angeles"},
    ),
}


def defects4j(state_dir: Path) -> Path | None:
    """The folder of Defects4J: DEFECTS4J_HOME, else where the command on PATH lies, else `toolchains/defects4j`."""
    command = shutil.which("defects4j")
    named = os.environ.get("DEFECTS4J_HOME")
    places = [Path(named)] if named else [Path(command).resolve().parents[2]] if command else []
    places.append(folder(state_dir) / "defects4j")
    return next((place for place in places if (place / "framework/bin/defects4j").is_file()), None)


def folder(state_dir: Path) -> Path:
    """The folder for toolchains that no package manager installs."""
    return state_dir / "toolchains"


def require(needs: Iterable[str], state_dir: Path) -> None:
    """Raises CrrlError, with the remedy, for the first that is missing."""
    for name in needs:
        if name.startswith("python:"):
            _require_package(name.removeprefix("python:"))
        elif interpreters.NAMED.fullmatch(name):
            interpreters.wanted([name], state_dir)
        elif missing := TOOLCHAINS[name].missing(state_dir):
            remedy = TOOLCHAINS[name].remedy.format(toolchains=folder(state_dir))
            raise CrrlError(f"needs {name} (no {missing[0]})", remedy)


def mounts(needs: Iterable[str], state_dir: Path) -> tuple[Mount, ...]:
    """The mounts of these toolchains that exist."""
    wanted = [pair for name in needs if name in TOOLCHAINS for pair in TOOLCHAINS[name].mounts.items()]
    found = [(Path(place), inside or place) for path, inside in wanted for place in glob.glob(_full(path, state_dir))]
    found += [(folder, str(folder)) for folder in interpreters.folders(needs, state_dir)]
    for source, _ in found:
        in_use.use_mount(source, state_dir)
    return tuple(Mount(source, target) for source, target in dict.fromkeys(found))


def environment(needs: Iterable[str], state_dir: Path) -> dict[str, str]:
    """Of each command of a task with these needs."""
    given = [pair for name in needs if name in TOOLCHAINS for pair in TOOLCHAINS[name].env.items()]
    return {key: _placed(value, state_dir) for key, value in given}


def _require_package(package: str) -> None:
    """A distribution that the system's Python, which boxes and the judge use, has to have."""
    places = [*glob.glob("/usr/lib/python3*/*-packages"), *glob.glob("/usr/local/lib/python3*/*-packages")]
    if not any(importlib.metadata.distributions(name=package, path=places)):
        raise CrrlError(
            f"needs the Python package {package}",
            f"apt-get install python3-{package} (boxes see the system's Python, not a virtual environment)",
        )


def _full(path: str, state_dir: Path) -> str:
    path = _placed(path, state_dir)
    return path if path.startswith("/") else str(folder(state_dir) / path)


def _placed(text: str, state_dir: Path) -> str:
    if DEFECTS4J not in text:
        return text
    return text.replace(DEFECTS4J, str(defects4j(state_dir) or folder(state_dir) / "defects4j"))
