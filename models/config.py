"""Every knob of a pipeline, as frozen pydantic models: one YAML file is one `Pipeline`.

Unknown keys are errors. A field marked `identity=False` changes how the work is done
(concurrency, worker count), never its result, and so stays out of every cache key.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self, cast, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, JsonValue, field_validator, model_validator

Metric = Literal["ndcg", "recall", "hit", "precision", "mrr", "map"]
Control = Literal["shuffled", "noise", "genre-histogram", "history-svd"]
Arm = Literal["baseline", "transfer"] | Control
Side = Literal["users", "items"]
Reduction = Literal["umap", "pca", "none"]
CONTROLS: tuple[Control, ...] = get_args(Control)

_NOT_IDENTITY: dict[str, JsonValue] = {"identity": False}


class Section(BaseModel):
    """Base of every configuration section: immutable, and strict about unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def identity(self) -> dict[str, Any]:
        """The JSON-ready fields that decide the result (see the module docstring)."""
        return {
            name: _identity(getattr(self, name))
            for name, field in type(self).model_fields.items()
            if not (
                isinstance(field.json_schema_extra, dict)
                and field.json_schema_extra.get("identity") is False
            )
        }

    def digest(self) -> str:
        """First 16 hex digits of the sha256 of `identity()`."""
        canonical = json.dumps(self.identity(), sort_keys=True)
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def _identity(value: Any) -> Any:
    if isinstance(value, Section):
        return value.identity()
    if isinstance(value, dict):
        return {str(key): _identity(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_identity(item) for item in value]
    return value


class Dataset(Section):
    """Where the interactions come from: a folder of RecBole atomic files."""

    name: str = Field("ml-100k", description="Stem of the atomic files: NAME.inter and NAME.item.")
    path: str | None = Field(
        None,
        description="Folder with the atomic files; empty means the copy inside the RecBole wheel.",
    )
    title: str | None = Field("movie_title", description="Column of NAME.item with the title.")
    year: str | None = Field("release_year", description="Column of NAME.item with the year.")
    genres: str | None = Field("class", description="Column of NAME.item with the genres.")


class Split(Section):
    """How interactions are divided into train, valid and test."""

    strategy: Literal["random", "leave-one-out", "temporal", "files"] = Field(
        "random",
        description="random: per user, by ratios; leave-one-out: newest item is test, the one "
        "before it valid; temporal: one global cut in time, by ratios; files: as the files train, "
        "test and perhaps valid say.",
    )
    train: str | None = Field(
        None,
        description="files only: tab-separated user, item and whatever follows, with or without a "
        "header; interactions of the data set that are in no file are left out.",
        json_schema_extra=_NOT_IDENTITY,  # what the files hold decides, see tasks/split.py
    )
    valid: str | None = Field(
        None,
        description="files only: like train; empty means a share of each user's train, by seed.",
        json_schema_extra=_NOT_IDENTITY,
    )
    test: str | None = Field(
        None, description="files only: like train.", json_schema_extra=_NOT_IDENTITY
    )
    valid_share: float = Field(
        0.1, gt=0, lt=1, description="files only: the share of train that becomes valid."
    )
    ratios: tuple[float, float, float] = Field(
        (0.7, 0.1, 0.2), description="Shares of train, valid and test (random and temporal)."
    )
    seed: int = Field(2026, description="Seed of the random strategy and of valid_share.")
    short_histories: Literal["error", "train", "drop"] = Field(
        "error",
        description="Users with fewer than 3 interactions cannot give one to each of train, valid "
        "and test: stop, keep them in train only, or drop them. With files it is about users "
        "without a training interaction, of whom nothing can be learnt: stop, or leave them out.",
    )

    @field_validator("ratios")
    @classmethod
    def _ratios_make_a_split(cls, ratios: tuple[float, float, float]) -> tuple[float, float, float]:
        if min(ratios) <= 0 or abs(sum(ratios) - 1) > 1e-9:
            raise ValueError(f"three shares above 0 that add up to 1 are needed, not {ratios}")
        return ratios

    @model_validator(mode="after")
    def _files_are_named(self) -> Self:
        if self.strategy == "files" and (self.train is None or self.test is None):
            raise ValueError("strategy files needs train and test, the paths of two files")
        if self.strategy != "files" and (self.train or self.valid or self.test):
            raise ValueError("train, valid and test are paths for strategy files only")
        return self


class History(Section):
    """Which part of a user's training history a profile is written from."""

    limit: int = Field(
        40,
        ge=1,
        description="At most this many interactions per user in a prompt; the offline writer "
        "takes its statistics of the whole training history.",
    )
    order: Literal["newest", "best", "stratified"] = Field(
        "stratified",
        description="newest: latest first; best: highest rated first; stratified: the best and "
        "the worst rated, half each, so that dislikes are seen.",
    )


class LLM(Section):
    """An OpenAI-compatible chat endpoint."""

    base_url: str | None = Field(None, description="Endpoint; empty means api.openai.com.")
    model: str = Field("gpt-4o-mini", description="Model name as the endpoint knows it.")
    temperature: float = Field(0.0, ge=0, le=2, description="Sampling temperature.")
    max_tokens: int = Field(400, ge=16, description="Longest answer, in tokens.")
    seed: int | None = Field(7, description="Sampling seed, where the endpoint honours one.")
    api_key_env: str = Field(
        "OPENAI_API_KEY",
        description="Environment variable with the key: its name, never the key.",
        json_schema_extra=_NOT_IDENTITY,
    )
    api_key_secret: str | None = Field(
        None,
        description="Name of a Prefect Secret block with the key; used before the variable.",
        json_schema_extra=_NOT_IDENTITY,
    )
    concurrency: int = Field(
        16, ge=1, le=512, description="Requests in flight.", json_schema_extra=_NOT_IDENTITY
    )
    requests_per_minute: float | None = Field(
        None,
        gt=0,
        description="The endpoint's limit, retries included; empty means none.",
        json_schema_extra=_NOT_IDENTITY,
    )
    tokens_per_minute: float | None = Field(
        None,
        gt=0,
        description="The endpoint's limit; a request counts with its text and max_tokens until "
        "its answer says what it used. Empty means none.",
        json_schema_extra=_NOT_IDENTITY,
    )
    batch_poll_seconds: float = Field(
        30,
        gt=0,
        description="openai-batch: how often a batch is looked at.",
        json_schema_extra=_NOT_IDENTITY,
    )
    batch_wait_hours: float = Field(
        25,
        ge=0,
        description="openai-batch: how long a run waits; batches go on without it, and the next "
        "run picks them up.",
        json_schema_extra=_NOT_IDENTITY,
    )
    timeout_seconds: float = Field(
        60, gt=0, description="Per request.", json_schema_extra=_NOT_IDENTITY
    )
    max_retries: int = Field(
        6,
        ge=0,
        description="Retries per request on 408, 409, 429, 5xx and lost connections, with "
        "exponential waits with jitter that honour Retry-After.",
        json_schema_extra=_NOT_IDENTITY,
    )

    def request_identity(self) -> dict[str, Any]:
        """The fields that decide an answer: endpoint, model and sampling, but not the key."""
        fields = {"base_url", "model", "temperature", "max_tokens", "seed"}
        return {key: value for key, value in self.identity().items() if key in fields}


class Columns(Section):
    """How an imported file names what is read from it."""

    user: str = Field("user_id", description="Column with the raw user id.")
    text: str = Field("text", description="profiles: column with the text, e.g. summary.")
    embedding: str = Field("embedding", description="embeddings: column with the vector.")


class Profiles(Section):
    """One text per user, written from training interactions only."""

    provider: Literal["offline", "openai", "openai-batch", "import"] = Field(
        "offline",
        description="offline: readable statistics of the history, free, no LLM; openai: any "
        "OpenAI-compatible endpoint; openai-batch: its Batch API, at half the price and within a "
        "day; import: a file of profiles made elsewhere.",
    )
    path: str | None = Field(
        None,
        description="import only: a .csv, .tsv, .json, .jsonl or .parquet file with one text per "
        "user, and where possible history_sha256 and history_count beside it.",
        json_schema_extra=_NOT_IDENTITY,  # what the file holds decides, see tasks/imports.py
    )
    columns: Columns = Columns()
    unknown_users: Literal["error", "drop"] = Field(
        "error",
        description="import only: what to do with users that the training part does not have.",
    )
    prompt: str = Field(
        "user-movies",
        description="Prompt template: a name in prompts/ (without .j2) or a path to a .j2 file.",
    )
    history: History = History()
    llm: LLM = LLM()
    max_missing: float = Field(
        0.02,
        ge=0,
        le=1,
        description="Share of users that may end without a profile; above it the run stops.",
    )

    @model_validator(mode="after")
    def _import_has_a_path(self) -> Self:
        _require_path(self.provider, self.path)
        return self


class Embeddings(Section):
    """The text model that turns profiles into vectors."""

    provider: Literal["sentence-transformers", "openai", "import"] = Field(
        "sentence-transformers",
        description="sentence-transformers: a local model; openai: any OpenAI-compatible endpoint; "
        "import: a file of vectors made elsewhere, which needs no profiles.",
    )
    path: str | None = Field(
        None,
        description="import only: a .parquet, .npy, .pt or .json file with one vector per user.",
        json_schema_extra=_NOT_IDENTITY,
    )
    ids: str | None = Field(
        None,
        description="import only: the user ids of a .npy file or a bare .pt tensor, one a line or "
        "a JSON list; empty means the file's own name with .ids.txt or .ids.json at its end.",
        json_schema_extra=_NOT_IDENTITY,
    )
    columns: Columns = Columns()
    unknown_users: Literal["error", "drop"] = Field(
        "error",
        description="import only: what to do with users that the training part does not have.",
    )
    max_missing: float = Field(
        0.02,
        ge=0,
        le=1,
        description="import only: share of users that may be without a vector; above it the run "
        "stops.",
    )
    model: str = Field(
        "all-MiniLM-L6-v2",
        description="sentence-transformers: all-MiniLM-L6-v2 (ships in a package) or a local "
        "folder; openai: text-embedding-3-small, text-embedding-ada-002, …",
    )
    base_url: str | None = Field(None, description="openai only; empty means api.openai.com.")
    api_key_env: str = Field(
        "OPENAI_API_KEY",
        description="openai only: the variable's name.",
        json_schema_extra=_NOT_IDENTITY,
    )
    api_key_secret: str | None = Field(
        None, description="openai only: a Prefect Secret block.", json_schema_extra=_NOT_IDENTITY
    )
    precision: Literal["bfloat16", "float32"] = Field(
        "bfloat16",
        description="sentence-transformers only: bfloat16 is about twice as fast on recent CPUs, "
        "at cosine 0.9999 to float32.",
    )
    batch_size: int = Field(
        16,
        ge=1,
        description="sentence-transformers only: texts at once; small batches of like length "
        "stay in the CPU's cache and waste little on padding.",
        json_schema_extra=_NOT_IDENTITY,
    )
    threads: int = Field(
        1, ge=1, description="CPU threads of the text model.", json_schema_extra=_NOT_IDENTITY
    )

    @model_validator(mode="after")
    def _import_has_a_path(self) -> Self:
        _require_path(self.provider, self.path)
        return self


def _require_path(provider: str, path: str | None) -> None:
    if (provider == "import") != (path is not None):
        raise ValueError("provider import and path belong together: set both or neither")


class Umap(Section):
    """UMAP's own parameters (McInnes et al. 2018), passed by keyword."""

    n_neighbors: int = Field(15, ge=2)
    min_dist: float = Field(0.9, ge=0, le=1)
    metric: Literal["cosine", "euclidean"] = "cosine"


class Targets(Section):
    """Embeddings reduced to the width of the tapped layer."""

    reduction: Reduction | None = Field(
        None,
        description="umap: as published; pca: principal components; none: the whole embedding, "
        "for alignments that bridge widths. Empty means none for `linear`, `contrastive`, "
        "`generative` and `relational`, umap for the others.",
    )
    width: int | None = Field(
        None, ge=1, description="Target width; empty means the width of each model's tapped layer."
    )
    seed: int = 42
    centre: bool = Field(True, description="Subtract each coordinate's mean over users.")
    scale: Literal["global", "per-coordinate", "none"] = Field(
        "global",
        description="Divide by one standard deviation over all coordinates (keeps their relative "
        "sizes), or by each coordinate's own, so that the targets have unit variance.",
    )
    umap: Umap = Umap()


Phase = Literal["transfer", "finetune"]


class Freeze(Section):
    """Layers held still in a phase: parameter names or globs, e.g. `item_embedding.*`."""

    transfer: tuple[str, ...] = ()
    finetune: tuple[str, ...] = ()


Alignment = Literal[
    "rmse", "mse", "cosine", "contrastive", "generative", "linear", "relational", "init"
]
BRIDGING: frozenset[Alignment] = frozenset({"contrastive", "generative", "linear", "relational"})
"""Alignments for which layer and target need not be equally wide."""


class Transfer(Section):
    """The knowledge-transfer settings (LLM-KT, arXiv 2411.00556, section 3)."""

    alignment: Alignment = Field(
        "rmse",
        description="rmse (as published), mse, cosine: the layer resembles the target; "
        "contrastive, generative: RLMRec's two losses; linear: a learned head from the layer to "
        "the whole embedding; relational: pairs are as similar as their profiles are; init: the "
        "embedding starts from the target and is trained plainly.",
    )
    alpha: Annotated[float, Field(ge=0, le=1)] = Field(
        0.1, description="Weight of the reconstruction loss: (1-alpha)·model + alpha·transfer."
    )
    balance: Literal["gradient", "none"] = Field(
        "gradient",
        description="gradient: the transfer loss is rescaled so that alpha is its share of the "
        "gradient at the tap, whatever the size of the model's loss; none: the published sum.",
    )
    schedule: Literal["two-phase", "joint", "decay"] = Field(
        "two-phase",
        description="two-phase: half of the epochs joint, half fine-tuning on the model's own "
        "loss; joint: all epochs joint; decay: all joint while alpha falls to 0 in a line.",
    )
    scale: Literal["layer", "none"] | Annotated[float, Field(gt=0)] = Field(
        "layer",
        description="Scale of the targets for rmse, mse and init: layer: the tapped layer's own "
        "standard deviation in the first step; a number: that standard deviation; none: as in "
        "the file.",
    )
    temperature: Annotated[float, Field(gt=0)] = Field(
        0.2, description="contrastive only: InfoNCE's temperature."
    )
    mask: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.2, description="generative only: share of the tapped vector's columns that are hidden."
    )
    freeze: Freeze = Freeze()


