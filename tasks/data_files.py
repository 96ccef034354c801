"""The files of a data set as raw artifacts, by content; those elsewhere are fetched once."""

import contextlib
import json
import shutil
import zipfile
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from prefect.logging import get_logger
from pydantic import ValidationError
from tenacity import retry, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from models.config import ROLES, Dataset, Role
from models.errors import BadInput
from models.layouts import MOVIELENS
from tasks.progress import track
from tasks.storage import Handle, MissingArtifact, data_dir, write_file

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

CHUNK = 1 << 22
"""Bytes that a download asks for at once; what came before is kept when one fails."""

_PACKED = (".gz", ".bz2", ".xz")


def take_in(config: Dataset, demographics: tuple[str, ...] = ()) -> dict[str, Handle]:
    """The files as raw artifacts, by role and tag (`interactions.csv`, `items/movies.dat`).

    Doing this before the cached stage makes the stage's key depend on what the files hold and
    how they are laid out, not on where they are.

    Args:
        config: of any format but atomic.
        demographics: the fields of users that are asked for; without any, no user file is read.

    Raises:
        BadInput: for a missing file, a URL that cannot be fetched, or another sha256.
    """
    if config.kind == "movielens" and config.path is not None and config.interactions is None:
        taken = _movielens(config, config.path)
    else:
        taken = {}
        for role in ROLES:
            where = getattr(config, role)
            if where is not None and (role != "users" or demographics):
                file = _located(where, f"dataset.{role}")
                _check(config, role, where, file)
                taken[role + _tag(config, role, where)] = write_file("raw", _suffix(where), file)
    users = [key for key in taken if key.startswith("users")]
    if demographics and not users:
        raise BadInput(
            f"history.demographics asks for {', '.join(demographics)}, but the data set has no "
            "user file; set dataset.users, or leave demographics empty"
        )
    return {key: taken[key] for key in taken if demographics or key not in users}


def of_role(taken: dict[str, Handle], role: Role) -> tuple[str, Handle] | None:
    """The tag and the handle of what `take_in` found for a role."""
    for key, handle in taken.items():
        if key.startswith(role):
            return key.removeprefix(role).lstrip("/"), handle
    return None


def _suffix(where: str) -> str:
    """`.csv`, `.jsonl.gz`: the last suffix, and the one before if that says how it is packed."""
    suffixes = Path(where.partition("?")[0]).suffixes
    packed = bool(suffixes) and suffixes[-1].lower() in _PACKED
    return "".join(suffixes[-2:] if packed else suffixes[-1:]).lower()


def _tag(config: Dataset, role: Role, where: str) -> str:
    if config.kind != "movielens":
        return _suffix(where)
    name = Path(where).name
    if name not in MOVIELENS[role]:
        raise BadInput(
            f"dataset.{role}: {where} is not called {' or '.join(MOVIELENS[role])}, as MovieLens "
            "publishes it; give it that name, or set dataset.format to csv or tsv"
        )
    return f"/{name}"


def _check(config: Dataset, key: str, where: str, file: Path) -> None:
    """Compare a file with `dataset.sha256`; tell what it is where nothing is pinned."""
    with file.open("rb") as stream:
        digest = sha256()
        while chunk := stream.read(CHUNK):
            digest.update(chunk)
    found = digest.hexdigest()
    pinned = {str(name): text for name, text in config.sha256.items()}.get(key)
    if pinned is not None and pinned.lower() != found:
        _forget(where)
        raise BadInput(
            f"dataset.{key}: {where} has sha256 {found}, not {pinned}; fetch it again, or correct "
            f"dataset.sha256.{key} if this is the file you mean"
        )
    if pinned is None and _is_remote(where):
        get_logger("data").info("%s: sha256 %s; dataset.sha256.%s pins it", where, found, key)


def _movielens(config: Dataset, path: str) -> dict[str, Handle]:
    """The files in a published zip file, or in a folder that holds what was in it."""
    place = _located(path, "dataset.path", folder=True)
    if place.is_dir():
        found = {file.name: file for file in sorted(place.rglob("*")) if file.is_file()}
        return {
            f"{role}/{name}": write_file("raw", Path(name).suffix, found[name])
            for role, name in _chosen(path, set(found)).items()
        }
    _check(config, "path", path, place)
    try:
        with zipfile.ZipFile(place) as archive:
            members = {Path(member).name: member for member in archive.namelist()}
            return {
                f"{role}/{name}": _unpacked(archive, members[name])
                for role, name in _chosen(path, set(members)).items()
            }
    except (zipfile.BadZipFile, EOFError, NotImplementedError) as error:
        _forget(path)
        raise BadInput(
            f"dataset.path: {path} is no sound zip file ({error}); fetch it again, or name the "
            "folder that holds what was in it"
        ) from error


