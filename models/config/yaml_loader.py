"""Reading YAML as users of RecBole expect it."""

import re
from typing import Any

import yaml


class _YamlLoader(yaml.SafeLoader):
    """Safe YAML in which `1e-3` is a number, as in YAML 1.2 and in RecBole's own files."""


_YamlLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(\d[\d_]*\.?\d*|\.\d+)([eE][-+]?\d+)|[-+]?(\d+\.\d*|\.\d+)$"),
    list("-+0123456789."),
)


def parse_yaml(text: str) -> Any:
    """Read a YAML text; raises `yaml.YAMLError` where it is not YAML."""
    return yaml.load(text, Loader=_YamlLoader)