class Tap(Section):
    """What is aligned: a module's output, a parameter, or a method's return value.

    `llmkt inspect MODEL` lists what a model has.
    """

    kind: Literal["module", "parameter", "method"] = "module"
    name: str = Field(description="Name inside the model, as `llmkt inspect MODEL` prints it.")
    output: int | None = Field(
        None, ge=0, description="Which element, where a module or method returns a tuple."
    )
    rows: Literal["batch", "all"] = Field(
        "batch",
        description="batch: one row per row of the batch, or per id that an embedding was asked "
        "for; all: one row per user (item) of the data set, as graph models return them.",
    )
    pool: Literal["mean", "last"] | None = Field(
        None,
        description="Where rows are sequences: their mean over the entries that are not padding, "
        "or their last entry.",
    )
    start: int | None = Field(None, ge=0, description="First column of the slice.")
    stop: Annotated[int, Field(ge=1)] | Literal["half"] | None = Field(
        None, description="One past the last column of the slice, or half of the width."
    )


class Model(Section):
    """One RecBole model of the run."""

    hyperparameters: dict[str, Any] = Field(
        default_factory=dict, description="By RecBole's names; an unknown one is an error."
    )
    tap: Tap | None = Field(None, description="Empty means the model's default tap.")
    transfer: dict[str, Any] = Field(
        default_factory=dict, description="Overrides of the `transfer` section for this model."
    )


