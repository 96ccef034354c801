"""Reading YAML as users of RecBole expect it, and refusing what no settings need."""

import re
from typing import Any

import yaml

from models.errors import BadInput, cut

_DEEPEST, _MOST_NODES = 40, 100_000
_TAG = "tag:yaml.org,2002:"
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")
_NEVER = re.compile(r"[\x00\ud800-\udfff]")


class _YamlLoader(yaml.SafeLoader):
    """Safe YAML in which `1e-3` is a number, as in YAML 1.2 and in RecBole's own files.

    A key that stands twice, a key that is no text, control characters, and more levels or nodes
    than settings have, aliases written out, raise `yaml.YAMLError`.
    """

    def get_single_node(self) -> yaml.Node | None:
        """Compose the document and check it before anything is made of it."""
        node = super().get_single_node()
        if node is not None:
            _measure(node, {})
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """Make a value; what Python refuses (`!!timestamp x`, month 13) names its line, too."""
        try:
            value = super().construct_object(node, deep)
            if isinstance(value, int):
                str(value)  # which Python refuses beyond 4,300 digits
            return value
        except yaml.YAMLError:
            raise
        except Exception:
            kind = node.tag.rpartition(":")[2]
            raise _problem(f"{cut(str(node.value))} is not a valid {kind}", node) from None


_YamlLoader.add_implicit_resolver(
    f"{_TAG}float",
    re.compile(r"[-+]?(\d[\d_]*\.?\d*|\.\d+)([eE][-+]?\d+)|[-+]?(\d+\.\d*|\.\d+)$"),
    list("-+0123456789."),
)


def _problem(problem: str, node: yaml.Node) -> yaml.YAMLError:
    return yaml.constructor.ConstructorError(None, None, problem, node.start_mark)


def _refuse(_: _YamlLoader, node: yaml.Node) -> Any:
    raise _problem(f"the tag {cut(node.tag).replace(_TAG, '!!')} is not allowed", node)


for _kind in (None, *(f"{_TAG}{name}" for name in ("binary", "omap", "pairs", "set"))):
    _YamlLoader.add_constructor(_kind, _refuse)  # None: every other tag, such as !!python/…
# A plain = is text, as in YAML 1.2.
_YamlLoader.add_constructor(f"{_TAG}value", lambda _, node: node.value)


def _measure(node: yaml.Node, known: dict[int, tuple[int, int] | None]) -> tuple[int, int]:
    """Count the nodes and levels of `node`, aliases written out; `known` has those of earlier ones.

    Anchors stand before their aliases, so that `known` keeps the recursion as shallow as the text.
    """
    if id(node) in known:
        found = known[id(node)]
        if found is None:
            raise _problem("an alias stands within what it names", node)
        return found
    known[id(node)] = None
    size = depth = 1
    for child in _children(node):
        below, levels = _measure(child, known)
        size, depth = size + below, max(depth, levels + 1)
    if size > _MOST_NODES or depth > _DEEPEST:
        raise _problem(f"more than {_DEEPEST} levels or {_MOST_NODES:,} values", node)
    known[id(node)] = size, depth
    return size, depth


def _children(node: yaml.Node) -> list[yaml.Node]:
    """The nodes directly below, after a check of keys and characters."""
    if isinstance(node, yaml.SequenceNode):
        return list(node.value)
    if not isinstance(node, yaml.MappingNode):
        # A single one may be a delimiter, such as Hive's \x01.
        if (_CONTROL if len(node.value) > 1 else _NEVER).search(node.value):
            raise _problem("control characters are not allowed", node)
        return []
    seen = set()
    for key, _ in node.value:
        if key.tag == f"{_TAG}merge":
            continue
        if key.tag != f"{_TAG}str":
            raise _problem("this key is not text; put it in quotes", key)
        if key.value in seen:
            raise _problem(f"the key {cut(key.value)} stands twice", key)
        seen.add(key.value)
    return [child for pair in node.value for child in pair]


def parse_yaml(text: str, where: str, first_line: int = 1) -> Any:
    """Read a YAML document; BadInput names `where` and the line, counted from `first_line`."""
    try:
        return yaml.load(text, Loader=_YamlLoader)
    except RecursionError:
        problem, mark = f"more than {_DEEPEST} levels", None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or "control characters are not allowed"
    line = (
        f", line {mark.line + first_line}"
        if mark and "\n" in text.strip() + "\n" * first_line
        else ""
    )
    raise BadInput(f"{where}{line}: this is not valid YAML: {problem}. Correct it")
