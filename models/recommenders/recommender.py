"""A RecBole model with its data, addressed by raw ids: a loss, batches, scores and weights."""

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from models.config import Kar, Precision, Side
from models.errors import BadInput
from models.recommenders import recbole_trainers
from models.recommenders.batches import (
    Batches,
    Fields,
    LabelledBatches,
    Negatives,
    PairBatches,
    Pairs,
    Sampling,
    UserBatches,
)
from models.recommenders.closed_form import SideInformation
from models.recommenders.ease_module import Ease
from models.recommenders.full_scores import all_item_scores
from models.recommenders.hyperparameters import hyperparameters
from models.recommenders.kar import with_knowledge
from models.recommenders.recbole_adapter import (
    Log,
    Universe,
    config_class,
    dataset_class,
    interaction_class,
    model_class,
)
from models.recommenders.recbole_speedups import cheapen
from models.recommenders.registry import entry, precision_of
from models.recommenders.sequence_batches import MaskedBatches, Masking, SequenceBatches, Sequences
from models.schemas import GENRES, ITEM, USER, YEAR
from models.transfer.wrapper import Targets

LABEL = "label"
NEGATIVE_PREFIX = "neg_"
_FIELDS = Fields(USER, ITEM, NEGATIVE_PREFIX + ITEM, LABEL)
_MASKED = {
    "MASK_INDEX": "MASK_INDEX",
    "MASK_ITEM_SEQ": f"Mask_{ITEM}_list",
    "POS_ITEMS": f"Pos_{ITEM}",
    "NEG_ITEMS": f"Neg_{ITEM}",
}
"""RecBole's names of a masked sequence's columns (recbole/data/transform.py)."""


