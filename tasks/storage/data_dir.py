"""Where data lives: a folder, or a store with a folder of this machine's own beside it.

`LLMKT_DATA_DIR` is a path or a URL. With a URL, results are objects in that store, while what needs
a file system (databases, locks, checkpoints, Prefect's own state) and a copy of each artifact that
was used here is in a local folder: `LLMKT_LOCAL_DIR`, or one named after the URL.
"""

import hashlib
import os
import re
from pathlib import Path

from filelock import FileLock

from models.credentials import credential_in, masked
from models.errors import BadInput
from tasks.storage.disk_errors import writing

PROJECT_ROOT = Path(__file__).resolve().parents[2]


def data_dir() -> Path:
    """The data folder: LLMKT_DATA_DIR, else `data/` in the project; for a URL, its local folder.

    Raises:
        BadInput: if the URL is none that may be used.
    """
    url = store_url()
    if url is None:
        place = os.environ.get("LLMKT_DATA_DIR") or PROJECT_ROOT / "data"
    else:
        place = os.environ.get("LLMKT_LOCAL_DIR") or PROJECT_ROOT / "data" / "stores" / _name(url)
    return Path(place).expanduser().resolve()


def contained(name: str) -> str:
    """Return the name of a file of the data folder if it leads to no other place.

    Names come out of files and stores that others may have written.

    Raises:
        ValueError: for an absolute name, one with `..`, and one that no file here has.
    """
    if not is_contained(name):
        raise ValueError(f"{name!r} is not the name of a file in the data folder")
    return name


def is_contained(name: str) -> bool:
    """Whether `contained` takes a name."""
    parts = name.split("/")
    return all(parts) and not {".", ".."} & set(parts) and name.isprintable() and "\\" not in name


def data_lock(name: str) -> FileLock:
    """A lock of the data folder, not acquired yet; the kernel frees it if its holder is killed.

    Raises:
        BadInput: if the disk refuses.
    """
    folder = data_dir() / "locks"
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    return FileLock(folder / f"{name}.lock", thread_local=False)


def is_url(where: str) -> bool:
    """Whether it names a store rather than a folder."""
    return "://" in where


def store_url() -> str | None:
    """LLMKT_DATA_DIR if it is a URL, without a slash at the end.

    Raises:
        BadInput: if there are credentials in it, or it names no place in a store.
    """
    url = os.environ.get("LLMKT_DATA_DIR") or ""
    if not is_url(url):
        return None
    if credential_in(url) or "?" in url or "#" in url:
        raise BadInput(
            f"{masked(url).partition('?')[0]} as data folder holds more than a "
            "place. Leave credentials and options to the environment (AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, AWS_PROFILE, AWS_ENDPOINT_URL)."
        )
    if not url.partition("://")[2].strip("/"):
        raise BadInput(f"{url} as data folder names no bucket or folder. Write s3://BUCKET/PREFIX.")
    return url.rstrip("/")


def _name(url: str) -> str:
    """Readable, and different for different URLs."""
    readable = re.sub(r"[^A-Za-z0-9]+", "-", url).strip("-")[:60]
    return f"{readable}-{hashlib.sha256(url.encode()).hexdigest()[:8]}"
