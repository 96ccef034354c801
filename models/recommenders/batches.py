"""Training batches as whole tensors: shuffling and negative sampling without per-row Python.

RecBole's loader (recbole/data/dataloader/general_dataloader.py) copies every column and samples
negatives for each batch in Python; here an epoch is drawn in large blocks on the device.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from models.errors import BadInput
from models.schemas import ITEM, USER

LABEL, ROW = "label", "row"
NEGATIVE_PREFIX = "neg_"
NEGATIVE_ITEM = NEGATIVE_PREFIX + ITEM

_BLOCK_ROWS = 1 << 20
_MARKED_PAIRS = 1 << 28
"""User-item pairs for which a table of bytes, a quarter of a gigabyte, beats a binary search."""

Batch = dict[str, Tensor]


@dataclass(frozen=True)
class Pairs:
    """Training pairs by internal ids (1 …; 0 is RecBole's padding).

    Attributes:
        users, items: int64 (n,).
        n_users, n_items: numbers of internal ids, padding included.
        features: item features by column, n_items rows each, joined to pointwise batches.
        user_features: likewise of users.
    """

    users: Tensor
    items: Tensor
    n_users: int
    n_items: int
    features: Mapping[str, Tensor] = field(default_factory=dict)
    user_features: Mapping[str, Tensor] = field(default_factory=dict)

    def features_of(self, users: Tensor, items: Tensor) -> Batch:
        """Look up the features of user-item pairs, a row per pair."""
        of_items = {name: feature[items] for name, feature in self.features.items()}
        return of_items | {name: feature[users] for name, feature in self.user_features.items()}


class Negatives:
    """Draw items that users have not interacted with.

    Attributes:
        per_positive: how many are drawn for each interaction.

    Raises:
        BadInput: if some user has interacted with every item, so that there is no negative.
    """

    def __init__(
        self, pairs: Pairs, sampling: Mapping[str, object], generator: torch.Generator
    ) -> None:
        """Take RecBole's `train_neg_sample_args`: sample_num, distribution, alpha."""
        self.per_positive = int(str(sampling.get("sample_num", 1)))
        self._n_items = pairs.n_items
        self._generator = generator
        self._weights: Tensor | None = None
        drawable = pairs.n_items - 1
        if sampling.get("distribution") == "popularity":
            popularity = torch.bincount(pairs.items, minlength=pairs.n_items).float()
            self._weights = popularity ** float(str(sampling.get("alpha", 1.0)))
            self._weights[popularity == 0] = 0.0
            drawable = int((popularity > 0).sum())
        counts = torch.bincount(pairs.users, minlength=pairs.n_users)
        if int(counts.max()) >= drawable:
            raise BadInput(
                f"a user has interacted with all {drawable} items that negative sampling draws "
                "from: no negative item is left for that user. Drop the user."
            )
        codes = (pairs.users * pairs.n_items).add_(pairs.items)
        self._marked: Tensor | None = None
        if pairs.n_users * pairs.n_items <= _MARKED_PAIRS:
            self._marked = torch.zeros(
                pairs.n_users * pairs.n_items, dtype=torch.bool, device=codes.device
            )
            self._marked[codes] = True
        if codes.is_cpu:
            codes.numpy().sort()  # in place, where torch takes 24 bytes more for each pair
        self._positives = codes if codes.is_cpu else torch.sort(codes).values

    def draw(self, users: Tensor) -> Tensor:
        """Draw negative items for users: int64 (per_positive, n)."""
        users = users.repeat(self.per_positive)
        drawn = self._items(len(users))
        redraw = torch.nonzero(self._is_positive(users, drawn), as_tuple=True)[0]
        while len(redraw):
            drawn[redraw] = self._items(len(redraw))
            redraw = redraw[self._is_positive(users[redraw], drawn[redraw])]
        return drawn.view(self.per_positive, -1)

    def _items(self, n: int) -> Tensor:
        if self._weights is not None:
            return torch.multinomial(self._weights, n, replacement=True, generator=self._generator)
        device = self._positives.device
        return torch.randint(1, self._n_items, (n,), generator=self._generator, device=device)

    def _is_positive(self, users: Tensor, items: Tensor) -> Tensor:
        codes = users * self._n_items + items
        if self._marked is not None:
            return self._marked.index_select(0, codes)
        nearest = torch.searchsorted(self._positives, codes).clamp_(max=len(self._positives) - 1)
        return self._positives[nearest] == codes


@dataclass(frozen=True)
class Batches:
    """One epoch of batches per iteration, each time in a new order.

    Attributes:
        n_rows: of an epoch.
        step: rows per batch.
        generator: source of all epochs' orders and negatives.
        make: turns row numbers, int64 (block,), into batches: columns by RecBole's names.
        block: how many rows `make` is given at once; as many as a batch has if 0.
        least: rows of the last batch; fewer join the batch before it. Without `block` only.
    """

    n_rows: int
    step: int
    generator: torch.Generator
    make: Callable[[Tensor], Iterable[Batch]]
    block: int = 0
    least: int = 1

    def __len__(self) -> int:
        """Count the batches of an epoch."""
        return max((self.n_rows + self.step - self.least) // self.step, 1)

    def __iter__(self) -> Iterator[Batch]:
        """Yield the epoch's batches."""
        device, small = self.generator.device, self.n_rows < 1 << 31
        dtype = torch.int32 if small else torch.int64  # the whole epoch's is in memory
        order = torch.randperm(self.n_rows, generator=self.generator, device=device, dtype=dtype)
        parts = list(order.split(self.block or self.step))
        if len(parts) > 1 and len(parts[-1]) < self.least:
            parts[-2:] = [torch.cat(parts[-2:])]
        for rows in parts:
            yield from self.make(rows.long())


def pair_batches(
    pairs: Pairs, negatives: Negatives, size: int, pointwise: bool, generator: torch.Generator
) -> Batches:
    """Batch pairs with negatives, drawn for a block of many batches at once, in each epoch anew.

    Columns are in RecBole's layout: one repeat of the positives per negative; pointwise (user,
    item, label, features), the positives first, else (user, item, negative item). `size` counts
    rows of a batch as RecBole does, sampled negatives included.
    """
    repeats = negatives.per_positive
    step = max(size // (repeats + int(pointwise)), 1)

    def pairwise_batch(users: Tensor, items: Tensor, drawn: Tensor) -> Batch:
        return {
            USER: users.repeat(repeats) if repeats > 1 else users,
            ITEM: items.repeat(repeats) if repeats > 1 else items,
            NEGATIVE_ITEM: drawn,
        }

    def pointwise_batch(users: Tensor, items: Tensor, drawn: Tensor) -> Batch:
        labels = torch.zeros(len(users) + len(drawn), device=users.device)
        labels[: len(users)] = 1.0
        items = torch.cat((items, drawn))
        users = users.repeat(repeats + 1)
        return {USER: users, ITEM: items, LABEL: labels} | pairs.features_of(users, items)

    def block(rows: Tensor) -> Iterator[Batch]:
        users, items = pairs.users[rows], pairs.items[rows]
        drawn = negatives.draw(users)
        batch = pointwise_batch if pointwise else pairwise_batch
        for start in range(0, len(rows), step):
            part = slice(start, start + step)
            yield batch(users[part], items[part], drawn[:, part].reshape(-1))

    return Batches(
        len(pairs.users), step, generator, block, block=max(_BLOCK_ROWS // step, 1) * step
    )


def labelled_batches(
    pairs: Pairs, labels: Tensor, size: int, generator: torch.Generator, least: int = 1
) -> Batches:
    """Batch the interactions themselves as (user, item, label, row, item features)."""

    def batch(rows: Tensor) -> list[Batch]:
        users, items = pairs.users[rows], pairs.items[rows]
        columns = {USER: users, ITEM: items, LABEL: labels[rows], ROW: rows}
        return [columns | pairs.features_of(users, items)]

    return Batches(len(labels), size, generator, batch, least=least)


def user_batches(pairs: Pairs, size: int, generator: torch.Generator) -> Batches:
    """Batch whole users, each once per epoch, as RecBole feeds its autoencoders."""
    users = pairs.users.unique()
    return Batches(len(users), size, generator, lambda rows: [{USER: users[rows]}])