class Recommender:
    """A RecBole model on a training set, addressed by raw tokens.

    Attributes:
        module: the RecBole model.
        given: the hyper-parameters it was built with; `settings` has the defaults, too.
        precision: that its own loss is computed in.
        n_users, n_items: numbers of internal ids; id 0 is RecBole's padding.
        user_tokens, item_tokens: object (n_users,) and (n_items,), the raw ids of internal ids.
        train_users, train_items: int64 (n,), the training pairs by internal ids.
        features: item features by column, each with n_items rows; context-aware models only.
    """

    def __init__(
        self,
        model: str,
        given: Mapping[str, Any],
        log: Log,
        universe: Universe,
        seed: int,
        device: str = "cpu",
        precision: Precision = "float32",
    ) -> None:
        """Build the model; the seed decides its initial weights.

        Args:
            model: a name in the zoo.
            given: hyper-parameters by RecBole's names.
            log: the training interactions.
            universe: all ids, training or not, and items' features.
            seed: of weights, dropout, shuffling and negatives.
            device: torch device.
            precision: of the model's own loss; a model that does not allow bfloat16 takes float32.

        Raises:
            BadInput: for whatever is wrong with the model's name, hyper-parameters or data, and
                for a package that it needs and that is missing.
        """
        self.name = model
        self.entry = entry(model)
        self.given = given
        self.settings = hyperparameters(model, given)
        self.device = torch.device(device)
        self.precision = precision_of(model, precision)
        self._seed = seed
        self._labels = log.labels
        if self.entry.family != "context-aware":
            universe = replace(universe, years=(), genres=())
        with warnings.catch_warnings():
            # RecBole calls what pandas and torch have announced to drop; the lock pins both.
            warnings.simplefilter("ignore")
            config, dataset = self._data(log, universe)
            self.n_users, self.n_items = int(dataset.num(USER)), int(dataset.num(ITEM))
            self._ids = {field: dataset.field2token_id[field] for field in (USER, ITEM)}
            self.user_tokens = np.asarray(dataset.field2id_token[USER], dtype=object)
            self.item_tokens = np.asarray(dataset.field2id_token[ITEM], dtype=object)
            self.train_users = self.user_ids(log.users)
            self.train_items = self.item_ids(log.items)
            self.features: dict[str, Tensor] = {
                field: dataset.get_item_feature()[field].to(self.device)
                for field in (YEAR, GENRES)
                if field in dataset.field2type
            }
            self._sequences = self._history(log) if self.entry.family == "sequential" else None
            self._built_from = config, dataset
            self.module: nn.Module = self._module(config, dataset)

    def _data(self, log: Log, universe: Universe) -> tuple[Any, Any]:
        """RecBole's configuration and data set."""
        self._interaction = interaction_class()
        settings = dict(self.settings)
        if settings.get("loss_type") == "CE":
            settings["train_neg_sample_args"] = None  # RecBole insists
        config = config_class()(model=self.name, dataset="llmkt", config_dict=settings)
        for key, value in {
            "USER_ID_FIELD": USER,
            "ITEM_ID_FIELD": ITEM,
            "LABEL_FIELD": LABEL,
            "NEG_PREFIX": NEGATIVE_PREFIX,
            "numerical_features": [],
            "device": self.device,
            "log": log,
            "universe": universe,
            **_MASKED,
        }.items():
            config[key] = value
        dataset = dataset_class()(config)
        dataset.logger = logging.getLogger("recbole.dataset")
        dataset.logger.setLevel(logging.ERROR)
        dataset._change_feat_format()
        return config, dataset

    def _module(
        self,
        config: Any,
        dataset: Any,
        adapt: Callable[[type[nn.Module]], type[nn.Module]] = lambda model: model,
    ) -> nn.Module:
        recbole_trainers.seed_all(self._seed)
        if self.name == "EASE":
            shape = (self.n_users, self.n_items)
            return Ease(self.train_users, self.train_items, shape, self.settings)
        try:
            made = adapt(model_class(self.name))
            module: nn.Module = cast(Any, made)(config, dataset).to(self.device)
            cheapen(self.name, module)
            recbole_trainers.prepare(self.name, module, self._seed, self.train_items)
        except ImportError as error:
            raise BadInput(
                f"models.{self.name} needs the package {error.name}, which is missing; install it"
            ) from error
        return module

    def tokens(self) -> dict[str, Sequence[str]]:
        """The tokens of users, items and the features in use, by internal ids."""
        known = self._built_from[1].field2id_token
        return {field: known[field] for field in (USER, ITEM, *self.features)}

    def user_ids(self, tokens: Sequence[str]) -> NDArray[np.int64]:
        """Internal ids of raw user ids: int64 (n,)."""
        return self._lookup(USER, tokens)

    def item_ids(self, tokens: Sequence[str]) -> NDArray[np.int64]:
        """Internal ids of raw item ids: int64 (n,)."""
        return self._lookup(ITEM, tokens)

    def _lookup(self, field: str, tokens: Sequence[str]) -> NDArray[np.int64]:
        ids = self._ids[field]
        return np.fromiter((ids[token] for token in tokens), np.int64, len(tokens))

    def align(
        self, tokens: Sequence[str], vectors: NDArray[np.float32], side: Side = "users"
    ) -> Targets:
        """Put target rows where their users' (items') internal ids are; others are unknown.

        Args:
            tokens: raw ids of the rows; those that the data set does not have are ignored.
            vectors: float32 (len(tokens), width).
            side: whose ids they are.
        """
        field, n = (USER, self.n_users) if side == "users" else (ITEM, self.n_items)
        ids = self._ids[field]
        present = np.fromiter((token in ids for token in tokens), bool, len(tokens))
        rows = np.flatnonzero(present)
        internal = self._lookup(field, [token for token in tokens if token in ids])
        aligned = torch.zeros(n, vectors.shape[1])
        known = torch.zeros(n, dtype=torch.bool)
        aligned[internal] = torch.from_numpy(vectors[rows])
        known[internal] = True
        return Targets(aligned.to(self.device), known.to(self.device))

    def know(self, alpha: float, targets: Mapping[Side, Targets]) -> None:
        """Compute EASE anew with embeddings of users, items or both, from `align`.

        Args:
            alpha: the knowledge's share.
            targets: whole embeddings by side.
        """
        nothing = Targets(torch.empty(0), torch.empty(0))
        users, items = targets.get("users", nothing), targets.get("items", nothing)
        side = SideInformation(
            items.vectors.cpu().numpy() if len(items.known) else None,
            items.known.cpu().numpy() if len(items.known) else None,
            users.vectors.cpu().numpy() if len(users.known) else None,
            users.known.cpu().numpy() if len(users.known) else None,
        )
        shape = (self.n_users, self.n_items)
        self.module = Ease(self.train_users, self.train_items, shape, self.settings, alpha, side)

    def feed(self, settings: Kar, targets: Mapping[Side, Targets]) -> None:
        """Build the model anew with embeddings of both sides as features (KAR), from `align`."""
        users, items = (targets[side].vectors for side in ("users", "items"))

        def knowing(model: type[nn.Module]) -> type[nn.Module]:
            return with_knowledge(model, users, items, settings)

        self.module = self._module(*self._built_from, knowing)

    def _history(self, log: Log) -> Sequences:
        """Every user's training items, oldest first."""
        times = np.arange(len(log.users)) if log.times is None else log.times
        order = np.lexsort((times, self.train_users))
        return Sequences.of(
            self.train_users[order],
            self.train_items[order],
            self.n_users,
            self.settings["MAX_ITEM_LIST_LENGTH"],
            self.device,
        )

    def extend_history(self, users: NDArray[np.int64], items: NDArray[np.int64]) -> None:
        """Let a sequential model see later items, oldest first, when it scores from here on.

        Leave-one-out ranks the last item given all before it, the validation item included
        (Kang and McAuley 2018, section 4.4). Other models are left as they are.
        """
        if self._sequences is not None:
            self._sequences = self._sequences.extended(users, items)

    def batches(self) -> Batches:
        """Training batches in the form that the model expects."""
        generator = torch.Generator(device=self.device).manual_seed(self._seed)
        size = self.settings["train_batch_size"]
        pairs = Pairs(
            torch.from_numpy(self.train_users).to(self.device),
            torch.from_numpy(self.train_items).to(self.device),
            self.n_users,
            self.n_items,
            self.features,
        )
        if self._labels is not None:
            labels = torch.from_numpy(self._labels).to(self.device)
            return LabelledBatches(pairs, _FIELDS, labels, size, generator)
        if self.entry.loader == "users":
            return UserBatches(pairs, _FIELDS, size, generator)
        sampling = Sampling.from_recbole(self.settings["train_neg_sample_args"])
        negatives = Negatives(pairs, sampling, generator)
        if self._sequences is not None:
            return self._sequence_batches(self._sequences, negatives, generator)
        pointwise = self.entry.loader == "pointwise"
        return PairBatches(pairs, _FIELDS, negatives, size, pointwise, generator)

    def _sequence_batches(
        self, sequences: Sequences, negatives: Negatives, generator: torch.Generator
    ) -> Batches:
        size = self.settings["train_batch_size"]
        if self.entry.loader == "masked":
            masking = Masking(
                self.settings["mask_ratio"], self.settings["ft_ratio"], self.n_items, _MASKED
            )
            return MaskedBatches(sequences, _FIELDS, size, generator, negatives, masking)
        compares = self.settings.get("loss_type") == "BPR"
        return SequenceBatches(sequences, _FIELDS, size, generator, negatives if compares else None)

    def passes(self, epoch: int) -> Iterator[recbole_trainers.Pass]:
        """The passes over the batches that make one epoch (see `recbole_trainers.py`)."""
        return recbole_trainers.passes(self.name, self.module, self.settings, epoch)

    def loss(self, batch: dict[str, Tensor]) -> Tensor:
        """The model's own loss on a batch: a scalar."""
        mixed = self.precision != "float32"
        with torch.autocast(self.device.type, torch.bfloat16) if mixed else nullcontext():
            losses = cast(Any, self.module).calculate_loss(self._interaction(batch))
            loss = cast(Tensor, sum(losses) if isinstance(losses, tuple) else losses)
        return loss.float() if loss.dtype == torch.bfloat16 else loss

    def ids(self, side: Side, batch: dict[str, Tensor]) -> Tensor:
        """The batch's internal ids of users or items, repeats included: int64 (n,).

        A batch of whole users stands for all items.
        """
        if side == "users":
            return batch[USER]
        if ITEM not in batch:
            return torch.arange(1, self.n_items, device=self.device)
        columns = [batch[name] for name in (ITEM, NEGATIVE_PREFIX + ITEM) if name in batch]
        return torch.cat(columns) if len(columns) > 1 else columns[0]

    def rows(self, side: Side, table: str) -> range:
        """Which rows of a table are the users' or the items'.

        Context-aware models keep all token features in one table, a field after the other.
        """
        n = self.n_users if side == "users" else self.n_items
        first = 0
        if self.entry.family == "context-aware" and "token_embedding" in table:
            fields = cast(Any, self.module).token_field_names
            offsets = cast(Any, self.module).token_field_offsets
            first = int(offsets[fields.index(USER if side == "users" else ITEM)])
        return range(first, first + n)

    def weights(self) -> dict[str, Tensor]:
        """A copy of all weights on the CPU; layers that share one tensor get a copy each."""
        state = self.module.state_dict()
        return {name: value.detach().cpu().clone() for name, value in state.items()}

    def restore(self, weights: Mapping[str, Tensor]) -> None:
        """Load weights, and forget all that the model computed from others.

        Graph models and DMF keep propagated vectors between predictions.
        """
        if isinstance(self.module, Ease):
            self.module.hold(weights)
            return
        self.module.load_state_dict(weights)
        for kept in ("restore_user_e", "restore_item_e", "i_embedding"):
            if hasattr(self.module, kept):
                setattr(self.module, kept, None)

    @torch.no_grad()
    def scores(self, users: Tensor) -> Tensor:
        """Scores of all items: float32 (len(users), n_items); column 0 is padding.

        The caller has put the module into evaluation mode.
        """
        return all_item_scores(self, users)

    def interaction(self, users: Tensor, items: Tensor | None = None) -> Any:
        """RecBole's form of users, or of user-item pairs with the items' features."""
        columns = {USER: users}
        if self._sequences is not None:
            columns |= self._sequences.latest(users, _FIELDS)
        if items is not None:
            columns |= {ITEM: items} | {name: of[items] for name, of in self.features.items()}
        return self._interaction(columns)

    @torch.no_grad()
    def predict(self, users: Tensor, items: Tensor) -> Tensor:
        """RecBole's `predict` of user-item pairs: float32 (n,).

        Context-aware models give the probability that the user likes the item.
        """
        scores = cast(Any, self.module).predict(self.interaction(users, items))
        return cast(Tensor, scores).reshape(-1)
