"""Kill-safe locks of cache keys."""

import threading
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from prefect.locking.protocol import LockManager

from tasks.storage.data_dir import data_lock


class KernelFileLocks(LockManager):
    """One lock file per key, held by the kernel, so that a killed process leaves no lock.

    Prefect's `FileSystemLockManager` keeps its locks as plain files, which outlive a kill.
    """

    def __init__(self) -> None:
        self._held: dict[str, tuple[str, FileLock]] = {}
        self._guard = threading.Lock()

    def __reduce__(self) -> tuple[type["KernelFileLocks"], tuple[()]]:
        return KernelFileLocks, ()

    def __deepcopy__(self, memo: dict[int, Any]) -> "KernelFileLocks":
        return self

    def _acquire(self, key: str, timeout: float | None) -> FileLock | None:
        """The lock of a key, taken; None if it stays busy."""
        lock = data_lock(Path(key).name)
        try:
            lock.acquire(timeout=-1 if timeout is None else timeout)
        except Timeout:
            return None
        return lock

    def acquire_lock(
        self,
        key: str,
        holder: str,
        acquire_timeout: float | None = None,
        hold_timeout: float | None = None,  # noqa: ARG002 - the kernel holds it until release
    ) -> bool:
        """Wait for the key's lock, at most `acquire_timeout` seconds; False if it stays busy."""
        if self.is_lock_holder(key, holder):
            return True
        lock = self._acquire(key, acquire_timeout)
        if lock is None:
            return False
        with self._guard:
            self._held[key] = (holder, lock)
        return True

    async def aacquire_lock(
        self,
        key: str,
        holder: str,
        acquire_timeout: float | None = None,
        hold_timeout: float | None = None,
    ) -> bool:
        """`acquire_lock` for Prefect's asynchronous engine; stages themselves are synchronous."""
        return self.acquire_lock(key, holder, acquire_timeout, hold_timeout)

    def release_lock(self, key: str, holder: str) -> None:
        """Release the key's lock if `holder` has it."""
        with self._guard:
            held_by, lock = self._held.get(key, (None, None))
            if lock is None or held_by != holder:
                raise ValueError(f"{holder} does not hold the lock of {key}")
            del self._held[key]
        lock.release()

    def is_locked(self, key: str) -> bool:
        """True if any process holds the key's lock."""
        return not self.wait_for_lock(key, timeout=0)

    def is_lock_holder(self, key: str, holder: str) -> bool:
        """True if `holder` took the key's lock in this process."""
        with self._guard:
            return self._held.get(key, (None, None))[0] == holder

    def wait_for_lock(self, key: str, timeout: float | None = None) -> bool:
        """Wait until the key's lock is free; False after `timeout` seconds."""
        lock = self._acquire(key, timeout)
        if lock is not None:
            lock.release()
        return lock is not None

    async def await_for_lock(self, key: str, timeout: float | None = None) -> bool:
        """`wait_for_lock` for Prefect's asynchronous engine."""
        return self.wait_for_lock(key, timeout)