class Budget(Section):
    """What a training may spend, the same for every arm."""

    epochs: int = Field(40, ge=1, description="Total epochs, both phases together.")
    patience: int = Field(
        6,
        ge=1,
        description="Stop after this many epochs without a better validation score, counted from "
        "the second half of the epochs on, in every arm alike.",
    )
    valid_metric: str = Field("ndcg@10", description="METRIC@K for early stopping.")
    threads: int = Field(
        1, ge=1, description="CPU threads per training.", json_schema_extra=_NOT_IDENTITY
    )

    @field_validator("valid_metric")
    @classmethod
    def _metric_at_k(cls, value: str) -> str:
        parse_metric(value)
        return value


class Training(Budget):
    """The budget, and which trainings are made with it."""

    seeds: tuple[int, ...] = Field((1, 2), min_length=1)
    arms: tuple[Arm, ...] = Field(("baseline", "transfer"), min_length=1)
    workers: int = Field(
        2, ge=1, description="Trainings at the same time.", json_schema_extra=_NOT_IDENTITY
    )

    @field_validator("seeds", "arms")
    @classmethod
    def _no_repeats(cls, values: tuple[Any, ...]) -> tuple[Any, ...]:
        if len(set(values)) != len(values):
            raise ValueError(f"each value may stand once, not {values}")
        return values

    def budget(self) -> Budget:
        """The part that decides a single training's result."""
        return Budget.model_validate(self.model_dump(include=set(Budget.model_fields)))


