"""The model zoo: which RecBole models are supported, how they are fed, and what is tapped.

Adding a model is one row here; `tests/recommenders/test_registry_contract.py` takes its models
from this table. `llmkt inspect MODEL` shows what else could be tapped.
"""

from dataclasses import dataclass
from typing import Any, Literal

from models.config import Precision, Side, Tap
from models.errors import BadInput

Family = Literal["general", "context-aware", "sequential"]
Loader = Literal["pairwise", "pointwise", "users", "labelled", "sequences", "masked"]


@dataclass(frozen=True)
class Entry:
    """One supported model.

    Attributes:
        family: RecBole's model family.
        loader: pairwise: (user, item, negative item); pointwise: (user, item, label) with
            sampled negatives; users: whole users, as RecBole feeds its autoencoders; sequences:
            (user, items so far, next item); masked: (user, items with some hidden). None for a
            model that is computed rather than trained by gradient.
        tap: where users' knowledge enters by default: the user's vector that is scored.
        item_tap: likewise for items; None where the model has no vector per item.
        takes_embeddings: whether knowledge enters a computed model whole, without a tap.
    """

    family: Family
    loader: Loader | None
    tap: Tap | None = None
    item_tap: Tap | None = None
    takes_embeddings: bool = False

    def default_tap(self, side: Side) -> Tap | None:
        """The side's default tap."""
        return self.tap if side == "users" else self.item_tap


def _module(
    name: str, *, output: int | None = None, rows: Literal["batch", "all"] = "batch"
) -> Tap:
    return Tap(name=name, output=output, rows=rows)


def _mean_half(encoder: str) -> Tap:
    """An encoder that puts out mean and log-variance side by side: the mean is the user."""
    return Tap(name=encoder, stop="half")


_FORWARD = {
    "users": Tap(kind="method", name="forward", output=0, rows="all"),
    "items": Tap(kind="method", name="forward", output=1, rows="all"),
}
"""A graph model's propagated vectors: what it scores, where its embeddings are only its input."""


def _graph() -> Entry:
    return Entry("general", "pairwise", _FORWARD["users"], _FORWARD["items"])


def _context(name: str = "token_embedding_table.embedding") -> Entry:
    """Users and items are rows of the one table of all token features."""
    table = Tap(name=name)
    return Entry("context-aware", "pointwise", table, table)


def _computed() -> Entry:
    return Entry("general", None)


ZOO: dict[str, Entry] = {
    # recbole/model/general_recommender/NAME.py, RecBole 1.2.1
    "BPR": Entry("general", "pairwise", _module("user_embedding"), _module("item_embedding")),
    # NeuMF has two tables per side; the MLP tower's is the one that meets a learned function.
    "NeuMF": Entry(
        "general", "pointwise", _module("user_mlp_embedding"), _module("item_mlp_embedding")
    ),
    # SimpleX scores a blend of the user's row and the mean of the history: tap the blend.
    "SimpleX": Entry(
        "general",
        "pairwise",
        Tap(kind="method", name="get_UI_aggregation"),
        _module("item_emb"),
    ),
    "LightGCN": _graph(),
    "NGCF": _graph(),
    "DGCF": _graph(),
    "SGL": _graph(),
    "NCL": _graph(),
    "SpectralCF": _graph(),
    "GCMC": Entry(
        "general",
        "pairwise",
        _module("GcEncoder", output=0, rows="all"),
        _module("GcEncoder", output=1, rows="all"),
    ),
    "DMF": Entry("general", "pointwise", _module("user_fc_layers"), _module("item_fc_layers")),
    "ENMF": Entry("general", "users", _module("user_embedding"), _module("item_embedding")),
    "NNCF": Entry("general", "pointwise", _module("user_embedding"), _module("item_embedding")),
    "ConvNCF": Entry("general", "pairwise", _module("user_embedding"), _module("item_embedding")),
    "LINE": Entry("general", "pairwise", _module("user_embedding"), _module("item_embedding")),
    # FISM and NAIS have no user vector but a history of item vectors: their mean is the user.
    "FISM": Entry(
        "general",
        "pointwise",
        Tap(name="item_src_embedding", pool="mean"),
        _module("item_dst_embedding"),
    ),
    "NAIS": Entry(
        "general",
        "pointwise",
        Tap(name="item_src_embedding", pool="mean"),
        _module("item_dst_embedding"),
    ),
    "MultiVAE": Entry("general", "users", _mean_half("encoder")),
    "MultiDAE": Entry("general", "users", _module("encoder")),
    # The encoder runs once per facet; the first facet's mean is tapped.
    "MacridVAE": Entry(
        "general",
        "users",
        _mean_half("encoder"),
        Tap(kind="parameter", name="item_embedding.weight"),
    ),
    "RecVAE": Entry("general", "users", _module("encoder", output=0)),
    "CDAE": Entry(
        "general", "users", _module("h_act"), Tap(kind="parameter", name="out_layer.weight")
    ),
    # The denoiser's first layer: the user's noisy history on its way to the reconstruction.
    "DiffRec": Entry("general", "users", _module("mlp.mlp_layers.mlp_layers.1")),
    "LDiffRec": Entry("general", "users", _mean_half("autoencoder.encoder")),
    # Computed, not trained by gradient: baselines; EASE is ours, see `closed_form`.
    "Pop": _computed(),
    "Random": _computed(),
    "ItemKNN": _computed(),
    "AsymKNN": _computed(),
    "EASE": Entry("general", None, takes_embeddings=True),
    "SLIMElastic": _computed(),
    "ADMMSLIM": _computed(),
    "NCEPLRec": _computed(),
    # recbole/model/context_aware_recommender/NAME.py
    **{
        name: _context()
        for name in (
            "AFM",
            "AutoInt",
            "DCN",
            "DCNV2",
            "DeepFM",
            "DSSM",
            "EulerNet",
            "FiGNN",
            "FM",
            "FNN",
            "FwFM",
            "NFM",
            "PNN",
            "WideDeep",
            "xDeepFM",
        )
    },
    # FFM has a table of all tokens per partner field; the first partner's is tapped.
    "FFM": _context("ffm.token_embeddings.0"),
    # recbole/model/sequential_recommender/NAME.py: the user is the state after the last item.
    "SASRec": Entry(
        "sequential",
        "sequences",
        Tap(kind="method", name="forward"),
        _module("item_embedding"),
    ),
    "GRU4Rec": Entry(
        "sequential",
        "sequences",
        Tap(kind="method", name="forward"),
        _module("item_embedding"),
    ),
    "BERT4Rec": Entry(
        "sequential",
        "masked",
        Tap(kind="method", name="forward", pool="last"),
        _module("item_embedding"),
    ),
}

