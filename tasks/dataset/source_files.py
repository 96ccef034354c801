"""The files of a data set as raw artifacts, by content; those at URLs are fetched once."""

import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from prefect.logging import get_logger

from models.config import ROLES, Dataset, Role
from models.dataset.file_layouts import MOVIELENS
from models.errors import BadInput
from tasks.dataset.downloads import downloads, fetched, forget, is_remote, suffix_of
from tasks.storage.artifacts import Handle, file_sha256, write_file
from tasks.storage.disk_errors import writing

_ATOMIC: dict[Role, str] = {"interactions": ".inter", "items": ".item", "users": ".user"}


def raw_files(config: Dataset, demographics: tuple[str, ...] = ()) -> dict[str, Handle]:
    """Write the files as raw artifacts, by role and tag (`interactions.csv`, `items/movies.dat`).

    Doing this before the cached stage makes the stage's key depend on what the files hold and how
    they are laid out, not on where they are. Without `demographics` and features, no user file is
    read.

    Raises:
        BadInput: for a missing file, a URL that cannot be fetched, or another sha256.
    """
    fields = (*demographics, *config.columns.user_features)
    if config.kind == "movielens" and config.path is not None and config.interactions is None:
        files = _movielens(config, config.path)
    else:
        files = {}
        places = _atomic(config) if config.kind == "atomic" else _own(config)
        for role, place in places.items():
            if role != "users" or fields:
                file = _located(place, f"dataset.{role}")
                handle = write_file("raw", suffix_of(place), file)
                _require_pinned(config, role, place, handle.sha256)
                files[role + _tag(config, role, place)] = handle
    users = [key for key in files if key.startswith("users")]
    if fields and not users:
        fix = f"Add {config.name}.user" if config.kind == "atomic" else "Set dataset.users"
        raise BadInput(
            f"history.demographics and columns.user_features ask for {', '.join(fields)}, but the "
            f"data set has no user file. {fix}, or leave them empty."
        )
    return {key: files[key] for key in files if fields or key not in users}


def source_file(raw: dict[str, Handle], role: Role) -> tuple[str, Handle] | None:
    """Look up the tag and the handle that `raw_files` found for a role."""
    for key, handle in raw.items():
        if key.startswith(role):
            return key.removeprefix(role).lstrip("/"), handle
    return None


def _own(config: Dataset) -> dict[Role, str]:
    places = {role: getattr(config, role) for role in ROLES}
    return {role: place for role, place in places.items() if place is not None}


def _atomic(config: Dataset) -> dict[Role, str]:
    folder = _atomic_folder(config)
    files = {role: folder / f"{config.name}{suffix}" for role, suffix in _ATOMIC.items()}
    if not files["interactions"].is_file():
        raise BadInput(
            f"dataset: {files['interactions']} does not exist. Set dataset.path to the folder that "
            f"holds {config.name}.inter, or dataset.name to the stem of the files there."
        )
    return {role: str(file) for role, file in files.items() if file.is_file()}


def _atomic_folder(config: Dataset) -> Path:
    if config.path is not None:
        return Path(config.path).expanduser()
    recbole = find_spec("recbole")
    assert recbole is not None
    folder = Path(str(recbole.origin)).parent / "dataset_example" / config.name
    if not folder.is_dir():
        raise BadInput(
            f"dataset.name: {config.name} does not ship with RecBole (ml-100k does). "
            "Set dataset.path to the folder of its atomic files."
        )
    return folder


def _tag(config: Dataset, role: Role, place: str) -> str:
    if config.kind != "movielens":
        return suffix_of(place)
    name = Path(place).name
    if name not in MOVIELENS[role]:
        raise BadInput(
            f"dataset.{role}: {place} is not called {' or '.join(MOVIELENS[role])}, as MovieLens "
            "publishes it. Rename it, or set dataset.format to csv or tsv."
        )
    return f"/{name}"


def _require_pinned(config: Dataset, key: Role | Literal["path"], place: str, found: str) -> None:
    """Compare a file's sha256 with `dataset.sha256`; log it where a URL is not pinned."""
    pinned = config.sha256.get(key)
    if pinned is not None and pinned.lower() != found:
        forget(place)
        raise BadInput(
            f"dataset.{key}: {place} has sha256 {found}, not {pinned}. Fetch it again, or correct "
            f"dataset.sha256.{key} if this is the right file."
        )
    if pinned is None and is_remote(place):
        get_logger("data").info("%s: sha256 %s; dataset.sha256.%s pins it", place, found, key)


def _movielens(config: Dataset, path: str) -> dict[str, Handle]:
    """The files in a published zip file, or in a folder with its content."""
    place = _located(path, "dataset.path", folder=True)
    if "path" in config.sha256 and place.is_dir():
        get_logger("data").warning("%s is a folder: dataset.sha256.path is not checked", path)
    elif not place.is_dir():
        _require_pinned(config, "path", path, file_sha256(place))
    files = {}
    with _folder(path, place) as folder:
        found = {file.name: file for file in sorted(folder.rglob("*")) if file.is_file()}
        for role in ROLES:
            name = next((name for name in MOVIELENS[role] if name in found), None)
            if name is not None:
                handle = write_file("raw", Path(name).suffix, found[name])
                if role in config.sha256:
                    _require_pinned(config, role, f"{name} in {path}", handle.sha256)
                files[f"{role}/{name}"] = handle
            elif role == "interactions":
                wanted = ", ".join(MOVIELENS[role])
                raise BadInput(f"dataset.path: {path} holds none of {wanted}. Name MovieLens' own.")
    return files


@contextmanager
def _folder(path: str, place: Path) -> Iterator[Path]:
    """The folder itself, or one with the files of MovieLens that a zip file holds."""
    if place.is_dir():
        yield place
        return
    with writing(downloads()), TemporaryDirectory(dir=downloads()) as folder:
        try:
            with zipfile.ZipFile(place) as archive:
                for member in archive.infolist():
                    member.filename = Path(member.filename).name
                    if any(member.filename in names for names in MOVIELENS.values()):
                        archive.extract(member, folder)
        except (zipfile.BadZipFile, EOFError, NotImplementedError, zlib.error) as error:
            forget(path)
            raise BadInput(
                f"dataset.path: {path} is no sound zip file ({error}). Fetch it again, or name "
                "the folder with its content."
            ) from error
        yield Path(folder)


def _located(place: str, key: str, folder: bool = False) -> Path:
    """A local file or folder, fetched if `place` is a URL."""
    if is_remote(place):
        return fetched(place, key).verify()
    file = Path(place.removeprefix("file://")).expanduser()
    if not (file.is_file() or (folder and file.is_dir())):
        raise BadInput(f"{key}: {file} does not exist. Set {key} to where it is.")
    return file
