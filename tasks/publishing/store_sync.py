"""The published set of a store: which version counts everywhere, and its files for any machine.

    s3://…/published/EXPERIMENT/current     an object whose text is the version's name
    s3://…/published/EXPERIMENT/VERSION/    its files, the manifest written last

The local folder follows it: manifests and the link at once, other files when they are read. Without
a store nothing here does anything.
"""

from pathlib import Path
from uuid import uuid4

from tasks.storage.artifacts import TEMPORARY, new_file, share
from tasks.storage.data_dir import data_dir
from tasks.storage.object_store import Store, store

FOLDER = "published"
CURRENT = "current"
MANIFEST = "manifest.json"


def follow() -> None:
    """Bring manifests and links up to date with the store's."""
    remote = store()
    if remote is None:
        return
    names = [entry.name for entry in remote.entries(FOLDER)]
    for name in names:
        manifest = data_dir() / name
        if manifest.name == MANIFEST and not manifest.is_file():
            with new_file(manifest.parent) as temporary:
                if remote.download(name, temporary):
                    temporary.replace(manifest)
    for name in names:
        if name.endswith(f"/{CURRENT}"):
            _link(data_dir() / name, (remote.read(name) or b"").decode())


def _link(link: Path, version: str) -> None:
    """Let the link lead where the store's object does."""
    if not version or (link.is_symlink() and str(link.readlink()) == version):
        return
    link.parent.mkdir(parents=True, exist_ok=True)
    temporary = link.with_name(f"{TEMPORARY}{uuid4().hex}")
    temporary.symlink_to(version)
    temporary.replace(link)


def put(version: Path) -> None:
    """Put a version's folder into the store, its manifest last."""
    for file in sorted(version.rglob("*"), key=lambda path: path.name == MANIFEST):
        if file.is_file():
            share(file)


def point(folder: Path, version: str) -> None:
    """Let a version count for whoever reads the store."""
    remote = store()
    if remote is not None:
        remote.write(_name(folder / CURRENT), version.encode())


def remove(version: Path) -> None:
    """Remove a version's folder from the store."""
    remote = store()
    if remote is not None:
        remote.remove(_below(remote, version))


def _below(remote: Store, folder: Path) -> list[str]:
    """The manifest first: what is half removed is no version any more."""
    names = [entry.name for entry in remote.entries(_name(folder))]
    return sorted(names, key=lambda name: not name.endswith(MANIFEST))


def _name(path: Path) -> str:
    return path.relative_to(data_dir()).as_posix()
