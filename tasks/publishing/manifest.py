"""The published set, read: the current version, and what it holds.

    data/published/EXPERIMENT/current -> VERSION
    data/published/EXPERIMENT/VERSION/manifest.json, recommendations.parquet, …

A reader follows the link once and stays in the folder that it found, so that it sees one version
and never some of two; `tasks.publishing.versions` replaces the link. In a store, `current` is an
object whose text is the version's name, and a version's manifest is written last. The local folder
follows the store: manifests and the link at once, other files when they are read.
"""

from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal
from uuid import uuid4

from pydantic import AfterValidator, Field

from models.config import Job, Side, Sink
from models.config.section import Name
from models.errors import BadInput
from models.schemas import Epoch
from tasks.profiles.outputs import Previous
from tasks.publishing.outputs import Promotion, Serving
from tasks.storage.artifacts import TEMPORARY, Handle, Handoff, data_dir, relative, replacing
from tasks.storage.data_dir import contained, is_contained
from tasks.storage.object_store import store
from tasks.targets.outputs import Kept
from tasks.training.model_tables import Inputs
from tasks.training.worker import TrainedModel

FOLDER = "published"
CURRENT = "current"
MANIFEST = "manifest.json"
RECOMMENDATIONS = "recommendations.parquet"
POPULAR = "popular.parquet"
WEIGHTS = "weights.safetensors"
"""The model that the lists come from; it may have learnt from everything."""
JUDGED = "judged.safetensors"
"""The model that the gate judged, which has learnt from train."""
TRAIN, VALID, INTERACTIONS, USERS, ITEMS = (
    f"inputs/{name}.parquet" for name in ("train", "valid", "interactions", "users", "items")
)


class File(Handoff):
    """A file of a version, as it was written."""

    sha256: str
    bytes: int
    rows: int


class Manifest(Serving):
    """A version: its origin, and its files as they were written."""

    experiment: Name
    version: Name
    created_at: datetime
    previous: Name | None
    """The version that it replaced: where a rollback leads."""
    dataset: str
    job: Job
    files: dict[Annotated[str, AfterValidator(contained)], File]
    inputs: dict[str, Handle]
    """The artifacts that went into it, by name; what is needed to rank anew lies in `inputs/`."""
    served_from: Literal["all", "judged"]
    """What the served model has learnt from; the judged one has learnt from train alone."""
    anchor: Name | None = None
    """The version that no later one may fall far behind."""
    sinks: tuple[Sink, ...] = ()
    """Where the lists go after it becomes current."""
    vectors: dict[str, str]
    """What `users.parquet` and `items.parquet` hold, or why there is none."""
    scored_by_product: bool
    """Whether scores are dot products of both."""
    metrics: dict[str, float]
    """By METRIC@K, on the holdout of the night that published it."""
    epochs: tuple[Epoch, ...] = ()
    """The judged training's."""
    knowledge: dict[str, str | None]
    """The columns of `runs` that say where the profiles' knowledge comes from."""
    decision: Promotion
    packages: dict[str, str]
    reducers: dict[str, Kept] = Field(default_factory=dict)
    """What the next night's targets are made with, like `profiles`."""
    profiles: dict[Side, Previous] = Field(default_factory=dict)

    @property
    def folder(self) -> Path:
        """The version's folder."""
        return folder_of(self.experiment) / self.version

    def handle(self, name: str) -> Handle:
        """Refer to one of its files; BadInput if the version has no such file."""
        file = self.files.get(name)
        if file is None:
            raise BadInput(f"{self.folder}: has no {name}. Go back with `llmkt champion rollback`.")
        return Handle(path=relative(self.folder / name), sha256=file.sha256, rows=file.rows)

    def judged_model(self) -> TrainedModel:
        """List what the judged model is rebuilt from; the served one knows today's holdout."""
        train, valid, users, items = map(self.handle, (TRAIN, VALID, USERS, ITEMS))
        return self.job, self.handle(JUDGED), Inputs(train, valid, users, items, {})

    def verify(self) -> None:
        """Compare every file with its digest; MissingArtifact names the first that is not whole."""
        for name in self.files:
            self.handle(name).verify()


def folder_of(experiment: str) -> Path:
    """Name the folder of an experiment's versions."""
    return data_dir() / FOLDER / experiment


def follow() -> None:
    """Bring manifests and links up to date with the store's, if there is one."""
    remote = store()
    if remote is None:
        return
    names = [entry.name for entry in remote.entries(FOLDER)]
    for name in names:
        manifest = data_dir() / name
        if manifest.name == MANIFEST and not manifest.is_file():
            content = remote.read(name)
            if content is not None:
                with replacing(manifest) as temporary:
                    temporary.write_bytes(content)
    for name in names:
        if name.endswith(f"/{CURRENT}"):
            link, version = data_dir() / name, (remote.read(name) or b"").decode()
            if not is_contained(version) or "/" in version:
                continue
            if not (link.is_symlink() and str(link.readlink()) == version):
                link_to(link, version)


def link_to(link: Path, version: str) -> None:
    """Make or replace a link in one step."""
    link.parent.mkdir(parents=True, exist_ok=True)
    temporary = link.with_name(f"{TEMPORARY}{uuid4().hex}")
    temporary.symlink_to(version)
    temporary.replace(link)


def the_experiment(named: str | None) -> str:
    """Choose the named experiment, or the only published one; BadInput if there is no such one."""
    follow()
    folders = (data_dir() / FOLDER).glob("*")
    known = sorted(folder.name for folder in folders if (folder / CURRENT).is_symlink())
    if named in known:
        return str(named)
    if not known:
        raise BadInput(f"{data_dir()}: nothing is published. Run `llmkt nightly CONFIG` first.")
    if named is None and len(known) == 1:
        return known[0]
    problem = "several experiments are published" if named is None else f"{named} is not published"
    raise BadInput(f"{problem}. Choose with --experiment one of {', '.join(known)}.")


def current(experiment: str) -> Manifest | None:
    """Read the current version's manifest; None before the first, BadInput if it cannot be read."""
    follow()
    try:
        version = str((folder_of(experiment) / CURRENT).readlink())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise BadInput(
            f"{folder_of(experiment) / CURRENT}: not a link to a version. Remove it to begin anew."
        ) from error
    return read(experiment, version)


def read(experiment: str, version: str) -> Manifest:
    """Read a version's manifest; BadInput if it is not there or cannot be read."""
    path = folder_of(experiment) / version / MANIFEST
    try:
        contained(f"{experiment}/{version}")
        found = Manifest.model_validate_json(path.read_bytes())
        if (found.experiment, found.version) != (experiment, version):
            raise ValueError("of another version")
        return found
    except (OSError, ValueError) as error:
        raise BadInput(
            f"{path}: missing, damaged or of another version. Point "
            f"{path.parent.parent / CURRENT} to another version, or remove that link to begin anew."
        ) from error


def versions(experiment: str) -> list[Manifest]:
    """List all kept versions, newest first; one whose manifest is damaged is none."""
    found = folder_of(experiment).glob(f"[!.]*/{MANIFEST}")
    kept = []
    for name in {path.parent.name for path in found} - {CURRENT}:
        with suppress(BadInput):
            kept.append(read(experiment, name))
    return sorted(kept, key=lambda manifest: manifest.created_at, reverse=True)


def waiting(champion: Manifest) -> list[Manifest]:
    """List the versions that wait for approval to replace the champion, newest first."""
    state = "needs approval", champion.version
    kept = versions(champion.experiment)
    return [each for each in kept if (each.decision.decision, each.previous) == state]
