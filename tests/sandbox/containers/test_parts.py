"""What containers need besides an engine: workspaces out of images, patches out of layers, images within a limit,
command lines.
"""

from __future__ import annotations

import io
import marshal
import os
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from container_kit import BUGGY, FIXED, TEST, TEST_AFTER, git, history

from crrl.errors import CrrlError, UsageError
from crrl.sandbox.api import ImageRoot, Limits, Workspace
from crrl.sandbox.containers import apptainer, engine, python, workspace
from crrl.sandbox.containers.api import Image, Start
from crrl.sandbox.containers.box import _patch
from crrl.sandbox.containers.images import Images
from crrl.task import Source
from crrl.tasks.diffs import between


def archive_of(root: Path, image: Path):
    """Paths of a folder as an engine streams them; `root` stands for the image's /testbed."""

    def archive(path: str) -> Iterator[bytes]:
        place = image / path.removeprefix("/") if not path.startswith("/testbed") else Path(f"{root}{path[8:]}")
        if not place.exists():
            raise FileNotFoundError(path)
        whole = io.BytesIO()
        with tarfile.open(fileobj=whole, mode="w") as tar:
            tar.add(place, Path(path).name)
        data = whole.getvalue()
        yield from (data[i : i + 1000] for i in range(0, len(data), 1000))

    return archive


def prepared(state_dir: Path, tmp_path: Path, found: list[list[str]], **source) -> Workspace:
    root, base, _ = history()
    asked: list[tuple[ImageRoot, list[str]]] = []

    def find(image: ImageRoot, commits: list[str]) -> list[str]:
        asked.append((image, commits))
        return found.pop(0) if found else []

    wanted = Source(image="x", workdir="/testbed", base_commit=base, **source)
    made = workspace.prepare(
        wanted, state_dir, id=f"sha256:{tmp_path.name}", user="", archive=archive_of(root, tmp_path), find=find
    )
    assert all(commits == [base, base] for _, commits in asked)
    return made


def test_a_workspace_comes_out_of_an_image(state_dir: Path, tmp_path: Path) -> None:
    """What git tracks, as it lies there, with a history of one commit; the other store is hidden, and sought again."""
    made = prepared(state_dir, tmp_path, [["/testbed/.git", "/opt/mirror.git"], []])
    assert sorted(p.name for p in made.lower.iterdir()) == [
        *(".git", ".gitignore", "calc.py", "link.py", "runner.py", "test_calc.py"),
    ]
    assert (made.lower / "calc.py").read_text() == BUGGY and os.readlink(made.lower / "link.py") == "calc.py"
    assert git(made.lower, "log", "--all", "--format=%s") == "base" and git(made.lower, "status", "--short") == ""
    assert made.image is not None and made.image.hide == ("/opt/mirror.git",) and made.image.changed == {}
    layer = made.image.layer
    assert [str(p.relative_to(layer)) for p in layer.rglob("*") if ".git/" not in str(p)] == ["testbed", "testbed/.git"]
    assert os.getxattr(layer / "testbed/.git", "user.overlay.opaque") == b"y"
    assert prepared(state_dir, tmp_path, [["never asked"]]) == made


