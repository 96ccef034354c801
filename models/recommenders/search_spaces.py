"""Search spaces that ship with the models: what `search: {trials: 40}` tries.

A baseline has its model's own settings; an arm with knowledge has those of its transfer as well, in
the same number of trials. Ranges were chosen around the settings that published comparisons report
and that were measured here on MovieLens. Batches have a lower bound, so that no trial takes all the
time.
"""

from typing import Any

from models.config import Space, Transfer
from models.recommenders.hyperparameters import hyperparameters
from models.recommenders.registry import entry


def _log(low: float, high: float) -> Space:
    return Space(low=low, high=high, log=True)


def _range(low: float, high: float) -> Space:
    return Space(low=low, high=high)


def _choices(*values: Any) -> Space:
    return Space(choices=list(values))


_NEGATIVES = _choices(*({"sample_num": n} for n in (1, 2, 4)))
_DROPOUT = _range(0.0, 0.6)
_TRAINED: dict[str, Space | None] = {
    "learning_rate": _log(5e-4, 2e-2),
    "weight_decay": _log(1e-8, 1e-3),
    "train_batch_size": _choices(512, 1024, 2048, 4096),
}
"""Of every model that is trained by gradient."""
_USERS: dict[str, Space | None] = {"train_batch_size": _choices(128, 256, 512)}
"""An epoch of an autoencoder has as many rows as there are users."""
_VAE: dict[str, Space | None] = {
    **_USERS,
    "dropout_prob": _range(0.2, 0.8),
    "anneal_cap": _range(0.05, 0.6),
    "total_anneal_steps": _choices(100, 400, 2000),
}

_IALS: dict[str, Space | None] = {
    "reg_weight": _log(1e-3, 0.3),
    "unobserved_weight": _log(0.02, 2.0),
    "reg_exponent": _range(0.5, 1.1),
}

_OWN: dict[str, dict[str, Space | None]] = {
    "BPR": {"train_neg_sample_args": _NEGATIVES},
    "NeuMF": {  # an epoch costs what its examples cost, whatever the batch
        "train_neg_sample_args": _choices({"sample_num": 1}, {"sample_num": 2}),
        "train_batch_size": _choices(2048, 4096, 8192),
    },
    "SimpleX": {
        "margin": _range(0.2, 0.95),
        "negative_weight": _log(1.0, 100.0),
        "gamma": _range(0.2, 0.95),
        "reg_weight": _log(1e-8, 1e-3),
    },
    "LightGCN": {
        "learning_rate": _log(2e-3, 5e-2),
        "weight_decay": None,
        "train_batch_size": _choices(4096, 8192),
        "reg_weight": _log(1e-6, 1e-2),
        "n_layers": _choices(1, 2, 3),
    },
    "ENMF": {
        **_USERS,
        "dropout_prob": _range(0.1, 0.9),
        "negative_weight": _log(0.01, 1.0),
    },
    "MultiVAE": _VAE,
    "MultiDAE": {**_USERS, "dropout_prob": _range(0.2, 0.8)},
    "RecVAE": {
        **_USERS,
        "learning_rate": _log(2e-4, 5e-3),
        "dropout_prob": _range(0.2, 0.7),
        "gamma": _log(1e-3, 3e-2),
        "n_enc_epochs": _choices(1, 2, 3),
    },
    "CDAE": {**_USERS, "corruption_ratio": _range(0.1, 0.8), "reg_weight_2": _log(1e-5, 1e-1)},
    "ItemKNN": {"k": Space(low=10, high=1000, log=True), "shrink": _range(0.0, 200.0)},
    "AsymKNN": {"k": Space(low=10, high=1000, log=True), "alpha": _range(0.0, 1.0)},
    "models.recommenders.comparators.content_neighbours:ContentNeighbours": {
        "neighbours": Space(low=1, high=1000, log=True),
        "power": _range(0.5, 5.0),
        "normalise": _range(0.0, 1.0),
    },
    "models.recommenders.comparators.alpha_rec:AlphaRec": {
        "weight_decay": None,
        "train_batch_size": _choices(2048, 4096),
        "n_layers": _choices(1, 2, 3),
        "temperature": _range(0.05, 0.3),
    },
    "models.recommenders.comparators.xsimgcl:XSimGCL": {
        "learning_rate": _log(2e-3, 5e-2),
        "weight_decay": None,
        "train_batch_size": _choices(2048, 4096),
        "n_layers": _choices(1, 2, 3),
        "noise": _log(0.01, 0.3),
        "contrast": _log(1e-3, 0.5),
        "temperature": _range(0.1, 0.5),
        "reg_weight": _log(1e-6, 1e-2),
    },
    "models.recommenders.comparators.foretold:Foretold": {
        "reg_weight": _log(10.0, 5000.0),
        "ridge": _log(1.0, 300.0),
    },
    "EASE": {"reg_weight": _log(10.0, 5000.0)},
    "SLIMElastic": {"alpha": _log(0.01, 5.0), "l1_ratio": _log(1e-3, 0.5)},
    "ADMMSLIM": {"lambda1": _log(0.1, 30.0), "lambda2": _log(10.0, 5000.0)},
    "NCEPLRec": {"reg_weight": _log(1.0, 5000.0), "beta": _range(0.6, 1.4)},
    "iALS": _IALS,
    "Blend": {**_IALS, "ease_reg_weight": _log(10.0, 5000.0), "ials_share": _range(0.3, 0.9)},
}
_STRENGTHS = _choices(0.0, 0.05, 0.1, 0.2, 0.4, 0.8)
_OF_TEACHER = _choices(0.0, 0.2, 0.5, 0.8, 0.95, 0.99)
_SHARES = _choices(0.0, 0.25, 0.5, 0.75, 1.0)
"""Of the embeddings in a model that takes them whole."""
_OF_KNOWLEDGE = {
    "EASE": {"side_reg": _log(1.0, 300.0)},
    "iALS": {"prior_reg": _log(1.0, 300.0)},
    "Blend": {"side_reg": _log(1.0, 300.0), "prior_reg": _log(1.0, 300.0)},
}
"""Own settings that say nothing without knowledge."""


