"""A RecBole model with its data, addressed by raw ids: a loss, batches, scores and weights."""

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from functools import cached_property, partial
from typing import Any, cast

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from models.arrow import Ints, Singles, Strings, positions, strings
from models.config import SIDES, Kar, LlmCf, Side
from models.errors import BadInput
from models.recommenders import recbole_trainers
from models.recommenders.batches import (
    LABEL,
    NEGATIVE_ITEM,
    NEGATIVE_PREFIX,
    Batches,
    Negatives,
    Pairs,
    labelled_batches,
    pair_batches,
    user_batches,
)
from models.recommenders.blend import Blend
from models.recommenders.closed_form import Ease, SideInformation
from models.recommenders.comparators.kar import with_knowledge
from models.recommenders.comparators.llm_cf import Examples, with_examples
from models.recommenders.hyperparameters import hyperparameters
from models.recommenders.ials import Ials
from models.recommenders.own_models import plain_module
from models.recommenders.recbole_adapter import (
    Log,
    Universe,
    config_class,
    dataset_class,
    interaction_class,
    model_class,
)
from models.recommenders.registry import entry, precision_of
from models.recommenders.sequence_batches import (
    MASKED,
    Masking,
    Sequences,
    masked_batches,
    sequence_batches,
)
from models.recommenders.speedups import speed_up
from models.schemas import ITEM, USER
from models.transfer.wrapper import Targets

_SCORED_PAIRS = 1 << 16
_OURS: dict[str, type[nn.Module]] = {"EASE": Ease, "iALS": Ials, "Blend": Blend}


