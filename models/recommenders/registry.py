"""The registry: which RecBole models are supported, how they are fed, and what is tapped.

Adding a model is one row here; `tests/recommenders/test_registry_contract.py` takes its models
from this table. `llmkt inspect MODEL` shows what else could be tapped.
"""

from collections.abc import Iterable
from typing import Any, Literal

from models.config import BASELINE, Precision, Tap
from models.config.plugins import Table, is_path
from models.errors import BadInput
from models.recommenders.entry import Entry, Family, Loader


def _tap(tap: Tap | str | None) -> Tap | None:
    """A module's name alone stands for its output."""
    return Tap(name=tap) if isinstance(tap, str) else tap


def _general(loader: Loader, users: Tap | str, items: Tap | str | None = None) -> Entry:
    return Entry("general", loader, _tap(users), _tap(items))


def _sequential(loader: Loader, users: Tap) -> Entry:
    return Entry("sequential", loader, users, _tap("item_embedding"))


def _context(
    table: str = "token_embedding_table.embedding", float32_only: str | None = None
) -> Entry:
    """Users and items are rows of the one table of all token features."""
    tap = Tap(name=table)
    return Entry("context-aware", "pointwise", tap, tap, float32_only=float32_only)


def _output(kind: Literal["module", "method"], name: str, place: int) -> Tap:
    """One of the tensors that a graph model propagates, a row per user or item."""
    return Tap(kind=kind, name=name, output=place, rows="all")


_SPARSE = "it multiplies by a sparse matrix, for which torch has no bfloat16"
_FORWARD = _output("method", "forward", 0), _output("method", "forward", 1)
"""A graph model's propagated vectors: what it scores, where its embeddings are only its input."""
_GRAPH = Entry("general", "pairwise", *_FORWARD, float32_only=_SPARSE)
_GCMC = _output("module", "GcEncoder", 0), _output("module", "GcEncoder", 1)
_TABLES = "user_embedding", "item_embedding"
_COMPUTED = Entry("general", None)
_HISTORY = Tap(name="item_src_embedding", pool="mean")
"""FISM and NAIS have no user vector but a history of item vectors: their mean is the user."""
_DECODED = Tap(kind="parameter", name="decoder.2.weight")
"""A decoder's last rows: an item's score is one, times the hidden layer, which is 600 wide."""
_STATE = Tap(kind="method", name="forward")
"""A sequential model's user is the state after the last item."""
_BY_STATE = "SASRec GRU4Rec NARM STAMP Caser NextItNet HGN SRGNN LightSANs SINE FOSSIL HRM NPE"

_SHIPPED: dict[str, Entry] = {
    # recbole/model/general_recommender/NAME.py, RecBole 1.2.1
    "BPR": _general("pairwise", *_TABLES),
    # NeuMF has two tables per side; the MLP tower's is the one that meets a learned function.
    "NeuMF": _general("pointwise", "user_mlp_embedding", "item_mlp_embedding"),
    # SimpleX scores a blend of the user's row and the mean of the history: tap the blend.
    "SimpleX": _general("pairwise", Tap(kind="method", name="get_UI_aggregation"), "item_emb"),
    **dict.fromkeys(("LightGCN", "NGCF", "DGCF", "SGL", "NCL", "SpectralCF"), _GRAPH),
    "GCMC": Entry("general", "pairwise", *_GCMC, float32_only=_SPARSE),
    "DMF": _general("pointwise", "user_fc_layers", "item_fc_layers"),
    "ENMF": _general("users", *_TABLES),
    "NNCF": _general("pointwise", *_TABLES),
    **dict.fromkeys(("ConvNCF", "LINE"), _general("pairwise", *_TABLES)),
    **dict.fromkeys(("FISM", "NAIS"), _general("pointwise", _HISTORY, "item_dst_embedding")),
    # An encoder that puts out mean and log-variance side by side: the mean is the user.
    "MultiVAE": _general("users", Tap(name="encoder", stop="half"), _DECODED),
    "MultiDAE": _general("users", "encoder", _DECODED),
    # The encoder runs once per facet; the first facet's mean is tapped.
    "MacridVAE": _general(
        "users",
        Tap(name="encoder", stop="half"),
        Tap(kind="parameter", name="item_embedding.weight"),
    ),
    "RecVAE": _general(
        "users", Tap(name="encoder", output=0), Tap(kind="parameter", name="decoder.weight")
    ),
    "CDAE": _general("users", "h_act", Tap(kind="parameter", name="out_layer.weight")),
    # The denoiser's first layer: the user's noisy history on its way to the reconstruction.
    "DiffRec": _general("users", "mlp.mlp_layers.mlp_layers.1"),
    "LDiffRec": _general("users", Tap(name="autoencoder.encoder", stop="half")),
    # Computed, not trained by gradient: baselines; EASE is ours, see `closed_form`.
    **dict.fromkeys(("Pop", "ItemKNN", "AsymKNN"), _COMPUTED),
    "EASE": Entry("general", None, takes_embeddings=True),
    # Ours, see `ials` and `blend`.
    **dict.fromkeys(
        ("iALS", "Blend"),
        Entry(
            "general",
            "sweeps",
            Tap(kind="parameter", name="user_factors"),
            Tap(kind="parameter", name="item_factors"),
            takes_embeddings=True,
            float32_only="it solves linear systems",
        ),
    ),
    **dict.fromkeys(("SLIMElastic", "ADMMSLIM"), _COMPUTED),
    **dict.fromkeys(("Random", "NCEPLRec"), Entry("general", None, draws=True)),
    # recbole/model/context_aware_recommender/NAME.py
    **dict.fromkeys(("AFM", "AutoInt", "DCN"), _context()),
    "DCNV2": _context(float32_only="its loss takes probabilities, which a GPU refuses in bfloat16"),
    **dict.fromkeys(("DeepFM", "DSSM", "EulerNet", "FiGNN", "FM", "FNN", "FwFM"), _context()),
    **dict.fromkeys(("NFM", "PNN", "WideDeep", "xDeepFM"), _context()),
    # FFM has a table of all tokens per partner field; the first partner's is tapped.
    "FFM": _context("ffm.token_embeddings.0"),
    # recbole/model/sequential_recommender/NAME.py
    **dict.fromkeys(_BY_STATE.split(), _sequential("sequences", _STATE)),
    "BERT4Rec": _sequential("masked", Tap(kind="method", name="forward", pool="last")),
}


