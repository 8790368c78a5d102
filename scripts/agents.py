"""Install agents of conf/agent/ where boxes can read them: `python scripts/agents.py NAME...`, or all without a name.

Each gets a folder below STATE_DIR/agents (default STATE_DIR: that of `sandbox.state_dir`), in which the `install` line
of its configuration is run. One that is there, by the same line, is left alone.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import yaml

from crrl.conf.recipes import FOLDER, ready
from crrl.sandbox import default_state_dir


def main() -> int:
    state_dir = Path(os.environ.get("STATE_DIR") or default_state_dir())
    lines = {
        name: yaml.safe_load((FOLDER / "agent" / f"{name}.yaml").read_text()).get("install") for name in ready("agent")
    }
    lines = {name: line for name, line in lines.items() if line}
    names = sys.argv[1:] or list(lines)
    if unknown := [name for name in names if name not in lines]:
        print(f"No agent to install: {', '.join(unknown)}. There are: {', '.join(lines)}", file=sys.stderr)
        return 2
    os.umask(0o022)  # whoever installs: boxes run as another uid
    failed = [name for name in names if not install(state_dir / "agents" / name, lines[name])]
    if failed:
        print(f"Not installed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def install(folder: Path, line: str) -> bool:
    stamp = folder / ".installed"
    if stamp.is_file() and stamp.read_text() == line:
        return True
    print(f"{folder.name}: {line}", flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    if subprocess.run(["sh", "-c", line], cwd=folder, stdout=subprocess.DEVNULL).returncode != 0:
        return False
    stamp.write_text(line)
    return True


if __name__ == "__main__":
    sys.exit(main())
