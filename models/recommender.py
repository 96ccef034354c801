"""The adapter to RecBole 1.2.1: the only file that imports it.

RecBole's configuration reads the command line, evaluates strings, sets environment variables
and uses numpy names that are gone; its data set reads files. All of that is contained here: a
`Recommender` is built from ids in memory and offers a loss, scores and rankings.
"""

import difflib
import logging
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from models.batches import Batches, Fields, Sampling
from models.config import Tap, parse_yaml
from models.errors import BadInput
from models.schemas import ITEM, USER
from models.transfer.hooks import HookManager
from models.transfer.wrapper import Targets
from models.zoo import entry

LABEL = "label"
NEGATIVE_PREFIX = "neg_"

_TRAINING_ARGUMENTS = (
    "learner",
    "learning_rate",
    "weight_decay",
    "train_batch_size",
    "train_neg_sample_args",
    "clip_grad_norm",
    "require_pow",
)
_SET_ELSEWHERE = {
    "epochs": "training.epochs",
    "stopping_step": "training.patience",
    "seed": "training.seeds",
    "valid_metric": "training.valid_metric",
    "metrics": "evaluation.metrics",
    "topk": "evaluation.k",
    "eval_args": "split",
}
_SCORED_PAIRS = 1 << 16
_CACHED_PAIRS = 1 << 14
"""Pairs whose hidden layer of 128 floats stays in a core's cache."""


@cache
def _properties(name: str) -> dict[str, Any]:
    """RecBole's own defaults: `overall` or a model's name."""
    folder = files("recbole") / "properties"
    file = folder / "overall.yaml" if name == "overall" else folder / "model" / f"{name}.yaml"
    return parse_yaml(file.read_text()) or {} if file.is_file() else {}


def hyperparameters(model: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """RecBole's defaults for `model` with the given values over them, checked.

    Raises:
        BadInput: for an unsupported model, an unknown hyper-parameter (with the nearest known
            one), one that the pipeline sets elsewhere, or a value of the wrong type.
    """
    entry(model)
    known = {key: _properties("overall")[key] for key in _TRAINING_ARGUMENTS}
    known |= _properties(model)
    for key, value in given.items():
        place = f"models.{model}.hyperparameters.{key}"
        if key in _SET_ELSEWHERE:
            raise BadInput(f"{place}: set {_SET_ELSEWHERE[key]} instead, which holds for all arms")
        if key not in known:
            close = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(sorted(known))}"
            raise BadInput(f"{place} is not a hyper-parameter of RecBole's {model}; {hint}")
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
            f"{type(default).__name__} such as {default!r}"
        )


@cache
def _recbole() -> tuple[Any, Any, Any, Any]:
    """Import RecBole and return (Config, Dataset, Interaction, get_model) made to behave."""
    from recbole.config import Config
    from recbole.data.dataset import Dataset
    from recbole.data.interaction import Interaction
    from recbole.utils import FeatureSource, FeatureType, get_model

    class ContainedConfig(Config):  # type: ignore[misc]
        """RecBole's configuration without the command line, `eval` and the environment."""

        def compatibility_settings(self) -> None:
            """RecBole would restore numpy names that numpy 2 has no target for."""

        def _load_cmd_line(self) -> dict[str, Any]:
            return {}

        def _convert_config_dict(self, config_dict: dict[str, Any]) -> dict[str, Any]:
            return config_dict

        def _init_device(self) -> None:
            self.final_config_dict |= {"single_spec": True, "local_rank": 0}

    class MemoryDataset(Dataset):  # type: ignore[misc]
        """RecBole's data set over training pairs and the universe of ids, both in memory."""

        def _load_data(self, _token: str, _dataset_path: str) -> None:
            import pandas as pd

            universe = self.config["universe"]
            self.inter_feat = pd.DataFrame(self.config["training_pairs"])
            self.user_feat = pd.DataFrame({USER: universe[USER]})
            self.item_feat = pd.DataFrame({ITEM: universe[ITEM]})
            for field, source in (
                (USER, FeatureSource.USER_ID),
                (ITEM, FeatureSource.ITEM_ID),
            ):
                self.field2type[field] = FeatureType.TOKEN
                self.field2source[field] = source
                self.field2seqlen[field] = 1

        def _data_filtering(self) -> None:
            """Filtering is the split's business."""

        def _fill_nan(self) -> None:
            """Ids are never missing here."""

    return ContainedConfig, MemoryDataset, Interaction, get_model