def _own(name: str, found: Any) -> Entry:
    from models.recommenders.own_models import own_entry  # torch takes seconds to import

    return own_entry(name, found, _SHIPPED)


MODELS = Table(_SHIPPED, _own)

ELSEWHERE = Entry("general", "elsewhere")
"""A model whose rankings were brought; nothing is known of its training."""

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
    **dict.fromkeys(
        ("DIN", "DIEN", "FDSA", "GRU4RecF", "GRU4RecKG", "KSR", "SASRecF", "S3Rec"),
        ("sequential", "it reads features of all items of a history, which batches do not hold"),
    ),
    **dict.fromkeys(
        ("CORE", "FEARec", "GCSAN", "SHAN", "TransRec"),
        ("sequential", "it reads columns, data sets or devices that are not its batch's"),
    ),
    **dict.fromkeys(
        ("FPMC", "RepeatNet"), ("sequential", "it has no vector of a user's state to align")
    ),
    **dict.fromkeys(
        ("GRU4RecCPR", "SASRecCPR"),
        ("sequential", "its softmax takes the best 100 items, which not every catalogue has"),
    ),
}
"""Models of RecBole's catalogue that are not supported, and why."""


def reference_models(arms: Iterable[tuple[str, str]]) -> list[str]:
    """Of all that ran, models to compare with: computed ones, and those without transfer."""
    arms = list(arms)
    knowing = {model for model, arm in arms if arm != BASELINE}
    return [
        model
        for model, arm in arms
        if arm == BASELINE
        and (judged(model).loader is None or (bool(knowing) and model not in knowing))
    ]


def precision_of(model: str, asked: str) -> Precision:
    """Decide the precision that `model` trains in where `asked` is configured."""
    row = judged(model)
    mixed = asked == "bfloat16" and row.float32_only is None and row.by_gradient
    return "bfloat16" if mixed else "float32"


def entry(model: str) -> Entry:
    """Look up a model's row; BadInput lists those that are supported."""
    if model in UNSUPPORTED:
        raise BadInput(f"models.{model} is not supported: {UNSUPPORTED[model][1]}")
    try:
        return MODELS[model]
    except KeyError:
        names = ", ".join((*MODELS.shipped, "the import path of your own class"))
        why = f"models.{model}: not a supported model. Choose one of {names}."
        raise BadInput(why) from None


def judged(model: str) -> Entry:
    """Look up the row of a model that has results; any other name's was trained elsewhere."""
    return entry(model) if model in MODELS.shipped or is_path(model) else ELSEWHERE


def catalogue() -> list[dict[str, Any]]:
    """List RecBole's catalogue, a row per model: model, family, supported, tap, reason.

    `tap` is the users' default tap in words; `reason` says why a model is not supported, or
    trains as a baseline only.
    """
    rows: list[tuple[object, ...]] = []
    for name, row in _SHIPPED.items():
        tap = described(row.tap) if row.tap and row.by_gradient else None
        reason = None if tap else "computed, not trained by gradient: a baseline"
        if row.takes_embeddings:
            reason = "the whole embeddings enter its regulariser"
            if row.loader is None:
                reason = f"computed; where models.NAME.transfer is set, {reason}"
        rows.append((name, row.family, True, tap, reason))
    for name, (family, reason) in UNSUPPORTED.items():
        rows.append((name, family, False, None, reason))
    columns = ("model", "family", "supported", "tap", "reason")
    return [dict(zip(columns, row, strict=True)) for row in rows]


def described(tap: Tap) -> str:
    """Write a tap in words: `method forward, output 0, all rows`."""
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