UNSUPPORTED: dict[str, tuple[Family, str]] = {
    "RaCT": (
        "general",
        "RecBole trains it in three runs that hand checkpoint files over (actor, critic, both); "
        "its first stage alone is MultiVAE",
    ),
    "KD_DAGFM": (
        "context-aware",
        "needs a teacher network trained and saved by an earlier run",
    ),
    "LR": ("context-aware", "one weight per feature: no layer of vectors to align"),
    "lightgbm": ("context-aware", "decision trees: no gradient and no layer to align"),
    "xgboost": ("context-aware", "decision trees: no gradient and no layer to align"),
}
"""Models of RecBole's general and context-aware catalogue that are not supported, and why."""


_SPARSE = "it multiplies by a sparse matrix, for which torch has no bfloat16"
FLOAT32_ONLY: dict[str, str] = {
    **dict.fromkeys(("LightGCN", "NGCF", "DGCF", "SGL", "NCL", "SpectralCF", "GCMC"), _SPARSE),
    "DCNV2": "its loss takes probabilities, not logits, which a GPU refuses in mixed precision",
}
"""Trained models whose loss cannot be computed in mixed precision, and why."""


def precision_of(model: str, asked: str) -> Precision:
    """The precision that `model` trains in where `asked` is configured."""
    mixed = asked == "bfloat16" and model not in FLOAT32_ONLY and entry(model).loader is not None
    return "bfloat16" if mixed else "float32"


def entry(model: str) -> Entry:
    """The zoo's row for `model`.

    Raises:
        BadInput: if the model is not supported, with the list of those that are.
    """
    if model in UNSUPPORTED:
        raise BadInput(f"models.{model} is not supported: {UNSUPPORTED[model][1]}")
    if model not in ZOO:
        raise BadInput(f"models.{model}: not a supported model; supported: {', '.join(ZOO)}")
    return ZOO[model]


_COMPUTED = {
    False: "computed, not trained by gradient: a baseline",
    True: "computed; where models.NAME.transfer is set, the whole embeddings enter its regulariser",
}


def catalogue() -> list[dict[str, Any]]:
    """A row per model of RecBole's catalogue: model, family, supported, tap, reason.

    `tap` is the users' default tap in words; `reason` says why a model is not supported, or
    trains as a baseline only.
    """
    supported = [
        {
            "model": name,
            "family": row.family,
            "supported": True,
            "tap": described(row.tap) if row.tap else None,
            "reason": None if row.tap else _COMPUTED[row.takes_embeddings],
        }
        for name, row in ZOO.items()
    ]
    others = [
        {"model": name, "family": family, "supported": False, "tap": None, "reason": reason}
        for name, (family, reason) in UNSUPPORTED.items()
    ]
    return supported + others


def described(tap: Tap) -> str:
    """A tap in words: `method forward, output 0, all rows`."""
    parts = [f"{tap.kind} {tap.name}"]
    if tap.start is not None or tap.stop is not None:
        parts[0] += f"[{tap.start or ''}:{tap.stop or ''}]"
    if tap.output is not None:
        parts.append(f"output {tap.output}")
    if tap.rows == "all":
        parts.append("all rows")
    if tap.pool:
        parts.append(f"{tap.pool} of the sequence")
    return ", ".join(parts)