def test_a_history_that_cannot_be_hidden_is_refused(state_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(CrrlError, match=r"/testbed/.git cannot be hidden"):
        prepared(state_dir, tmp_path, [["/testbed/.git"], ["/testbed/.git"]])


def test_a_source_s_patches_are_told_from_the_image(state_dir: Path, tmp_path: Path) -> None:
    patches = [between("calc.py", BUGGY, FIXED), between("runner.py", (history()[0] / "runner.py").read_text(), None)]
    made = prepared(state_dir, tmp_path, [], patches=patches)
    assert made.image is not None and made.image.changed == {"calc.py": (0o100644, FIXED.encode()), "runner.py": None}
    assert (made.lower / "calc.py").read_text() == FIXED and not (made.lower / "runner.py").exists()


def test_files_of_another_commit_come_out_of_an_image_s_history(state_dir: Path, tmp_path: Path) -> None:
    root, base, fix = history()

    def at(commit: str, root: Path = root) -> Path:
        source = Source(image="x", workdir="/testbed", base_commit=commit)
        archive, id = archive_of(root, tmp_path), f"sha256:{root.name}"
        return workspace.of_history(source, ["test_calc.py", "none.py"], state_dir, id=id, archive=archive).lower

    assert [p.name for p in at(fix).iterdir() if p.name != ".git"] == ["test_calc.py"]  # nothing else of the repair
    assert (at(fix) / "test_calc.py").read_text() == TEST_AFTER and (at(base) / "test_calc.py").read_text() == TEST
    with pytest.raises(CrrlError, match="x: the tests cannot be taken from its history"):
        at("0" * 40)
    # An image may not name objects of the host's as its own.
    borrowing = tmp_path / "borrowing"
    (borrowing / ".git/objects/info").mkdir(parents=True)
    (borrowing / ".git/objects/info/alternates").write_text(f"{root}/.git/objects\n")
    with pytest.raises(CrrlError, match="cannot be taken"):
        at(fix, borrowing)


def layer(*entries: tuple[str, str, str, bytes]) -> bytes:
    rows = (f"{kind} {mode} {len(data)} {path}\0".encode() + data for kind, mode, path, data in entries)
    return b"".join(rows)


def test_a_patch_comes_out_of_a_layer(state_dir: Path, tmp_path: Path) -> None:
    made = prepared(state_dir, tmp_path, [])
    text = _patch(
        layer(
            ("f", "644", "calc.py", FIXED.encode()),
            ("w", "0", "link.py", b""),
            ("d", "755", "build", b""),
            ("f", "644", "build/new.o", b"ignored by the base"),
            ("f", "644", ".gitignore", b"*\n"),
            ("f", "755", "run.sh", b"echo\n"),
            ("l", "777", "passwd", b"/etc/passwd"),
            ("f", "644", "test_calc.py", TEST.encode()),  # touched, and as it was
        ),
        made,
    )
    tree = tmp_path / "tree"
    subprocess.run(["cp", "-r", made.lower, tree], check=True)
    subprocess.run(["git", "apply", "-"], cwd=tree, input=text.encode(), check=True)
    assert (tree / "calc.py").read_text() == FIXED and not (tree / "link.py").is_symlink()
    assert os.access(tree / "run.sh", os.X_OK) and os.readlink(tree / "passwd") == "/etc/passwd"
    assert not (tree / "build").exists() and "test_calc.py" not in text
    assert _patch(b"", made) == ""
    too_big = f"b 644 {9 << 20} calc.py\0".encode()
    assert _patch(too_big, made) == ""  # left out, and the base's version stays


class Folder:
    """An engine's images, as files of a folder: `name` holds its layers, a line each."""

    def __init__(self, registry: dict[str, list[tuple[str, int]]]) -> None:
        self.registry, self.here = registry, dict[str, list[tuple[str, int]]]()
        self.pulled: list[str] = []

    def image(self, name: str) -> Image:
        if name not in self.here:
            raise CrrlError(f"needs the image {name}")
        return Image(name, name, "", sum(size for _, size in self.here[name]), tuple(self.here[name]))

    def pull(self, name, progress) -> None:
        if name not in self.registry:
            raise CrrlError(f"{name} cannot be pulled", "Is there network?")
        self.pulled.append(name)
        self.here[name] = self.registry[name]
        progress(1, 1)

    def delete(self, name: str) -> None:
        del self.here[name]


def test_images_are_fetched_once_and_the_least_recently_used_go(tmp_path: Path) -> None:
    base = ("base", 50)
    engine = Folder({name: [base, (name, 20)] for name in "abcd"})
    engine.here["own"] = [("own", 1000)]  # was there before: neither counted nor given up
    images = Images(tmp_path)

    def fetch(names: str, most: int | None) -> list[tuple[str, str, tuple[str, ...]]]:
        found = images.fetch(names, engine, most, lambda *_: None)  # type: ignore[arg-type]
        return [(got.name, got.how, got.evicted) for got in found]

    assert fetch("abc", None) == [("a", "fetched", ()), ("b", "fetched", ()), ("c", "fetched", ())]
    images.used("a")
    assert fetch("ad", 110) == [("a", "there", ()), ("d", "fetched", ("b",))]  # 50 + 20 each: what they share once
    assert set(engine.here) == {"own", "a", "c", "d"} and engine.pulled == ["a", "b", "c", "d"]
    with pytest.raises(CrrlError, match="max_disk") as caught:
        fetch("bc", 80)
    assert "ids=" in caught.value.remedy and {"a", "d"} <= set(engine.here)  # nothing was given up for nothing
    with pytest.raises(CrrlError, match="none cannot be pulled"):
        list(images.fetch(["none"], engine, None, lambda *_: None))  # type: ignore[arg-type]
    assert [how for _, how, _ in fetch("bc", None)] == ["there", "there"]  # what it brought before has stayed


def test_an_image_that_a_killed_fetch_brought_is_counted_and_given_up_like_others(tmp_path: Path) -> None:
    engine = Folder({name: [(name, 20)] for name in "ab"})

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(Images(tmp_path).fetch("a", engine, None, killed))  # type: ignore[arg-type]
    (got,) = Images(tmp_path).fetch("b", engine, 20, lambda *_: None)  # type: ignore[arg-type]
    assert got.evicted == ("a",) and set(engine.here) == {"b"}


def test_apptainer_s_command_lines(tmp_path: Path) -> None:
    file = apptainer.name_of(tmp_path, "swebench/sweb.eval.x86_64.a_1776_b-1:latest")
    assert file.name == "swebench_sweb.eval.x86_64.a_1776_b-1_latest.sif"
    assert apptainer.pulling(file, "a/b:c") == ["apptainer", "pull", "--force", str(file), "docker://a/b:c"]
    confined = "--containall --no-home --cleanenv --no-init --net --network none"
    archive = f"apptainer exec {confined} x.sif tar -C / -cf - testbed"
    assert " ".join(apptainer.archiving("x.sif", "/testbed")) == archive
    limits = Limits(memory_bytes=1 << 30, processes=100, disk_bytes=1 << 20, tmp_bytes=1 << 20)
    line = " ".join(apptainer.starting(Start("x.sif", ["/.crrl/a", "b"], {"/var/x": "/.crrl"}, limits, 2.0)))
    memory = (100 << 24) + (2 << 20)
    assert line == (
        f"apptainer exec --fakeroot {confined} --hostname box --memory {memory} --memory-swap {memory} "
        "--pids-limit 108 --cpus 2 --bind /var/x:/.crrl:ro x.sif /.crrl/a b"
    )


def test_where_no_engine_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/no.sock")
    monkeypatch.setenv("CONTAINER_HOST", f"unix://{tmp_path}/none.sock")
    with pytest.raises(CrrlError, match=r"no.sock is not there; .*none.sock is not there") as caught:
        engine.ContainerEngine("auto")
    assert "apt-get install podman" in caught.value.remedy
    monkeypatch.setenv("DOCKER_HOST", "tcp://example.org:2375")
    with pytest.raises(CrrlError, match="not a container engine on this machine"):
        engine.ContainerEngine("docker")
    with pytest.raises(UsageError, match="no container engine podmann"):
        engine.ContainerEngine("podmann")


def test_an_owner_that_is_gone_is_told_from_one_that_runs() -> None:
    mine = engine.owner()
    assert not engine._is_gone(mine)
    boot, rest = mine.split(":", 1)
    assert engine._is_gone(f"00000000:{rest}")  # before this boot
    assert engine._is_gone(mine.rpartition(":")[0] + ":1.00")  # another process had this pid
    assert not engine._is_gone(f"{boot}:pid:[1]:1:1.00")  # another pid namespace: not ours to say


def test_the_interpreter_that_containers_are_shown_stands_alone(state_dir: Path) -> None:
    """From its own loader and libraries, it has what the exec server imports."""
    folder, version = python.make(state_dir)
    loader, option, _, binary = python.command(version)[:4]
    here = [str(folder) + path.removeprefix("/.crrl") for path in (loader, binary)]
    code = "import ctypes, marshal, resource, select, warnings, _socket, sys; print(sys.prefix)"
    said = subprocess.run(
        [here[0], option, f"{folder}/lib", here[1], "-ISE", "-c", code], capture_output=True, text=True
    )
    assert said.stdout.strip() == str(folder), said.stderr
    assert python.make(state_dir) == (folder, version)
    library = folder / "lib" / f"python{version}"
    assert marshal.loads((library / "pid1.pyc").read_bytes()[16:]).co_name == "<module>"
