"""The published set, read: which version counts, and what it holds.

    data/published/EXPERIMENT/current -> VERSION
    data/published/EXPERIMENT/VERSION/manifest.json, recommendations.parquet, …

A reader follows the link once and stays in the folder that it found, so that it sees one version
and never some of two; `tasks.publishing.versions` replaces the link. Where the data folder is a
store, see `tasks.publishing.store_sync`.
"""

from datetime import datetime
from pathlib import Path

from pydantic import Field, ValidationError

from models.config import Job, Side
from models.errors import BadInput
from tasks.profiles.outputs import Previous
from tasks.publishing.outputs import Promotion
from tasks.publishing.store_sync import CURRENT as CURRENT
from tasks.publishing.store_sync import FOLDER, follow
from tasks.publishing.store_sync import MANIFEST as MANIFEST
from tasks.storage.artifacts import Handle, Handoff, data_dir
from tasks.targets.outputs import Kept
from tasks.training.model_tables import Inputs
from tasks.training.worker import TrainedModel

RECOMMENDATIONS = "recommendations.parquet"
WEIGHTS = "weights.safetensors"
TRAIN, VALID, USERS, ITEMS = (
    f"inputs/{name}.parquet" for name in ("train", "valid", "users", "items")
)


class File(Handoff):
    """A file of a version, as it was written."""

    sha256: str
    bytes: int
    rows: int


class Manifest(Handoff):
    """What a version is, where it comes from, and what its files held when it was written."""

    experiment: str
    version: str
    created_at: datetime
    previous: str | None
    """The version that it replaced: where a rollback leads."""
    dataset: str
    job: Job
    files: dict[str, File]
    inputs: dict[str, Handle]
    """The artifacts that went into it, by name; what is needed to rank anew lies in `inputs/`."""
    users_known: int
    users_served: int
    """Who has recommendations: users that the model has learnt of."""
    vectors: dict[str, str]
    """What `users.parquet` and `items.parquet` hold, or why there is none."""
    scored_by_product: bool
    """Whether scores are dot products of both."""
    metrics: dict[str, float]
    """By METRIC@K, on the holdout of the night that published it."""
    knowledge: dict[str, str | None]
    """The columns of `runs` that say where the profiles' knowledge comes from."""
    decision: Promotion
    packages: dict[str, str]
    reducers: dict[str, Kept] = Field(default_factory=dict)
    """What the next night's targets are made with, like `profiles`."""
    profiles: dict[Side, Previous] = Field(default_factory=dict)

    @property
    def folder(self) -> Path:
        """Where it is."""
        return folder_of(self.experiment) / self.version

    def handle(self, name: str) -> Handle:
        """One of its files.

        Raises:
            BadInput: if the version has no such file.
        """
        if name not in self.files:
            raise BadInput(f"{self.folder} has no {name}")
        of = self.files[name]
        path = (self.folder / name).relative_to(data_dir()).as_posix()
        return Handle(path=path, sha256=of.sha256, rows=of.rows)

    def trained_model(self) -> TrainedModel:
        """List what its model is rebuilt from."""
        train, valid, users, items = map(self.handle, (TRAIN, VALID, USERS, ITEMS))
        return self.job, self.handle(WEIGHTS), Inputs(train, valid, users, items, {})

    def verify(self) -> None:
        """Compare every file with its digest.

        Raises:
            MissingArtifact: naming the first one that is gone or was altered.
        """
        for name in self.files:
            self.handle(name).verify()


def folder_of(experiment: str) -> Path:
    """Where an experiment's versions are."""
    return data_dir() / FOLDER / experiment


def experiments() -> list[str]:
    """Experiments with a published version, by name."""
    follow()
    folder = data_dir() / FOLDER
    found = folder.iterdir() if folder.is_dir() else ()
    return sorted(of.name for of in found if (of / CURRENT).is_symlink())


def the_experiment(named: str | None) -> str:
    """The experiment that is meant: the named one, or the only one.

    Raises:
        BadInput: if nothing is published, or several are and none is named.
    """
    known = experiments()
    if named in known:
        return str(named)
    if not known:
        raise BadInput(f"nothing is published in {data_dir()}: run `llmkt nightly CONFIG` first")
    if named is None and len(known) == 1:
        return known[0]
    problem = "several experiments are published" if named is None else f"{named} is not published"
    raise BadInput(f"{problem}; choose with --experiment one of {', '.join(known)}")


def current(experiment: str) -> Manifest | None:
    """The version that counts now; None before the first.

    Raises:
        BadInput: if the link leads nowhere, or to what this program cannot read.
    """
    follow()
    try:
        version = str((folder_of(experiment) / CURRENT).readlink())
    except FileNotFoundError:
        return None
    return read(experiment, version)


def read(experiment: str, version: str) -> Manifest:
    """A version's manifest.

    Raises:
        BadInput: if it is not there or cannot be read.
    """
    path = folder_of(experiment) / version / MANIFEST
    try:
        return Manifest.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        reason = str(error).splitlines()[0]
        raise BadInput(
            f"{path} cannot be read ({reason}); point {path.parent.parent / CURRENT} to another "
            "version, or remove it to begin anew"
        ) from error


def versions(experiment: str) -> list[Manifest]:
    """All versions that are kept, newest first."""
    found = folder_of(experiment).glob(f"[!.]*/{MANIFEST}")
    names = {path.parent.name for path in found} - {CURRENT}
    return sorted(
        (read(experiment, name) for name in names), key=lambda of: of.created_at, reverse=True
    )
