"""`crrl doctor`: is this machine ready?"""

from __future__ import annotations

from dataclasses import asdict

from crrl.cli.call import Call, print_json

USAGE = "crrl doctor [sandbox.state_dir=FOLDER] [--json]"
HELP = """
It only looks, except that it removes containers left by killed runs. Exit 1 if the quickstart lacks something; each
line that is not `ok` says what to do.
"""


def run(call: Call) -> int:
    state_dir = call.state_dir()
    call.no_settings()
    call.only()
    from crrl.report.doctor import examine, render

    findings = examine(state_dir)
    if call.json:
        print_json({"ready": all(f.status != "missing" for f in findings), "findings": [asdict(f) for f in findings]})
    else:
        render(findings)
    return 1 if any(f.status == "missing" for f in findings) else 0