class Evaluation(Section):
    """Full-ranking metrics on valid and test."""

    metrics: tuple[Metric, ...] = ("ndcg", "recall", "hit", "precision", "mrr", "map")
    k: tuple[Annotated[int, Field(ge=1)], ...] = Field((5, 10, 20), min_length=1)
    primary: str = Field("ndcg@10", description="METRIC@K shown first in comparison and report.")


class Pipeline(Section):
    """One configuration file: one pipeline, one comparison."""

    experiment: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    dataset: Dataset = Dataset()
    split: Split = Split()
    profiles: Profiles = Profiles()
    embeddings: Embeddings = Embeddings()
    targets: Targets = Targets()
    models: dict[str, Model] = Field(min_length=1, description="By RecBole's model names.")
    transfer: Transfer = Transfer()
    training: Training = Training()
    evaluation: Evaluation = Evaluation()

    @model_validator(mode="after")
    def _metrics_are_computed(self) -> Self:
        for key, value in (
            ("training.valid_metric", self.training.valid_metric),
            ("evaluation.primary", self.evaluation.primary),
        ):
            name, k = parse_metric(value)
            if name not in self.evaluation.metrics or k not in self.evaluation.k:
                raise ValueError(
                    f"{key} is {value}, but evaluation.metrics and evaluation.k do not compute it"
                )
        return self

    @model_validator(mode="after")
    def _transfer_overrides_are_valid(self) -> Self:
        for name in self.models:
            self.transfer_of(name)
        return self

    def jobs(self, taps: Mapping[str, Tap | None]) -> "list[Job]":
        """All trainings; a model without a tap has its baseline alone."""
        return [
            Job.of(self, model, arm, seed, tap)
            for model, tap in taps.items()
            for arm in self.training.arms
            for seed in self.training.seeds
            if tap is not None or arm == "baseline"
        ]

    def targets_of(self, model: str) -> Targets:
        """The `targets` section as it holds for `model`, its reduction settled."""
        bridging = self.transfer_of(model).alignment in BRIDGING
        reduction = self.targets.reduction or ("none" if bridging else "umap")
        return self.targets.model_copy(update={"reduction": reduction})

    def transfer_of(self, model: str) -> Transfer:
        """The `transfer` section as it holds for `model`, its overrides applied."""
        overrides = self.models[model].transfer
        return Transfer.model_validate(self.transfer.model_dump() | overrides)


