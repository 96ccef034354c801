"""The store behind the data folder, if there is one: objects by name, through fsspec.

Objects are written whole or not at all, and artifacts never change, so that any number of machines
may read and write at the same time. Nothing here locks: see "One store, several machines" in
data/README.md for what is guarded, and what is not.
"""

import errno
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from models.errors import BadInput
from tasks.storage.data_dir import is_contained, store_url

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

_MARKER = ".llmkt"
"""An object that says what the folder is, and that it can be written and read."""

_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG}
"""Refusals that are not the store's; see `tasks.storage.disk_errors`."""

_WHOLE = {"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oci", "oss", "memory"}
"""Protocols by which an object appears only when all of it is there."""


@dataclass(frozen=True)
class Entry:
    """One object."""

    name: str
    """Relative to the store's URL."""
    bytes: int
    changed: float
    """Unix seconds."""


@dataclass(frozen=True)
class Store:
    """A folder in a store; all methods raise BadInput if it refuses or cannot be reached."""

    url: str
    system: "AbstractFileSystem"
    root: str
    """The folder's path in the words of fsspec."""
    _known: set[str] = field(default_factory=set, compare=False)
    """Names that this process has written, or has seen to be there."""

    def read(self, name: str) -> bytes | None:
        """An object's content; None if there is none."""
        with reaching(self.url):
            try:
                content: bytes = self.system.cat_file(self._path(name))
            except FileNotFoundError:
                return None
        return content

    def write(self, name: str, content: bytes) -> None:
        """Make or replace an object."""
        with reaching(self.url), self._whole(name) as path:
            self.system.pipe_file(path, content)

    def upload(self, file: Path, name: str) -> None:
        """Make or replace an object by a file's content."""
        with reaching(self.url), self._whole(name) as path:
            self.system.put_file(str(file), path)
        self._known.add(name)

    def keep(self, file: Path, name: str) -> None:
        """Upload an immutable file that the store has lost; asks once per process."""
        if name not in self._known and self.size(name) != file.stat().st_size:
            self.upload(file, name)
        self._known.add(name)

    def download(self, name: str, file: Path) -> bool:
        """Write an object's content to a file; False if there is no such object."""
        with reaching(self.url):
            try:
                self.system.get_file(self._path(name), str(file))
            except FileNotFoundError:
                return False
        return True

    def size(self, name: str) -> int | None:
        """An object's bytes; None if there is none."""
        info = self._info(name)
        return None if info is None else int(info["size"])

    def state(self, name: str) -> str | None:
        """What changes whenever an object is replaced; None if there is none."""
        info = self._info(name)
        if info is None:
            return None
        changes = [info.get(key) for key in ("size", "ETag", "etag", "LastModified", "mtime")]
        return json.dumps([*changes, info.get("created")], default=str)

    def entries(self, folder: str) -> list[Entry]:
        """All objects below a folder, by name; those that no file may be called are left out."""
        with reaching(self.url):
            self.system.invalidate_cache()
            found = self.system.find(self._path(folder), detail=True)
            names = {path[len(self.root) + 1 :]: info for path, info in sorted(found.items())}
            return [
                Entry(name, int(info["size"]), _changed(info))
                for name, info in names.items()
                if is_contained(name)
            ]

    def remove(self, names: list[str]) -> None:
        """Remove objects, of which any may be gone already."""
        self._known.difference_update(names)
        with reaching(self.url):
            for name in names:
                try:
                    self.system.rm_file(self._path(name))
                except FileNotFoundError:
                    continue

    def require_usable(self) -> None:
        """Write an object and read it back; BadInput if that is not possible."""
        content = b"The data folder of LLM-KT Flow; see data/README.md\n"
        self.write(_MARKER, content)
        if self.read(_MARKER) != content:
            raise BadInput(
                f"{self.url}: read back different bytes than were written. Use a store with "
                "read-after-write consistency."
            )

    def _path(self, name: str) -> str:
        return f"{self.root}/{name}"

    def _info(self, name: str) -> dict[str, Any] | None:
        with reaching(self.url):
            # Otherwise a listing of before may answer.
            self.system.invalidate_cache()
            try:
                found: dict[str, Any] = self.system.info(self._path(name))
            except FileNotFoundError:
                return None
        return found

    @contextmanager
    def _whole(self, name: str) -> Iterator[str]:
        """Where to write an object, so that nobody sees half of it."""
        path = self._path(name)
        if self.url.partition("://")[0] in _WHOLE:
            yield path
            return
        folder = path.rpartition("/")[0]
        self.system.makedirs(folder, exist_ok=True)
        temporary = f"{folder}/.writing-{uuid4().hex}"
        yield temporary
        self.system.mv(temporary, path)


def store() -> Store | None:
    """The store that LLMKT_DATA_DIR names, if any; BadInput for a bad URL or a missing package."""
    url = store_url()
    return None if url is None else _opened(url)


@lru_cache
def _opened(url: str) -> Store:
    import fsspec  # not above: local folders need none of it

    with reaching(url):
        try:
            system, root = fsspec.url_to_fs(url)
        except ValueError as error:  # a protocol that fsspec does not know
            raise BadInput(f"{url} cannot be used as data folder: {error}") from error
    return Store(url, system, root.rstrip("/"))


def _changed(info: dict[str, Any]) -> float:
    """When, in Unix seconds; 0 where the store does not say."""
    for key in ("LastModified", "mtime", "last_modified", "created"):
        found = info.get(key)
        if found is not None:
            return float(found.timestamp() if hasattr(found, "timestamp") else found)
    return 0.0


@contextmanager
def reaching(url: str) -> Iterator[None]:
    """Guard a use of a store.

    Raises:
        BadInput: naming the store and the fix, whatever went wrong; no credential is in it.
        OSError: if this machine's own disk is full or read-only.
    """
    try:
        yield
    except BadInput:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno in _DISK:
            raise
        raise BadInput(f"{url}: {_why(error, url)}, then run again.") from error


def _why(error: Exception, url: str) -> str:
    """The problem and its fix."""
    kind = type(error).__name__
    if isinstance(error, ImportError):
        return f"a package for {url.partition('://')[0]}:// is missing ({error}). Install it"
    if isinstance(error, FileNotFoundError):
        return "there is no such bucket or folder. Create it, or correct LLMKT_DATA_DIR"
    if isinstance(error, PermissionError):
        return (
            f"access is denied ({error}). Allow the credentials in the environment to read, write, "
            "list and delete there, or choose others"
        )
    if "Credential" in kind or "Token" in kind:
        return (
            f"there are no usable credentials ({kind}). Set AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
        )
    if isinstance(error, ConnectionError | TimeoutError) or "Connect" in kind or "Timeout" in kind:
        return (
            f"it cannot be reached ({kind}). Check the network, and AWS_ENDPOINT_URL if the store "
            "is not Amazon's"
        )
    return f"it cannot be used ({kind}: {error}). Correct that"
