"""Plug-ins: rows of a table that stand in a user's own file or package, named by import path.

`my_package.module:name` is found as Python finds it, the working directory included;
`folder/file.py:name` is a file. A plug-in's source is part of every cache key that names it.
"""

import hashlib
import importlib
import inspect
import json
import re
import sys
from collections.abc import Callable, Mapping
from modulefinder import ModuleFinder
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np

from models.errors import BadInput, cut

R = TypeVar("R")
T = TypeVar("T")

_PATH = re.compile(r"([^:@]+):([A-Za-z_]\w*)")
_OURS = ["models", "tasks", "flows"]
"""Packages whose code the stages' versions stand for."""


class _Loaded(NamedTuple):
    """An imported plug-in, the files it is made of, their times, and a digest of their content."""

    found: Any
    sources: dict[str, Path]
    stamp: list[int]
    digest: str


_loaded: dict[str, _Loaded] = {}


def is_path(name: object) -> bool:
    """Whether a name is an import path rather than a row's own name."""
    return isinstance(name, str) and _PATH.fullmatch(name) is not None


def load(name: Any) -> Any:
    """Import what a path names, anew where its source has changed; any other value is itself."""
    if not is_path(name):
        return name
    known = _loaded.get(name)
    if known is None or known.stamp != _stamp(known.sources):
        known = _loaded[name] = _import(name, known)
    return known.found


def digests(text: str | None = None) -> dict[str, str]:
    """Digest the present source of the plug-ins that a JSON text names; None: of all in use."""
    named = [name for name in _loaded if text is None or json.dumps(name)[1:-1] in text]
    for name in named:
        load(name)
    return {name: _loaded[name].digest for name in sorted(named)}


def require_same(expected: Mapping[str, str], where: str) -> None:
    """Raise BadInput for a plug-in whose source is another than the flow's."""
    for name, digest in expected.items():
        load(name)
        if _loaded[name].digest != digest:
            raise BadInput(
                f"{name}: its source on {where} is another than the flow's. Use one version "
                "everywhere, do not change it during a run, and run again."
            )


class Table(dict[str, R]):
    """Rows by name; an import path is a name, too, whose row is made when it is looked up."""

    def __init__(self, rows: Mapping[str, R], make: Callable[[str, Any], R]) -> None:
        """Take the rows that ship, and what makes a row of a path and of what it names."""
        super().__init__(rows)
        self.shipped, self._make = tuple(rows), make
        self._made_of: dict[str, Any] = {}

    def __getitem__(self, name: str) -> R:
        if is_path(name):
            found = load(name)
            if self._made_of.get(name) is not found:
                self[name], self._made_of[name] = self._make(name, found), found
        return super().__getitem__(name)

    def known(self, name: str) -> str:
        """Return a name that has a row; ValueError with the names that ship if it has none."""
        try:
            self[name]
        except KeyError:
            names = ", ".join(map(repr, self.shipped))
            raise ValueError(
                f"input should be {names} or your own's import path, my_package.module:name"
            ) from None
        return name


def shape_of(value: object) -> str:
    """A value's shape, or its type, in words."""
    shape = getattr(value, "shape", None)
    return f"a {type(value).__name__}" if shape is None else f"shape {tuple(shape)}"


def checked(
    name: str, call: str, function: Callable[..., T], expected: Callable[..., str | None]
) -> Callable[..., T]:
    """Wrap a plug-in's function, called as `call` says, so that it fails by a BadInput.

    `expected` is given the value and the arguments, and names what is wanted where it is not that.
    """
    try:
        inspect.signature(function).bind(*call.split(","))
    except (TypeError, ValueError):
        why = f"{name}: cannot be called as {call}. Write a function of that form."
        raise BadInput(why) from None

    def wrapped(*arguments: Any) -> T:
        value = calling(name, call, function, *arguments)
        wanted = expected(value, *arguments)
        if wanted:
            raise BadInput(f"{name}: {call} must return {wanted}, not {shape_of(value)}.")
        return value

    return wrapped


def numbers(value: Any, shape: tuple[int, ...]) -> str | None:
    """Say what is wanted where a value is no finite numbers of this shape."""
    array = np.asarray(value)
    fits = array.shape == shape and array.dtype.kind in "fiub" and np.isfinite(array).all()
    return None if fits else f"finite numbers of shape {shape}"


def calling(name: str, what: str, function: Callable[..., T], *arguments: Any) -> T:
    """Call a plug-in's function; BadInput with what it said if it fails."""
    try:
        return function(*arguments)
    except BadInput:
        raise
    except (Exception, SystemExit) as error:
        said = f"{type(error).__name__}: {cut(' '.join(str(error).split()), 300)}"
        raise BadInput(
            f"{name}: {what} failed with {said}. Correct the code, or install what it needs."
        ) from error


def _import(name: str, before: _Loaded | None) -> _Loaded:
    match = _PATH.fullmatch(name)
    if match is None or match[1] == "__main__":
        raise BadInput(
            f"{cut(name)}: this is no import path that worker processes could follow. Write the "
            "code to a file, and name that: my_models.py:NAME, or my_package.module:NAME."
        )
    where, attribute = match.groups()
    stale = {str(path) for path in before.sources.values()} if before else set()
    for key, module in list(sys.modules.items()):
        if getattr(module, "__file__", None) in stale:
            del sys.modules[key]
    path = Path(where).expanduser().resolve() if where.endswith(".py") else None
    if path and not path.is_file():
        raise BadInput(f"{name}: there is no file {where} in {Path.cwd()}. Correct the path.")
    folder, module_name = str(path.parent if path else Path.cwd()), path.stem if path else where
    if folder not in sys.path:
        sys.path.append(folder)  # last, so that nothing installed is shadowed
    importlib.invalidate_caches()
    module = calling(name, "importing it", importlib.import_module, module_name)
    file = Path(getattr(module, "__file__", None) or "built-in").resolve()
    if not file.is_file() or (path and file != path):
        raise BadInput(f"{name}: {module_name} is another module's name ({file}). Rename the file.")
    if not hasattr(module, attribute):
        names = ", ".join(key for key in vars(module) if not key.startswith("_"))
        raise BadInput(f"{name}: {where} has no {attribute}. Choose one of {cut(names, 300)}.")
    sources = _sources(file, module_name)
    digest = hashlib.sha256()
    for relative, source in sorted(sources.items()):
        digest.update(f"{relative}\n".encode() + source.read_bytes())
    found = getattr(module, attribute)
    return _Loaded(found, sources, _stamp(sources), digest.hexdigest()[:16])


def _sources(file: Path, module: str) -> dict[str, Path]:
    """The plug-in's file and its imports that lie beside it, or its installed package: by path."""
    root = file.parents[module.count(".") + (file.name == "__init__.py")]
    top = root / file.relative_to(root).parts[0]
    if {"site-packages", "dist-packages"} & set(root.parts):
        files = {*top.rglob("*.py")} if top.is_dir() else {top}
    elif top.name in _OURS:  # models.recommenders.comparators
        files = {*file.parent.glob("*.py")}
    else:
        finder = ModuleFinder([str(root)], excludes=_OURS)
        finder.import_hook(module)
        found = (getattr(part, "__file__", None) for part in finder.modules.values())
        files = {file, *(Path(path) for path in found if path)}
    return {path.relative_to(root).as_posix(): path for path in files}


def _stamp(sources: Mapping[str, Path]) -> list[int]:
    return [path.stat().st_mtime_ns if path.exists() else 0 for path in sources.values()]