class Recommender:
    """A RecBole model on a training set, addressed by raw tokens.

    Attributes:
        module: the RecBole model, or one's own module.
        kin: RecBole's model that it is or extends.
        given: the hyper-parameters it was built with; `settings` has the defaults, too.
        precision: that its own loss is computed in.
        n_users, n_items: numbers of internal ids; id 0 is RecBole's padding.
        names: the raw ids of internal ids, strings (n_users,) and (n_items,) by column.
        train_users, train_items: int64 (n,), the training pairs by internal ids.
        features: item features by column, each with n_items rows; context-aware models only.
        user_features: likewise of users, n_users rows.
    """

    def __init__(
        self,
        model: str,
        given: Mapping[str, Any],
        log: Log,
        universe: Universe,
        seed: int,
        device: str = "cpu",
        precision: str = "float32",
    ) -> None:
        """Build the model; `seed` decides weights, dropout, shuffling and negatives.

        `universe` has all ids, training or not, and items' features. A model whose own loss does
        not allow bfloat16 takes float32, whatever `precision` says.

        Raises:
            BadInput: for whatever is wrong with the model's name, hyper-parameters or data, and for
                a package that it needs and that is missing.
        """
        self.name = model
        self.entry = entry(model)
        self.kin = self.entry.kin or model
        self.given = given
        self.settings = hyperparameters(model, given)
        self.device = torch.device(device)
        self.precision = precision_of(model, precision)
        self.seed = seed
        self._labels = log.labels
        self._times = None if log.labels is None else log.times
        if self.entry.family != "context-aware":
            universe = Universe(universe.users, universe.items)
        with warnings.catch_warnings():
            # RecBole calls what pandas and torch have announced to drop; the lock pins both.
            warnings.simplefilter("ignore")
            config, dataset = self._data(log, universe)
            self.names: dict[str, pa.Array] = dataset.names
            self.n_users, self.n_items = len(self.names[USER]), len(self.names[ITEM])
            self.train_users = dataset.inter_feat[USER].numpy()
            self.train_items = dataset.inter_feat[ITEM].numpy()
            of_items, of_users = dataset.get_item_feature(), dataset.get_user_feature()
            self.features = {f: of_items[f].to(self.device) for f in universe.of_items}
            self.user_features = {f: of_users[f].to(self.device) for f in universe.of_users}
            self._sequences = self._history(log) if self.entry.family == "sequential" else None
            self._built_from = config, dataset
            self.module: nn.Module = self._module(config, dataset)

    def _data(self, log: Log, universe: Universe) -> tuple[Any, Any]:
        """RecBole's configuration and data set."""
        self._interaction = interaction_class()
        settings = dict(self.settings)
        if settings.get("loss_type") == "CE":
            settings["train_neg_sample_args"] = None  # RecBole insists
        # RecBole has none that is swept or plain; their data set is that of any general model.
        unknown = self.name in _OURS or self.entry.plain
        model = "EASE" if unknown else self.entry.own or self.name
        config = config_class()(model=model, dataset="llmkt", config_dict=settings)
        for key, value in {
            "USER_ID_FIELD": USER,
            "ITEM_ID_FIELD": ITEM,
            "LABEL_FIELD": LABEL,
            "NEG_PREFIX": NEGATIVE_PREFIX,
            "numerical_features": [],
            "device": self.device,
            "log": log,
            "universe": universe,
            **MASKED,
        }.items():
            config[key] = value
        dataset = dataset_class()(config)
        dataset.logger = logging.getLogger("recbole.dataset")
        dataset.logger.setLevel(logging.ERROR)
        dataset._change_feat_format()
        config["log"] = config["universe"] = None  # read, and large
        return config, dataset

    def _module(
        self,
        config: Any,
        dataset: Any,
        adapt: Callable[[type[nn.Module]], type[nn.Module]] = lambda model: model,
    ) -> nn.Module:
        recbole_trainers.seed_all(self.seed)
        if self.name in _OURS:
            pairs, shape = (self.train_users, self.train_items), (self.n_users, self.n_items)
            return _OURS[self.name](*pairs, shape, self.settings, self.seed, self.device)
        if self.entry.plain:
            made_plain = plain_module(self.name, self.entry, self._pairs, self.settings)
            return made_plain.to(self.device)
        try:
            own = cast(Any, self.entry.own)
            made = adapt(own or model_class(self.name))
            module: nn.Module = cast(Any, made)(config, dataset).to(self.device)
            if own is None:
                speed_up(self.name, module)
            recbole_trainers.prepare(self.kin, module, self.seed, self.train_items)
        except ImportError as error:
            raise BadInput(
                f"models.{self.name} needs the package {error.name}, which is missing. Install it."
            ) from error
        return module

    @cached_property
    def tokens(self) -> dict[str, NDArray[Any]]:
        """The tokens of users, items and the features in use, by internal ids: (n,) by column."""
        words = self._built_from[1].field2id_token
        ids = {name: own.to_numpy(zero_copy_only=False) for name, own in self.names.items()}
        return ids | {name: words[name] for name in (*self.features, *self.user_features)}

    def user_ids(self, tokens: Strings) -> Ints:
        """Internal ids of raw user ids: int64 (n,), 0 where one is unknown."""
        return positions(strings(tokens), self.names[USER][1:]) + 1

    def item_ids(self, tokens: Strings) -> Ints:
        """Internal ids of raw item ids: int64 (n,), 0 where one is unknown."""
        return positions(strings(tokens), self.names[ITEM][1:]) + 1

    def align(self, tokens: Strings, vectors: Singles, side: Side = "users") -> Targets:
        """Put target rows, float32 (len(tokens), width), where their internal ids are.

        Tokens that the data set does not have are ignored, ids without a row are unknown.
        """
        of_users = side == "users"
        internal = self.user_ids(tokens) if of_users else self.item_ids(tokens)
        n = self.n_users if of_users else self.n_items
        aligned = torch.zeros(n, vectors.shape[1])
        known = torch.zeros(n, dtype=torch.bool)
        aligned[internal[internal > 0]] = torch.from_numpy(vectors[internal > 0])
        known[internal[internal > 0]] = True
        return Targets(aligned.to(self.device), known.to(self.device))

    def take_embeddings(self, alpha: float, embeddings: Mapping[Side, Targets]) -> None:
        """Let whole embeddings by side, from `align`, enter the model; `alpha` is their share."""
        given: dict[str, Any] = {}
        for side, aligned in embeddings.items():
            given[side] = aligned.vectors.cpu().numpy()
            given[f"{side}_known"] = aligned.known.cpu().numpy()
        cast(Any, self.module).take_prior(alpha, SideInformation(**given))

    def rebuild_with_features(
        self, settings: Kar | LlmCf, embeddings: Mapping[Side, Targets]
    ) -> None:
        """Build the model anew with embeddings of both sides, from `align`: KAR or LLM-CF."""
        users, items = (embeddings[side].vectors for side in SIDES)
        if isinstance(settings, Kar):
            adapt = partial(with_knowledge, users=users, items=items, settings=settings)
        else:
            assert self._labels is not None  # whose arms are refused elsewhere
            rows = self._pairs, self._labels, self._times
            read = Examples(*rows, items, settings, self.seed)
            adapt = partial(
                with_examples, users=users, items=items, settings=settings, examples=read
            )
        self.module = self._module(*self._built_from, adapt)

    def _history(self, log: Log) -> Sequences:
        """Every user's training items, oldest first."""
        times = np.arange(len(self.train_users)) if log.times is None else log.times
        order = np.lexsort((times, self.train_users))
        return Sequences.from_pairs(
            self.train_users[order],
            self.train_items[order],
            self.n_users,
            self.settings["MAX_ITEM_LIST_LENGTH"],
            self.device,
        )

    def extend_history(self, users: Ints, items: Ints) -> None:
        """Let a sequential model see later items, oldest first, when it scores from here on.

        Leave-one-out ranks the last item given all before it, the validation item included
        (Kang and McAuley 2018, section 4.4). Other models are left as they are.
        """
        if self._sequences is not None:
            self._sequences = self._sequences.extended(users, items)

    def batches(self) -> Batches:
        """Training batches in the form that the model expects."""
        generator = torch.Generator(device=self.device).manual_seed(self.seed)
        size = self.settings["train_batch_size"]
        loader = self.settings.get("loader") or self.entry.loader
        pairs = self._pairs
        if self._labels is not None:
            labels = torch.from_numpy(self._labels).to(self.device)
            return labelled_batches(pairs, labels, size, generator, self._least_rows(size))
        if loader == "users":
            return user_batches(pairs, size, generator)
        negatives = Negatives(pairs, self.settings["train_neg_sample_args"] or {}, generator)
        if self._sequences is None:
            pointwise = loader == "pointwise"
            return pair_batches(pairs, negatives, size, pointwise, generator)
        if loader == "masked":
            ratios = self.settings["mask_ratio"], self.settings["ft_ratio"]
            masking = Masking(*ratios, self.n_items, generator)
            return masked_batches(self._sequences, size, negatives, masking)
        compares = self.settings.get("loss_type") == "BPR"
        return sequence_batches(self._sequences, size, generator, negatives if compares else None)

    @cached_property
    def _pairs(self) -> Pairs:
        """The training pairs by internal ids, on the model's device."""
        return Pairs(
            torch.from_numpy(self.train_users).to(self.device),
            torch.from_numpy(self.train_items).to(self.device),
            self.n_users,
            self.n_items,
            self.features,
            self.user_features,
        )

    def _least_rows(self, size: int) -> int:
        """Count the rows that a batch must have: one alone has no variance to divide by."""
        least = 2 if any(isinstance(m, nn.BatchNorm1d) for m in self.module.modules()) else 1
        if min(size, len(self.train_users)) < least:
            raise BadInput(
                f"models.{self.name}.hyperparameters.train_batch_size: {self.name} normalizes over "
                "a batch, which needs 2 training interactions. Raise it, or bring more data."
            )
        return least

    def passes(self, epoch: int) -> Iterator[recbole_trainers.Pass]:
        """The passes over the batches that make one epoch (see `recbole_trainers.py`)."""
        return recbole_trainers.passes(self.kin, self.module, self.settings, epoch)

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
        columns = [batch[name] for name in (ITEM, NEGATIVE_ITEM) if name in batch]
        return torch.cat(columns) if len(columns) > 1 else columns[0]

    def counts(self, side: Side) -> Tensor:
        """Training interactions by internal id of a user or item: int64 (n_users or n_items,)."""
        of_users = side == "users"
        ids, n = (self.train_users, self.n_users) if of_users else (self.train_items, self.n_items)
        return torch.from_numpy(np.bincount(ids, minlength=n)).to(self.device)

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
        # Files of weights hold no transposed tensors.
        return {
            name: value.detach().cpu().clone(memory_format=torch.contiguous_format)
            for name, value in state.items()
        }

    def restore(self, weights: Mapping[str, Tensor]) -> None:
        """Load weights, and forget all that the model computed from others."""
        self.module.load_state_dict(weights)
        self.forget()

    def forget(self) -> None:
        """Drop the propagated vectors that graph models and DMF keep between predictions."""
        for kept in ("restore_user_e", "restore_item_e", "i_embedding"):
            if hasattr(self.module, kept):
                setattr(self.module, kept, None)

    @torch.no_grad()
    def scores(self, users: Tensor) -> Tensor:
        """Score all items: float32 (len(users), n_items); column 0 is padding.

        By RecBole's own full sort or ours (see `speedups.py`), else pair by pair. The caller has
        put the module into evaluation mode.
        """
        try:
            scores = cast(Any, self.module).full_sort_predict(self.interaction(users))
        except NotImplementedError:
            scores = self.pairwise_scores(users)
        return cast(Tensor, scores).view(len(users), self.n_items)

    def pairwise_scores(self, users: Tensor) -> Tensor:
        """Score by the model's `predict`, a block of users against all items at a time.

        Returns:
            float32 (len(users) · n_items,).
        """
        items = torch.arange(self.n_items, device=self.device)
        return torch.cat(
            [
                self.predict(block.repeat_interleave(self.n_items), items.repeat(len(block)))
                for block in users.split(max(_SCORED_PAIRS // self.n_items, 1))
            ]
        )

    def interaction(self, users: Tensor, items: Tensor | None = None) -> Any:
        """Put users, or user-item pairs with the items' features, into RecBole's form."""
        columns = {USER: users}
        if self._sequences is not None:
            columns |= self._sequences.latest(users)
        if items is not None:
            columns |= {ITEM: items} | self._pairs.features_of(users, items)
        return self._interaction(columns)

    @torch.no_grad()
    def predict(self, users: Tensor, items: Tensor) -> Tensor:
        """Score user-item pairs by RecBole's `predict`: float32 (n,).

        Context-aware models give the probability that the user likes the item.
        """
        scores = cast(Any, self.module).predict(self.interaction(users, items))
        return cast(Tensor, scores).reshape(-1)
