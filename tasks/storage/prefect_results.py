"""Where Prefect keeps the results of stages: files in the data folder, or objects in its store."""

from prefect.filesystems import LocalFileSystem, WritableFileSystem

from tasks.storage.artifacts import data_dir, replacing
from tasks.storage.object_store import store

FOLDER = "cache"
"""In the data folder or the store: one file or object per result, named by its key."""


class ResultFolder(LocalFileSystem):
    """Prefect's results as files: each whole or not there, whenever a run is killed."""

    _block_type_name = "LLM-KT Flow results"

    # Stages are synchronous, and so is Prefect's call.
    def write_path(  # type: ignore[override]
        self, path: str, content: bytes, _sync: bool = True
    ) -> str:
        """Write by temporary file and atomic rename."""
        final = self._resolve_path(path)
        with replacing(final) as temporary:
            temporary.write_bytes(content)
        return str(final)


class ResultObjects(WritableFileSystem):
    """Prefect's results as objects of the store, so that any machine finds them."""

    _block_type_name = "LLM-KT Flow results in a store"

    def _resolve_path(self, path: str) -> None:
        """Nothing: to Prefect a key is a key, and no path below the working directory."""

    def read_path(self, path: str, _sync: bool = True) -> bytes:  # type: ignore[override]
        """Read a result's record; ValueError if there is none: Prefect takes that for a miss."""
        remote = store()
        assert remote is not None
        content = remote.read(f"{FOLDER}/{path}")
        if content is None:
            raise ValueError(f"{remote.url} has no result {path}")
        return content

    def write_path(  # type: ignore[override]
        self, path: str, content: bytes, _sync: bool = True
    ) -> str:
        """Make or replace a record, all at once."""
        remote = store()
        assert remote is not None
        remote.write(f"{FOLDER}/{path}", content)
        return path


def result_storage() -> WritableFileSystem:
    """Where results are, as the environment says now."""
    if store() is not None:
        return ResultObjects()
    return ResultFolder(basepath=str(data_dir() / FOLDER))


def has_result(key: str) -> bool:
    """Whether a result is kept, whole or not."""
    remote = store()
    if remote is not None:
        return remote.size(f"{FOLDER}/{key}") is not None
    return (data_dir() / FOLDER / key).is_file()