class Job(Section):
    """One training: everything that decides its result but the data.

    A baseline has neither transfer nor tap, and so stays cached when those change.
    """

    model: str
    arm: Arm
    seed: int
    hyperparameters: dict[str, Any]
    transfer: Transfer | None
    tap: Tap | None
    budget: Budget
    k: int = Field(description="Length of the rankings.")

    @classmethod
    def of(cls, pipeline: Pipeline, model: str, arm: Arm, seed: int, tap: Tap | None) -> Self:
        """The job of one model, arm and seed of a pipeline."""
        knowing = arm != "baseline"
        return cls(
            model=model,
            arm=arm,
            seed=seed,
            hyperparameters=pipeline.models[model].hyperparameters,
            transfer=pipeline.transfer_of(model) if knowing else None,
            tap=tap if knowing else None,
            budget=pipeline.training.budget(),
            k=max(pipeline.evaluation.k),
        )


def parse_metric(text: str) -> tuple[Metric, int]:
    """Split `ndcg@10` into `("ndcg", 10)`.

    Raises:
        ValueError: if the text is not METRIC@K with a known metric and K of at least 1.
    """
    names = get_args(Metric)
    match = re.fullmatch(r"([a-z]+)@([1-9][0-9]*)", text)
    if match is None or match[1] not in names:
        raise ValueError(f"{text!r} is not METRIC@K with METRIC one of {', '.join(names)}")
    return cast(Metric, match[1]), int(match[2])


class _YamlLoader(yaml.SafeLoader):
    """Safe YAML in which `1e-3` is a number, as in YAML 1.2 and in RecBole's own files."""


_YamlLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(\d[\d_]*\.?\d*|\.\d+)([eE][-+]?\d+)|[-+]?(\d+\.\d*|\.\d+)$"),
    list("-+0123456789."),
)


def parse_yaml(text: str) -> Any:
    """Read a YAML text; raises `yaml.YAMLError` where it is not YAML."""
    return yaml.load(text, Loader=_YamlLoader)