class Recommender:
    """A RecBole model on a training set, addressed by raw tokens.

    Attributes:
        module: the RecBole model.
        n_users, n_items: numbers of internal ids; id 0 is RecBole's padding.
        user_tokens, item_tokens: object (n_users,) and (n_items,), the raw ids of internal ids.
        train_users, train_items: int64 (n,), the training pairs by internal ids.
    """

    def __init__(
        self,
        model: str,
        given: Mapping[str, Any],
        pairs: tuple[Sequence[str], Sequence[str]],
        universe: tuple[Sequence[str], Sequence[str]],
        seed: int,
        device: str = "cpu",
    ) -> None:
        """Build the model; the seed decides its initial weights.

        Args:
            model: a name in the zoo.
            given: hyper-parameters by RecBole's names.
            pairs: raw user and item ids of the training interactions, of equal length.
            universe: all raw user ids and all raw item ids, training or not.
            seed: of weights, dropout, shuffling and negatives.
            device: torch device.
        """
        self.name = model
        self.entry = entry(model)
        self.settings = hyperparameters(model, given)
        config_class, dataset_class, self._interaction, get_model = _recbole()
        config = config_class(model=model, dataset="llmkt", config_dict=dict(self.settings))
        for key, value in {
            "USER_ID_FIELD": USER,
            "ITEM_ID_FIELD": ITEM,
            "LABEL_FIELD": LABEL,
            "NEG_PREFIX": NEGATIVE_PREFIX,
            "device": torch.device(device),
            "training_pairs": {USER: list(pairs[0]), ITEM: list(pairs[1])},
            "universe": {USER: list(universe[0]), ITEM: list(universe[1])},
        }.items():
            config[key] = value
        dataset = dataset_class(config)
        dataset.logger = logging.getLogger("recbole.dataset")
        dataset.logger.setLevel(logging.ERROR)
        dataset._change_feat_format()
        self.device = torch.device(device)
        self.n_users, self.n_items = int(dataset.num(USER)), int(dataset.num(ITEM))
        self._ids = {field: dataset.field2token_id[field] for field in (USER, ITEM)}
        self.user_tokens = np.asarray(dataset.field2id_token[USER], dtype=object)
        self.item_tokens = np.asarray(dataset.field2id_token[ITEM], dtype=object)
        self.train_users = self.user_ids(pairs[0])
        self.train_items = self.item_ids(pairs[1])
        torch.manual_seed(seed)
        self.module: nn.Module = get_model(model)(config, dataset).to(self.device)
        self._seed = seed

    def user_ids(self, tokens: Sequence[str]) -> NDArray[np.int64]:
        """Internal ids of raw user ids: int64 (n,)."""
        return self._lookup(USER, tokens)

    def item_ids(self, tokens: Sequence[str]) -> NDArray[np.int64]:
        """Internal ids of raw item ids: int64 (n,)."""
        return self._lookup(ITEM, tokens)

    def _lookup(self, field: str, tokens: Sequence[str]) -> NDArray[np.int64]:
        ids = self._ids[field]
        return np.fromiter((ids[token] for token in tokens), np.int64, len(tokens))

    def align(self, users: Sequence[str], vectors: NDArray[np.float32]) -> Targets:
        """Put target rows where their users' internal ids are; others are marked unknown.

        Args:
            users: raw user ids of the rows; users that the data set does not have are ignored.
            vectors: float32 (len(users), width).
        """
        ids = self._ids[USER]
        present = np.fromiter((user in ids for user in users), bool, len(users))
        rows = np.flatnonzero(present)
        internal = self.user_ids([user for user in users if user in ids])
        aligned = torch.zeros(self.n_users, vectors.shape[1])
        known = torch.zeros(self.n_users, dtype=torch.bool)
        aligned[internal] = torch.from_numpy(vectors[rows])
        known[internal] = True
        return Targets(aligned.to(self.device), known.to(self.device))

    def batches(self) -> Batches:
        """Training batches in the form that the model expects."""
        generator = torch.Generator(device=self.device).manual_seed(self._seed)
        return Batches(
            users=torch.from_numpy(self.train_users).to(self.device),
            items=torch.from_numpy(self.train_items).to(self.device),
            n_users=self.n_users,
            n_items=self.n_items,
            loader=self.entry.loader,
            batch_size=self.settings["train_batch_size"],
            sampling=Sampling.from_recbole(self.settings["train_neg_sample_args"]),
            fields=Fields(USER, ITEM, NEGATIVE_PREFIX + ITEM, LABEL),
            generator=generator,
        )

    def loss(self, batch: dict[str, Tensor]) -> Tensor:
        """The model's own loss on a batch: a scalar."""
        losses = cast(Any, self.module).calculate_loss(self._interaction(batch))
        return cast(Tensor, sum(losses) if isinstance(losses, tuple) else losses)

    def users_of(self, batch: dict[str, Tensor]) -> Tensor:
        """The batch's internal user ids: int64 (n,)."""
        return batch[USER]

    @torch.no_grad()
    def scores(self, users: Tensor) -> Tensor:
        """Scores of all items: float32 (len(users), n_items); column 0 is padding.

        The caller has put the module into evaluation mode.
        """
        model = cast(Any, self.module)
        if self.name == "NeuMF":
            return _neumf_scores(model, users)
        try:
            scores = model.full_sort_predict(self._interaction({USER: users}))
        except NotImplementedError:
            scores = self._pairwise_scores(users)
        return cast(Tensor, scores).view(len(users), self.n_items)

    def _pairwise_scores(self, users: Tensor) -> Tensor:
        """Scores by the model's `predict`, a block of users against all items at a time."""
        items = torch.arange(self.n_items, device=self.device)
        block = max(_SCORED_PAIRS // self.n_items, 1)
        parts = [
            cast(Any, self.module).predict(
                self._interaction(
                    {USER: part.repeat_interleave(self.n_items), ITEM: items.repeat(len(part))}
                )
            )
            for part in users.split(block)
        ]
        return torch.cat(parts)


def _neumf_scores(model: Any, users: Tensor) -> Tensor:
    """All-item scores of RecBole's NeuMF without a copy of both vectors per pair.

    The first MLP layer is linear in [user; item], so both halves are computed once per user
    and once per item and added per pair; scores are logits, which rank as `predict` does.
    """
    if not (model.mf_train and model.mlp_train):
        raise BadInput("models.NeuMF.hyperparameters: mf_train and mlp_train must both be true")
    layers = [layer for layer in model.mlp_layers.mlp_layers if not isinstance(layer, nn.Dropout)]
    first, rest = layers[0], layers[1:]
    width = model.mlp_embedding_size
    items_first = model.item_mlp_embedding.weight @ first.weight[:, width:].T + first.bias
    users_first = model.user_mlp_embedding(users) @ first.weight[:, :width].T
    mf_weight, mlp_weight = model.predict_layer.weight[0].split(
        [model.mf_embedding_size, model.predict_layer.in_features - model.mf_embedding_size]
    )
    scores: Tensor = (model.user_mf_embedding(users) * mf_weight) @ model.item_mf_embedding.weight.T
    scores += model.predict_layer.bias
    block = max(_CACHED_PAIRS // len(items_first), 1)
    for start in range(0, len(users), block):
        rows = slice(start, start + block)
        hidden = users_first[rows, None, :] + items_first
        for layer in rest:
            hidden = layer(hidden)
        scores[rows] += hidden @ mlp_weight
    return scores


def probe(model: str, given: Mapping[str, Any], tap: Tap | None = None) -> tuple[Tap, int]:
    """Build `model` on a toy data set and run its tap once.

    Returns:
        The tap (the zoo's default if none is given) and the width that it yields.

    Raises:
        BadInput: for whatever is wrong with the model, its hyper-parameters or the tap.
    """
    tap = tap or entry(model).tap
    users, items = ["a", "a", "b", "b"], ["x", "y", "y", "z"]
    toy = Recommender(model, given, (users, items), (["a", "b"], ["w", "x", "y", "z"]), seed=0)
    hooks = HookManager(toy.module, tap)
    with hooks.recording():
        toy.loss(next(iter(toy.batches())))
    return tap, hooks.take().vectors.shape[1]
