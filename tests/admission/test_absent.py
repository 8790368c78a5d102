"""What a machine lacks is told as that: `unavailable`, with its name."""

from __future__ import annotations

import pytest

from crrl.admission.absent import absent_in
from crrl.admission.admission import admit
from crrl.rewards.task_judge import TaskJudge
from crrl.task import Command, Source, Task, TestPlan


@pytest.mark.parametrize(
    ("printed", "missing"),
    [
        ("error: no matching package named `serde` found\nlocation searched: registry `crates-io`", "the crate serde"),
        ("error[E0463]: can't find crate for `proptest`", "the crate proptest"),
        (
            "[ERROR] Failed to execute goal on project x: Could not resolve dependencies for project a:b:jar:1: Cannot "
            "access central (https://repo) in offline mode and the artifact org.ow2.asm:asm:jar:9.1 has not been",
            "org.ow2.asm:asm:jar:9.1, of Maven",
        ),
        ("> No cached version of junit:junit:4.12 available for offline mode.", "junit:junit:4.12, of Gradle"),
        ("error: Source option 6 is no longer supported. Use 7 or later.", "a Java that compiles for 6"),
        ("Caused by: No enum constant org.example.JavaVersion.VERSION_17", "an older Java (its build knows no "
         "org.example.JavaVersion.VERSION_17)"),
        ("Unsupported class file major version 61", "an older Java (its build knows no class files of version 61)"),
        ("x.go:3:2: github.com/a/b@v1.2.3: module lookup disabled by GOPROXY=off", "the Go module "
         "github.com/a/b@v1.2.3"),
        ("Error: Cannot find module 'lodash/fp'", "the npm package lodash/fp"),
        ("E   ModuleNotFoundError: No module named 'yaml'", "the Python module yaml"),
        ("sh: 1: protoc: not found", "the program protoc"),
        ('Error: Error importing plugin "pytest_x": No module named \'pytest_x\'', "the Python module pytest_x"),
        ("Plugin [id: 'com.example.x', version: '1.0'] was not found in any of", "the Gradle plugin com.example.x"),
        ("java.lang.UnsupportedClassVersionError: a/B has been compiled by a more recent version of the Java Runtime "
         "(class file version 65.0)", "a newer Java (class files of version 65.0)"),
        ("error: release version 21 not supported", "Java 21"),
        ("x.go:3:2: no required module provides package github.com/a/b; to add it:", "the Go module of github.com/a/b"),
        ("x.go:4:2: package slices is not in GOROOT (/usr/lib/go/src/slices)", "a newer Go (with its package slices)"),
        ("note: module requires Go 1.22", "Go 1.22"),
        ("  feature `edition2024` is required", "a newer Cargo (edition2024)"),
        ("error: no such command: `nextest`", "the program cargo-nextest"),
        ("error: linker `cc` not found", "the program cc"),
        ("Error [ERR_MODULE_NOT_FOUND]: Cannot find package 'chai' imported from /workspace/a.mjs", "the npm package "
         "chai"),
        ("Error [ERR_UNKNOWN_BUILTIN_MODULE]: No such built-in module: node:sqlite", "a newer Node.js (with "
         "node:sqlite)"),
        ("x.c:1:10: fatal error: openssl/ssl.h: No such file or directory", "the C header openssl/ssl.h"),
        ("ImportError: libGL.so.1: cannot open shared object file: No such file", "the library libGL.so.1"),
        ("importlib.metadata.PackageNotFoundError: No package metadata was found for attrs", "the Python package "
         "attrs"),
        ("pkg_resources.DistributionNotFound: The 'six>=1.9' distribution was not found", "the Python package six"),
        ("ImportError: cannot import name 'Mapping' from 'collections' (/usr/lib/x.py)", "an older Python (its "
         "collections has no Mapping)"),
        ("ERROR: Package 'x' requires a different Python: 3.11.2 not in '<3.9'", "another Python (3.11.2 not in "
         "'<3.9')"),
        ("Error: getaddrinfo EAI_AGAIN example.com", "the network"),
        ("java.net.UnknownHostException: example.com", "the network"),
        ("_tkinter.TclError: no display name and no $DISPLAY environment variable", "a display"),
        ("locale.Error: unsupported locale setting", "a locale"),
        ("bash: protoc: command not found", "the program protoc"),
        ("E   FileNotFoundError: [Errno 2] No such file or directory: 'hg'\n\n/usr/lib/python3.11/subprocess.py:1955: "
         "FileNotFoundError", "the program hg"),
        ("E   FileNotFoundError: [Errno 2] No such file or directory: 'data.txt'\n\nm.py:3: FileNotFoundError", ""),
        ("importlib.metadata.PackageNotFoundError: No package metadata was found for pkg", ""),
        ("E   ModuleNotFoundError: No module named 'pkg.core._speedups'", "its extension module pkg.core._speedups, "
         "which is not built here"),
        ("ImportError: You appear to be trying to import pkg from within a source checkout or from an editable "
         "installation without building the extension modules first.", "its extension modules, which are not built "
         "here"),
        ("ImportError: C extension: pkg.lib not built. If you want to import", "its extension module pkg.lib, which is "
         "not built here"),
        ("E   ModuleNotFoundError: No module named 'pkg.gone'", ""),  # the project's own: that is a bug
        ("FAILED test_m.py::test_a - assert 1 == 2", ""),
        ("Cannot find module './own'", ""),
    ],
)  # fmt: skip
def test_what_is_printed(printed: str, missing: str) -> None:
    assert absent_in(printed, ["pkg", "tests"]) == missing


FIX = "diff --git a/m.py b/m.py\n--- a/m.py\n+++ b/m.py\n@@ -1 +1 @@\n-x = 1\n+x = 2\n"


@pytest.mark.parametrize("baseline", [False, True])
@pytest.mark.parametrize(("module", "status"), [("nowhere", "unavailable"), ("m.nowhere", "broken")])
async def test_a_task_that_lacks_a_module(task_judge: TaskJudge, module: str, status: str, baseline: bool) -> None:
    files = {"m.py": "x = 1\n", "test_m.py": f"import {module}\n\n\ndef test_x():\n    pass\n"}
    plan = TestPlan(Command(["test_m.py"]), "pytest", ["test_m.py::test_x"], [], baseline=baseline)
    task = Task("a", "a", "test", "python", "", Source(files=files), "x", plan, solution=FIX)
    admission = await admit(task, task_judge, times=1)
    assert admission.status == status
    if status == "unavailable":
        assert admission.reasons[0].startswith("needs the Python module nowhere")
