"""Section `targets`."""

from typing import Annotated, Any, Literal, get_args

from pydantic import Field, field_validator

from models.config.plugins import Table, checked, numbers
from models.config.section import Section, Seed, named, unkeyed

REDUCTIONS: Table[Any] = Table(
    dict.fromkeys(("umap", "pca", "none")),
    lambda name, found: checked(
        name,
        "reduce(embeddings, width, seed)",
        found,
        lambda made, embeddings, width, _: numbers(made, (len(embeddings), width)),
    ),
)
"""One's own is a function `reduce(embeddings, width, seed)`: float32 (n, d) to (n, width)."""
Reduction = Annotated[str, *named(REDUCTIONS)]
Source = Literal["profiles", "offline", "genres", "years", "features"]


class Umap(Section):
    """UMAP's own parameters (McInnes et al. 2018), passed by keyword."""

    n_neighbors: int = Field(15, ge=2, description="Neighbours per point.")
    min_dist: float = Field(0.9, ge=0, le=1, description="Least distance of two coordinates.")
    metric: Literal["cosine", "euclidean"] = Field("cosine", description="Between embeddings.")
    fit_sample: int = Field(
        50_000,
        ge=100,
        description="With more users (items) than this, UMAP is fitted on a sample of this size, "
        "drawn by targets.seed, and places the others among it in batches.",
    )


class Refit(Section):
    """When a reducer of an earlier night is refitted."""

    new_share: float = Field(
        0.2,
        ge=0,
        le=1,
        description="Refit if a larger share of users is new.",
    )
    drift: float = Field(
        0.1,
        ge=0,
        description="Refit when the mean embedding has moved further than this since the fit, in "
        "units of the users' root mean square distance from their mean at the fit.",
    )


class Targets(Section):
    """Embeddings reduced to the width of the tapped layer."""

    sources: dict[Source, Annotated[float, Field(ge=0, allow_inf_nan=False)]] = Field(
        {"profiles": 1.0},
        description="Sources of knowledge and their weights, or a list of sources: profiles: the "
        "configured profiles; offline: texts of the offline writer beside them; genres, years, "
        "features: of items, a user's being the mean over the training items, or of features the "
        "user's own. Each is centred and scaled, then "
        "all are concatenated. A source with weight 0, or not named, is off.",
    )
    reduction: Reduction | None = Field(
        None,
        description="umap: as published; pca: principal components; none: the whole embedding, for "
        "alignments that bridge widths. Empty: none for alignments that bridge widths, umap for "
        "the others.",
    )
    width: int | None = Field(
        None, ge=1, description="Target width; empty: that of each tapped layer."
    )
    seed: Seed = Field(42, description="Seed of UMAP, samples and random control targets.")
    centre: bool = Field(True, description="Subtract each coordinate's mean over users.")
    scale: Literal["global", "per-coordinate", "none"] = Field(
        "global",
        description="The divisor that gives targets unit variance: global: one standard deviation "
        "over all coordinates, which keeps their relative sizes; per-coordinate: one for each.",
    )
    umap: Umap = Umap()
    refit: Refit = unkeyed(  # decides nothing without a kept reducer, see Kept
        Refit(), description="`llmkt nightly` only: when to refit the reducer of an earlier night."
    )

    @field_validator("sources", mode="before")
    @classmethod
    def _listed_sources_weigh_the_same(cls, value: Any) -> Any:
        return dict.fromkeys(value, 1.0) if isinstance(value, list | tuple) else value

    @field_validator("sources")
    @classmethod
    def _one_source_at_least(cls, value: dict[Source, float]) -> dict[Source, float]:
        if not any(value.values()):
            raise ValueError("all sources are off; give one of them a weight above 0")
        return value

    @property
    def active_sources(self) -> dict[Source, float]:
        """The sources with a weight above 0, in one order whatever the file's."""
        return {name: self.sources[name] for name in get_args(Source) if self.sources.get(name)}