def shipped_space(model: str, transfer: Transfer | None) -> dict[str, Space]:
    """Return the space of one model and arm, by dotted key; empty if there is nothing to set.

    `transfer` is that of an arm that has targets, of profiles or of a control; None for others.
    """
    row = entry(model)
    own: dict[str, Space | None] = {}
    if row.by_gradient:
        has_dropout = "dropout_prob" in hyperparameters(model, {})
        own = _TRAINED | ({"dropout_prob": _DROPOUT} if has_dropout else {})
    own |= _OWN.get(model, {})
    of_transfer: dict[str, Space] = {}
    if transfer is not None:
        own |= _OF_KNOWLEDGE.get(model, {})
        aligned = row.by_gradient and not row.takes_embeddings
        if aligned and transfer.method.scaled:
            of_transfer = {"scale": _log(0.01, 0.3)}
        if aligned and transfer.method.mapped:
            of_transfer |= {"shrinkage": _log(5.0, 5000.0), "ridge": _log(10.0, 10000.0)}
        if aligned and transfer.method.teaches:
            of_transfer = {
                "schedule": _choices("joint", "decay"),
                "teacher.alpha": _SHARES,
                "teacher.temperature": _log(0.3, 6.0),
            }
    at = f"models.{model}"
    return {
        **{f"{at}.hyperparameters.{key}": space for key, space in own.items() if space is not None},
        **{f"{at}.transfer.{key}": space for key, space in of_transfer.items()},
        **strengths(model, transfer),
    }


def strengths(model: str, transfer: Transfer | None) -> dict[str, Space]:
    """Return the choices of `transfer.alpha` where it is auto: 0, no transfer, is among them."""
    if transfer is None or transfer.alpha != "auto":
        return {}
    taught = _OF_TEACHER if transfer.method.teaches else _STRENGTHS
    choices = _SHARES if entry(model).takes_embeddings else taught
    return {f"models.{model}.transfer.alpha": choices}
