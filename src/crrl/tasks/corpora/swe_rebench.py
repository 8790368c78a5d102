"""SWE-rebench (Badertdinov et al. 2025, arXiv:2505.20411): some 21,000 mined Python issues. From its documentation.

Rows are SWE-bench's plus `install_config`, which has the test command and names the log parser, and `docker_image`
where one was built.
"""

from __future__ import annotations

from dataclasses import replace

from crrl.task import Task
from crrl.tasks.corpora.corpus import of_rows
from crrl.tasks.corpora.rows import Row, mapping, text
from crrl.tasks.corpora.swe_rows import commanded, image_name, task_of


def convert(row: Row, split: str) -> Task:
    image = image_name("swerebench", text(row, "instance_id"), "_1776_")
    task = task_of(row, "swe-rebench", split, image=text(row, "docker_image", image))
    config = mapping(row, "install_config")
    command, parser = text(config, "test_cmd"), text(config, "log_parser", "parse_log_pytest")
    plan = commanded(task.test, text(row, "repo"), text(row, "test_patch", ""), command, parser)
    kept = {key: str(config[key]) for key in ("python", "install", "packages") if config.get(key)}
    return replace(task, test=plan, provenance={**task.provenance, **kept})


CORPUS = of_rows("swe-rebench", "nebius/SWE-rebench", ("test", "filtered"), convert, from_documentation=True)
