"""Section `targets`."""

from typing import Literal

from pydantic import Field

from models.config.section import IDENTITY_IF_SET, NOT_IDENTITY, Section

Reduction = Literal["umap", "pca", "none"]


class Umap(Section):
    """UMAP's own parameters (McInnes et al. 2018), passed by keyword."""

    n_neighbors: int = Field(15, ge=2)
    min_dist: float = Field(0.9, ge=0, le=1)
    metric: Literal["cosine", "euclidean"] = "cosine"
    fit_sample: int = Field(
        50_000,
        ge=100,
        description="Of more users (items) than this, UMAP is fitted on as many, drawn by "
        "targets.seed, and the others are transformed in batches: time then grows with their "
        "number, and memory hardly.",
        json_schema_extra=IDENTITY_IF_SET,
    )


class Refit(Section):
    """When a kept reducer is fitted anew rather than asked to transform."""

    new_share: float = Field(
        0.2,
        ge=0,
        le=1,
        description="Refit when a larger share of the embedded users was not there at the fit.",
    )
    drift: float = Field(
        0.1,
        ge=0,
        description="Refit when the mean embedding has moved further since the fit, in units of "
        "the users' spread at the fit (root mean square distance from their mean).",
    )


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
    refit: Refit = Field(
        Refit(),
        description="Where the reducer of an earlier run is kept (llmkt nightly): when to refit.",
        json_schema_extra=NOT_IDENTITY,  # decides nothing without a kept reducer, see Kept
    )
