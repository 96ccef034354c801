"""The files of a data set as raw artifacts, by content; those elsewhere are fetched once."""

import hashlib
import shutil
import zipfile
import zlib
from pathlib import Path
from typing import Literal

from prefect.logging import get_logger

from models.config import ROLES, Dataset, Role
from models.dataset.file_layouts import MOVIELENS
from models.errors import BadInput
from tasks.dataset.downloads import downloads, fetched, forget, is_remote, suffix_of
from tasks.storage.artifacts import Handle, new_file, write_file
from tasks.storage.disk_errors import writing

ATOMIC: dict[str, Role] = {"inter": "interactions", "item": "items", "user": "users"}
"""What the suffixes of atomic files hold."""

_PIECE = 1 << 22


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
                handle = write_file("raw", suffix_of(where), file)
                require_pinned(config, role, where, handle.sha256)
                taken[role + _tag(config, role, where)] = handle
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


def _tag(config: Dataset, role: Role, where: str) -> str:
    if config.kind != "movielens":
        return suffix_of(where)
    name = Path(where).name
    if name not in MOVIELENS[role]:
        raise BadInput(
            f"dataset.{role}: {where} is not called {' or '.join(MOVIELENS[role])}, as MovieLens "
            "publishes it; give it that name, or set dataset.format to csv or tsv"
        )
    return f"/{name}"


def require_pinned(config: Dataset, key: Role | Literal["path"], where: str, found: str) -> None:
    """Compare a file's sha256 with `dataset.sha256`; tell what it is where a URL is not pinned.

    Raises:
        BadInput: if it is another one.
    """
    pinned = config.sha256.get(key)
    if pinned is not None and pinned.lower() != found:
        forget(where)
        raise BadInput(
            f"dataset.{key}: {where} has sha256 {found}, not {pinned}; fetch it again, or correct "
            f"dataset.sha256.{key} if this is the file you mean"
        )
    if pinned is None and is_remote(where):
        get_logger("data").info("%s: sha256 %s; dataset.sha256.%s pins it", where, found, key)


def _movielens(config: Dataset, path: str) -> dict[str, Handle]:
    """The files in a published zip file, or in a folder that holds what was in it."""
    place = _located(path, "dataset.path", folder=True)
    if place.is_dir():
        found = {file.name: file for file in sorted(place.rglob("*")) if file.is_file()}
        chosen = _chosen(path, set(found))
        taken = {
            role: write_file("raw", Path(name).suffix, found[name]) for role, name in chosen.items()
        }
        if "path" in config.sha256:
            get_logger("data").warning("%s is a folder: dataset.sha256.path is not checked", path)
    else:
        require_pinned(config, "path", path, _sha256(place))
        chosen, taken = _members(path, place)
    for role, handle in taken.items():
        if role in config.sha256:
            require_pinned(config, role, f"{chosen[role]} in {path}", handle.sha256)
    return {f"{role}/{chosen[role]}": handle for role, handle in taken.items()}


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _members(path: str, place: Path) -> tuple[dict[Role, str], dict[Role, Handle]]:
    try:
        with zipfile.ZipFile(place) as archive:
            members = {Path(member).name: member for member in archive.namelist()}
            chosen = _chosen(path, set(members))
            taken = {role: _unpacked(archive, members[name]) for role, name in chosen.items()}
    except (zipfile.BadZipFile, EOFError, NotImplementedError, zlib.error) as error:
        forget(path)
        raise BadInput(
            f"dataset.path: {path} is no sound zip file ({error}); fetch it again, or name the "
            "folder that holds what was in it"
        ) from error
    return chosen, taken


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
    with writing(downloads()), new_file(downloads()) as file:
        with archive.open(member) as packed, file.open("wb") as plain:
            shutil.copyfileobj(packed, plain, _PIECE)
        return write_file("raw", Path(member).suffix, file)


def _located(where: str, key: str, folder: bool = False) -> Path:
    """A local file or folder, fetched if `where` is a URL."""
    if is_remote(where):
        return fetched(where, key).verify()
    file = Path(where.removeprefix("file://")).expanduser()
    if not (file.is_file() or (folder and file.is_dir())):
        raise BadInput(f"{key}: {file} does not exist; set {key} to where it is")
    return file
