"""Training batches as whole tensors: shuffling and negative sampling without per-row Python.

RecBole's loader (recbole/data/dataloader/general_dataloader.py) copies every column and samples
negatives for each batch in Python; here an epoch is drawn in large blocks on the device.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from models.errors import BadInput

_BLOCK_ROWS = 1 << 22
_MARKED_PAIRS = 1 << 28
"""User-item pairs for which a table of bytes, a quarter of a gigabyte, beats a binary search."""

Batch = dict[str, Tensor]


class Batches(Protocol):
    """One epoch of batches per iteration, each time in a new order.

    Attributes:
        generator: whence the orders and the negatives of all epochs come.
    """

    generator: torch.Generator

    def __len__(self) -> int:
        """Number of batches in an epoch."""

    def __iter__(self) -> Iterator[Batch]:
        """The epoch's batches: columns by RecBole's names."""


@dataclass(frozen=True)
class Fields:
    """RecBole's names of a batch's columns."""

    user: str
    item: str
    negative: str
    label: str


@dataclass(frozen=True)
class Pairs:
    """Training pairs by internal ids (1 …; 0 is RecBole's padding).

    Attributes:
        users, items: int64 (n,).
        n_users, n_items: numbers of internal ids, padding included.
        features: item features by column, n_items rows each, joined to pointwise batches.
    """

    users: Tensor
    items: Tensor
    n_users: int
    n_items: int
    features: Mapping[str, Tensor] = field(default_factory=dict)

    def features_of(self, items: Tensor) -> Batch:
        """The items' features, a row per item."""
        return {name: of[items] for name, of in self.features.items()}


@dataclass(frozen=True)
class Sampling:
    """RecBole's `train_neg_sample_args`, as far as it does not depend on the model's state."""

    per_positive: int = 1
    popularity: float | None = None
    """Exponent of item counts; None means uniform."""

    @classmethod
    def from_recbole(cls, arguments: Mapping[str, object]) -> "Sampling":
        """Read RecBole's arguments; dynamic sampling is refused."""
        if arguments.get("dynamic"):
            raise BadInput("train_neg_sample_args.dynamic: dynamic negatives are not supported")
        popular = arguments.get("distribution") == "popularity"
        return cls(
            per_positive=int(str(arguments.get("sample_num", 1))),
            popularity=float(str(arguments.get("alpha", 1.0))) if popular else None,
        )


class Negatives:
    """Draws items that users have not interacted with.

    Raises:
        BadInput: if some user has interacted with every item, so that there is no negative.
    """

    def __init__(self, pairs: Pairs, sampling: Sampling, generator: torch.Generator) -> None:
        self.per_positive = sampling.per_positive
        self._n_items = pairs.n_items
        self._generator = generator
        self._weights: Tensor | None = None
        drawable = pairs.n_items - 1
        if sampling.popularity is not None:
            popularity = torch.bincount(pairs.items, minlength=pairs.n_items).float()
            self._weights = popularity**sampling.popularity
            self._weights[popularity == 0] = 0.0
            drawable = int((popularity > 0).sum())
        counts = torch.bincount(pairs.users, minlength=pairs.n_users)
        if int(counts.max()) >= drawable:
            raise BadInput(
                f"a user has interacted with all {drawable} items that negative sampling draws "
                "from: no negative item is left for that user; drop the user"
            )
        codes = pairs.users * pairs.n_items + pairs.items
        self._taken: Tensor | None = None
        if pairs.n_users * pairs.n_items <= _MARKED_PAIRS:
            self._taken = torch.zeros(
                pairs.n_users * pairs.n_items, dtype=torch.bool, device=codes.device
            )
            self._taken[codes] = True
        self._positives = torch.sort(codes).values

    def of(self, users: Tensor) -> Tensor:
        """Negative items of users: int64 (per_positive, n)."""
        users = users.repeat(self.per_positive)
        drawn = self._draw(len(users))
        redraw = torch.nonzero(self._is_positive(users, drawn), as_tuple=True)[0]
        while len(redraw):
            drawn[redraw] = self._draw(len(redraw))
            redraw = redraw[self._is_positive(users[redraw], drawn[redraw])]
        return drawn.view(self.per_positive, -1)

    def _draw(self, n: int) -> Tensor:
        if self._weights is not None:
            return torch.multinomial(self._weights, n, replacement=True, generator=self._generator)
        device = self._positives.device
        return torch.randint(1, self._n_items, (n,), generator=self._generator, device=device)

    def _is_positive(self, users: Tensor, items: Tensor) -> Tensor:
        codes = users * self._n_items + items
        if self._taken is not None:
            return self._taken.index_select(0, codes)
        nearest = torch.searchsorted(self._positives, codes).clamp_(max=len(self._positives) - 1)
        return self._positives[nearest] == codes


class PairBatches:
    """Pairs with sampled negatives, new ones in each epoch.

    Pairwise: (user, item, negative item). Pointwise: (user, item, label, item features), the
    positives first. Columns are in RecBole's layout: one repeat of the positives per negative.
    """

    def __init__(
        self,
        pairs: Pairs,
        fields: Fields,
        negatives: Negatives,
        batch_size: int,
        pointwise: bool,
        generator: torch.Generator,
    ) -> None:
        """Take `batch_size` as RecBole does: rows, sampled negatives counted."""
        self.pairs, self.fields, self.negatives = pairs, fields, negatives
        self.pointwise = pointwise
        self.generator = generator
        self._step = max(batch_size // (negatives.per_positive + int(pointwise)), 1)

    def __len__(self) -> int:
        return -(-len(self.pairs.users) // self._step)

    def __iter__(self) -> Iterator[Batch]:
        form = self._pointwise if self.pointwise else self._pairwise
        block_rows = max(_BLOCK_ROWS // self._step, 1) * self._step
        for block in shuffled(len(self.pairs.users), self.generator).split(block_rows):
            users, items = self.pairs.users[block], self.pairs.items[block]
            negatives = self.negatives.of(users)
            for start in range(0, len(block), self._step):
                rows = slice(start, start + self._step)
                yield form(users[rows], items[rows], negatives[:, rows].reshape(-1))

    def _pairwise(self, users: Tensor, items: Tensor, negatives: Tensor) -> Batch:
        repeats = self.negatives.per_positive
        return {
            self.fields.user: users.repeat(repeats) if repeats > 1 else users,
            self.fields.item: items.repeat(repeats) if repeats > 1 else items,
            self.fields.negative: negatives,
        }

    def _pointwise(self, users: Tensor, items: Tensor, negatives: Tensor) -> Batch:
        labels = torch.zeros(len(users) + len(negatives), device=users.device)
        labels[: len(users)] = 1.0
        items = torch.cat((items, negatives))
        return {
            self.fields.user: users.repeat(self.negatives.per_positive + 1),
            self.fields.item: items,
            self.fields.label: labels,
            **self.pairs.features_of(items),
        }


class LabelledBatches:
    """(user, item, label, item features) of the interactions themselves; nothing is sampled."""

    def __init__(
        self,
        pairs: Pairs,
        fields: Fields,
        labels: Tensor,
        batch_size: int,
        generator: torch.Generator,
    ) -> None:
        self.pairs, self.fields, self.labels = pairs, fields, labels
        self.generator = generator
        self._step = batch_size

    def __len__(self) -> int:
        return -(-len(self.labels) // self._step)

    def __iter__(self) -> Iterator[Batch]:
        for rows in shuffled(len(self.labels), self.generator).split(self._step):
            items = self.pairs.items[rows]
            yield {
                self.fields.user: self.pairs.users[rows],
                self.fields.item: items,
                self.fields.label: self.labels[rows],
                **self.pairs.features_of(items),
            }


class UserBatches:
    """Whole users, each once per epoch, as RecBole feeds its autoencoders."""

    def __init__(
        self, pairs: Pairs, fields: Fields, batch_size: int, generator: torch.Generator
    ) -> None:
        self.fields = fields
        self._users = pairs.users.unique()
        self.generator = generator
        self._step = batch_size

    def __len__(self) -> int:
        return -(-len(self._users) // self._step)

    def __iter__(self) -> Iterator[Batch]:
        for chunk in shuffled(len(self._users), self.generator).split(self._step):
            yield {self.fields.user: self._users[chunk]}


def shuffled(n: int, generator: torch.Generator) -> Tensor:
    """A random order of `n` rows: int64 (n,)."""
    return torch.randperm(n, generator=generator, device=generator.device)
