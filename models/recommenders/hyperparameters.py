"""Hyper-parameters: the defaults that RecBole ships, and ours, with checked values over them."""

import difflib
from collections.abc import Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from models.config import parse_yaml
from models.errors import BadInput
from models.recommenders.registry import entry

SIDE_REG = 10.0
"""Default ridge of the EASE on embeddings, see `models.recommenders.closed_form`."""

_TRAINING_ARGUMENTS = (
    "learner",
    "learning_rate",
    "weight_decay",
    "train_batch_size",
    "train_neg_sample_args",
    "clip_grad_norm",
    "require_pow",
)
_SEQUENCE_ARGUMENTS: dict[str, Any] = {"MAX_ITEM_LIST_LENGTH": 50}
_OWN_ARGUMENTS: dict[str, dict[str, Any]] = {
    "EASE": {"method": "l3ae", "side_reg": SIDE_REG},
    "iALS": {
        "embedding_size": 64,
        "reg_weight": 0.016,
        "reg_exponent": 1.0,
        "unobserved_weight": 0.264,
        "init_scale": 0.1,
        "prior_reg": 10.0,
    },
}
"""Ours, not RecBole's: see `models.recommenders.closed_form` and `models.recommenders.ials`."""
_SET_ELSEWHERE = {
    "epochs": "training.epochs",
    "stopping_step": "training.patience",
    "seed": "training.seeds",
    "valid_metric": "training.valid_metric",
    "metrics": "evaluation.metrics",
    "topk": "evaluation.k",
    "eval_args": "split",
}


@cache
def _properties(name: str) -> dict[str, Any]:
    """RecBole's own defaults: `overall` or a model's name."""
    recbole = find_spec("recbole")
    assert recbole is not None
    assert recbole.submodule_search_locations is not None
    folder = Path(recbole.submodule_search_locations[0]) / "properties"
    file = folder / "overall.yaml" if name == "overall" else folder / "model" / f"{name}.yaml"
    return parse_yaml(file.read_text(encoding="utf-8")) or {} if file.is_file() else {}


def hyperparameters(model: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Merge checked values over the defaults for `model`, by RecBole's names.

    Raises:
        BadInput: for an unsupported model, an unknown hyper-parameter (with the nearest known
            one), one that the pipeline sets elsewhere, or a value of the wrong type.
    """
    row = entry(model)
    known = _OWN_ARGUMENTS.get(model, {}) | _properties(model)
    if row.loader != "sweeps":
        known = {key: _properties("overall")[key] for key in _TRAINING_ARGUMENTS} | known
    if row.family == "sequential":
        known = _SEQUENCE_ARGUMENTS | known
    for key, value in given.items():
        place = f"models.{model}.hyperparameters.{key}"
        if key in _SET_ELSEWHERE:
            raise BadInput(f"{place}: set {_SET_ELSEWHERE[key]} instead, which holds for all arms.")
        if key not in known:
            close = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(sorted(known))}."
            raise BadInput(f"{place} is not a hyper-parameter of {model}; {hint}")
        _check_type(place, value, known[key])
    merged = known | dict(given)
    if isinstance(given.get("train_neg_sample_args"), dict):
        defaults = _properties("overall")["train_neg_sample_args"]
        merged["train_neg_sample_args"] = defaults | given["train_neg_sample_args"]
    return merged


def _check_type(place: str, value: Any, default: Any) -> None:
    numbers = (int, float)
    if default is None or (isinstance(default, float) and isinstance(value, int)):
        return
    same_kind = isinstance(value, type(default)) or (
        isinstance(default, numbers) and isinstance(value, numbers)
    )
    if isinstance(value, bool) != isinstance(default, bool) or not same_kind:
        raise BadInput(
            f"{place}: {value!r} is a {type(value).__name__}, RecBole expects a "
            f"{type(default).__name__} such as {default!r}."
        )