def _chosen(path: str, names: set[str]) -> dict[Role, str]:
    chosen: dict[Role, str] = {}
    for role in ROLES:
        present = [name for name in MOVIELENS[role] if name in names]
        if present:
            chosen[role] = present[0]
    if "interactions" not in chosen:
        wanted = ", ".join(MOVIELENS["interactions"])
        raise BadInput(f"dataset.path: {path} holds none of {wanted}; is it MovieLens?")
    return chosen


def _unpacked(archive: zipfile.ZipFile, member: str) -> Handle:
    file = _downloads() / f"{sha256(member.encode()).hexdigest()[:20]}.unpacked"
    try:
        with archive.open(member) as packed, file.open("wb") as plain:
            shutil.copyfileobj(packed, plain, CHUNK)
        return write_file("raw", Path(member).suffix, file)
    finally:
        file.unlink(missing_ok=True)


def _is_remote(where: str) -> bool:
    return "://" in where and not where.startswith("file://")


def _located(where: str, key: str, folder: bool = False) -> Path:
    """A local file or folder, fetched if `where` is a URL."""
    if _is_remote(where):
        return fetched(where, key).verify()
    file = Path(where.removeprefix("file://")).expanduser()
    if not (file.is_file() or (folder and file.is_dir())):
        raise BadInput(f"{key}: {file} does not exist; set {key} to where it is")
    return file


def _downloads() -> Path:
    folder = data_dir() / "downloads"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _record(url: str, suffix: str) -> Path:
    return _downloads() / f"{sha256(url.encode()).hexdigest()[:20]}{suffix}"


def _forget(url: str) -> None:
    """Have a file fetched again that turned out to be wrong."""
    if _is_remote(url):
        _record(url, ".json").unlink(missing_ok=True)


def fetched(url: str, key: str) -> Handle:
    """What a URL holds, as a raw artifact; fetched once, and from where it stopped.

    Raises:
        BadInput: if there is no such file or the store cannot be reached.
    """
    record = _record(url, ".json")
    # A record that is missing, or whose artifact is gone or altered, means: fetch it.
    with contextlib.suppress(FileNotFoundError, ValidationError, MissingArtifact):
        handle = Handle.model_validate_json(record.read_text())
        handle.verify()
        return handle
    try:
        part = _complete(url)
    except BadInput:
        raise
    except FileNotFoundError as error:
        raise BadInput(f"{key}: there is no {url}; correct it, or name a local copy") from error
    except ImportError as error:
        raise BadInput(f"{key}: {url} needs a package that is not installed: {error}") from error
    except Exception as error:
        kept = _record(url, ".part").stat().st_size if _record(url, ".part").is_file() else 0
        raise BadInput(
            f"{key}: {url} could not be fetched ({type(error).__name__}: {error}); {kept} bytes "
            "are kept: run again to go on, or name a local copy"
        ) from error
    handle = write_file("raw", _suffix(url), part)
    record.write_text(handle.model_dump_json())
    part.unlink()
    return handle


class _CutShort(OSError):
    """A connection ended before the file did."""


@retry(
    retry=retry_if_exception_type(_CutShort),
    stop=stop_after_attempt(4),
    wait=wait_random_exponential(max=5),
    reraise=True,
)
def _complete(url: str) -> Path:
    """The whole file as `.part`, begun anew if it changed meanwhile or cannot be resumed."""
    import fsspec

    system, path = fsspec.core.url_to_fs(url)
    # Sizes and versions are asked for anew each time.
    system.invalidate_cache()
    info = system.info(path)
    size = info.get("size")
    version = json.dumps([url, size, info.get("ETag") or str(info.get("LastModified"))])
    part, state = _record(url, ".part"), _record(url, ".version")
    if not state.is_file() or state.read_text() != version:
        part.unlink(missing_ok=True)
        state.write_text(version)
    with track(f"fetching {Path(path).name}", size or 0) as tracker:
        for done in _append(system, path, part):
            tracker(done)
    if size is not None and part.stat().st_size != size:
        raise _CutShort(f"{part.stat().st_size} of {size} bytes")
    state.unlink()
    return part


def _append(system: "AbstractFileSystem", path: str, part: Path) -> Iterator[int]:
    begun = part.stat().st_size if part.is_file() else 0
    with system.open(path, "rb", block_size=CHUNK, cache_type="none") as source:
        if begun and source.seekable():
            source.seek(begun)
        else:
            begun = 0
        with part.open("ab" if begun else "wb") as target:
            while chunk := source.read(CHUNK):
                target.write(chunk)
                target.flush()
                begun += len(chunk)
                yield begun
