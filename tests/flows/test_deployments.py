"""The deployment files: each names flows, configurations and a pool that exist."""

import re
from importlib import import_module

import pytest
import yaml

from tasks.storage.artifacts import PROJECT_ROOT

EXAMPLES = PROJECT_ROOT / "examples" / "deployment"


@pytest.mark.parametrize("file", ["prefect.yaml", "examples/deployment/machines.yaml"])
def test_deployments_name_what_is_there(file):
    given = yaml.safe_load((PROJECT_ROOT / file).read_text())["deployments"]
    assert [each["name"] for each in given] == ["on-demand", "nightly", "grid"]
    for each in given:
        path, _, name = each["entrypoint"].partition(":")
        module = import_module(path.removesuffix(".py").replace("/", "."))
        assert callable(getattr(module, name))
        assert (PROJECT_ROOT / each["parameters"]["config"]).is_file()
        assert each["work_pool"]["name"] == "llmkt"
        assert each["concurrency_limit"] == {"limit": 1, "collision_strategy": "ENQUEUE"}


def test_units_start_what_is_there():
    units = {unit.name: unit.read_text() for unit in EXAMPLES.glob("*.service")}
    assert len(units) == 3
    for text in units.values():
        [started] = re.findall(r"^ExecStart=/opt/llmkt-flow/\.venv/bin/(\S+)", text, re.MULTILINE)
        assert started in ("python", "prefect", "llmkt")
        assert "password" not in text.replace("PASSWORD", "").lower()
