"""Hyper-parameters: the defaults that RecBole ships, and ours, with checked values over them."""

import difflib
import math
import re
from collections.abc import Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from models.config import parse_yaml
from models.errors import BadInput, cut
from models.recommenders.entry import LOADERS
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
_IALS = {
    "embedding_size": 64,
    "reg_weight": 0.016,
    "reg_exponent": 1.0,
    "unobserved_weight": 0.264,
    "init_scale": 0.1,
    "prior_reg": 10.0,
}
_OWN_ARGUMENTS: dict[str, dict[str, Any]] = {
    "EASE": {"side_reg": SIDE_REG},
    "iALS": _IALS,
    "Blend": {**_IALS, "ease_reg_weight": 500.0, "side_reg": SIDE_REG, "ials_share": 0.7},
}
"""Ours, not RecBole's: see `models.recommenders.closed_form` and `models.recommenders.ials`."""
_CHOICES = {
    "learner": ("adam", "adamw", "sgd", "adagrad", "rmsprop"),
    "distribution": ("uniform", "popularity"),
    "dynamic": ("false",),
    "loader": LOADERS,
}
_CLIPPING = {"max_norm": 1.0, "norm_type": 2.0}
"""The arguments of `clip_grad_norm`, which RecBole leaves empty."""
_REAL = {"q", "reg_weight", "negative_weight", "w_max"}
"""Real numbers, although RecBole's default is whole."""
_NOT_READ = re.compile(r"(\w+_)?(pretrain|pre_model)_path|use_pretrain|train_method|fields")
"""Files of earlier RecBole runs, which it would unpickle and so execute; fields of a data set."""
_SIZE, _STEPS = 100_000, 2**31 - 1
_RANGES: tuple[tuple[str, float, float, str], ...] = (
    (
        r"learning_rate|\w*tau|ssl_temp|layer_norm_eps|rho|prior_reg|init_scale",
        0,
        math.inf,
        "above 0",
    ),
    (r"\w*drop\w*|corruption_ratio|mask_ratio", 0, 1, "from 0 to below 1"),
    (r"ft_ratio|l1_ratio|\w*anneal_cap|ials_share", 0, 1, "from 0 to 1"),
    (r"split_to|candidate_num|sampling_steps|\w*anneal_steps|warm_up_step", 0, _STEPS, "from 0"),
    (r"train_batch_size", 1, _STEPS, "from 1"),
    (r"n_layers", 0, 1000, "from 0 to 1000"),
    (
        r"\w*layer\w*_num|num_layers|hyper_layers|n_\w+_epochs|\w*steps?|n_iterations",
        1,
        1000,
        "from 1 to 1000",
    ),
)
"""By name: least and largest value, in words; of lists, of each value. The first that fits holds;
others are from 0 where RecBole's default is real, and sizes from 1 where it is whole."""
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
    folder = Path(str(recbole.origin)).parent / "properties"
    file = folder / "overall.yaml" if name == "overall" else folder / "model" / f"{name}.yaml"
    return parse_yaml(file.read_text(encoding="utf-8"), name) or {} if file.is_file() else {}


def hyperparameters(model: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Merge checked values over the defaults for `model`, by RecBole's names.

    Raises:
        BadInput: for an unsupported model, an unknown hyper-parameter (with the nearest known
            one), one that the pipeline sets elsewhere, or a value of the wrong type.
    """
    row = entry(model)
    known = _OWN_ARGUMENTS.get(model, {}) | _properties(row.kin or model) | dict(row.defaults)
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
        if _NOT_READ.fullmatch(key):
            raise BadInput(f"{place}: not supported here, only its default. Remove it.")
        _check(place, key, value, known[key])
    merged = known | dict(given)
    if isinstance(given.get("train_neg_sample_args"), dict):
        defaults = _properties("overall")["train_neg_sample_args"]
        merged["train_neg_sample_args"] = defaults | given["train_neg_sample_args"]
    return merged


def _check(place: str, key: str, value: Any, default: Any) -> None:
    """Refuse a value of another type than RecBole's default, or outside of its range."""
    default = _CLIPPING if key == "clip_grad_norm" and value is not None else default
    choices = _CHOICES.get(key)
    if choices and str(value).lower() not in choices:
        raise BadInput(
            f"{place}: {cut(repr(value))} is not supported. Set one of {', '.join(choices)}."
        )
    if isinstance(default, dict):
        _check_keys(place, value, default)
    elif isinstance(default, list):
        if not isinstance(value, list):
            raise _wrong_type(place, value, default)
        for item in value:
            _check(place, key, item, default[0] if default else 1)
    elif isinstance(default, int | float) and not isinstance(default, bool):
        _check_number(place, key, value, float(default) if key in _REAL else default)
    elif default is not None and type(value) is not type(default):
        raise _wrong_type(place, value, default)


def _check_keys(place: str, value: Any, defaults: Mapping[str, Any]) -> None:
    """Check a mapping of settings key by key."""
    if not isinstance(value, dict) or not value.keys() <= defaults.keys():
        raise BadInput(f"{place}: write a mapping with keys of {', '.join(defaults)}.")
    for key, item in value.items():
        _check(f"{place}.{key}", key, item, defaults[key])


def _check_number(place: str, key: str, value: Any, default: float) -> None:
    kinds = int | float if isinstance(default, float) else int
    if not isinstance(value, kinds) or isinstance(value, bool):
        raise _wrong_type(place, value, default)
    low, high, words = _range(key, isinstance(default, int))
    open_low, open_high = words.startswith("above"), "below" in words
    inside = low <= value <= high and math.isfinite(value)
    if not inside or (open_low and value == low) or (open_high and value == high):
        raise BadInput(f"{place}: {cut(repr(value))} is not {words}. Set a number {words}.")


def _range(key: str, whole: bool) -> tuple[float, float, str]:
    for pattern, low, high, words in _RANGES:
        if re.fullmatch(pattern, key):
            return low, high, words
    return (1, _SIZE, f"from 1 to {_SIZE:,}") if whole else (0, math.inf, "from 0")


def _wrong_type(place: str, value: Any, default: Any) -> BadInput:
    who = "your class" if ":" in place else "RecBole"
    return BadInput(
        f"{place}: {cut(repr(value))} is a {type(value).__name__}, {who} expects a "
        f"{type(default).__name__} such as {default!r}."
    )
