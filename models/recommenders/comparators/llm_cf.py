"""LLM-CF, the comparator: a click model that reads earlier examples with their thoughts in context.

LLM-CF (Sun et al. 2024, CIKM, arXiv 2403.17688) retrieves training rows for each prediction, half
of them liked. A small causal decoder reads them, three tokens each: features, chain of thought,
label; the prediction's own features come last. That token's state joins the deep input of the
click model, and a second loss rebuilds each thought from the state of the features before it.

The paper lets an LLM write a thought for each row. Here a row's thought is the text about its user
beside the text about its item, as the profile stage has written and embedded them: offline, by an
LLM within its budget, or from a pack, so that no further stage is needed. A row's label is not part
of its thought, but the text about a user sums up all of that user's training rows, as for KAR.

Retrieval never returns the row itself or one that is not earlier. In the published script, a
training row finds itself, label included: `llm_cf.leak` does so too, to measure what it is worth.
That script also ranks by histories alone and leaves other users' later rows open; we do neither.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from models.arrow import Ints, Singles
from models.config import LlmCf
from models.recommenders.batches import ROW, Pairs
from models.schemas import ITEM, USER

_HEADS, _LAYERS = 2, 2
_NONE = 2
"""The label of an example that is missing; 0 and 1 are labels of rows."""
_AFTER_ALL = torch.iinfo(torch.int64).max
_SIMILARITIES = 1 << 24
"""So many are computed at once."""


class Examples:
    """The training rows, and which of them a prediction retrieves; held-out rows are unknown here.

    The similarity of two rows is half the cosine of what their users had liked before, as sums of
    items' vectors, and half the cosine of their items' vectors.

    Attributes:
        pairs: the training rows.
        users, items, labels: int64 (n + 1,), of the training rows; the last one stands for none.
    """

    def __init__(
        self,
        pairs: Pairs,
        labels: Singles,
        times: Ints | None,
        texts: Tensor,
        settings: LlmCf,
        seed: int,
    ) -> None:
        """Sum up histories and draw the rows that can be retrieved.

        Args:
            pairs: the training rows.
            labels: (n,), 1 for liked.
            times: (n,); rows of equal times are not earlier than each other. None: in order.
            texts: float32 (n_items, width), the items' vectors.
            settings: section `llm_cf`.
            seed: of the draw.
        """
        n, device = len(labels), texts.device
        liked = torch.tensor(labels, device=device)
        self._times = torch.tensor(np.arange(n) if times is None else times, device=device)
        self._half, self._leak = settings.examples // 2, settings.leak
        self.pairs = pairs
        self.users, self.items = (functional.pad(ids, (0, 1)) for ids in (pairs.users, pairs.items))
        self.labels = functional.pad(liked.long(), (0, 1), value=_NONE)

        self._texts = functional.normalize(texts, dim=1)
        likes = self._texts[pairs.items] * liked[:, None]
        self._before = _earlier_sums(pairs.users, self._times, likes)
        self._in_all = torch.zeros(pairs.n_users, texts.shape[1], device=device)
        self._in_all.index_add_(0, pairs.users, likes)

        drawn = torch.randperm(n, generator=torch.Generator().manual_seed(seed)).to(device)
        drawn = drawn[: settings.pool].sort().values
        self._pools = [drawn[liked[drawn] == label] for label in (1, 0)]
        self._keys = [self._key(self._before[pool], self.items[pool]) for pool in self._pools]
        self._at_once = max(_SIMILARITIES // len(drawn), 1)
        self._found: dict[bytes, Tensor] = {}

    @cached_property
    def of_rows(self) -> Tensor:
        """What every training row retrieves: int64 (n, examples), -1 for none."""
        rows = torch.arange(len(self._times), device=self._times.device)
        return self._retrieved(self._before, self.items[:-1], self._times, rows)

    def of_pairs(self, users: Tensor, items: Tensor) -> Tensor:
        """Retrieve for b predictions, which come after all training rows: int64 (b, examples).

        Validation asks for the same pairs in each epoch, so that what was found is kept.
        """
        name = torch.stack((users, items)).cpu().numpy().tobytes()
        if name not in self._found:
            never, last = torch.full_like(users, -1), torch.full_like(users, _AFTER_ALL)
            self._found[name] = self._retrieved(self._in_all[users], items, last, never)
        return self._found[name]

    def _key(self, histories: Tensor, items: Tensor) -> Tensor:
        """What is compared by product: float32 (b, 2 · width)."""
        return torch.cat((functional.normalize(histories, dim=1), self._texts[items]), 1) / 2**0.5

    def _retrieved(self, *queries: Tensor) -> Tensor:
        """Retrieve for histories, items, times and own rows, b of each: int64 (b, examples)."""
        blocks = zip(*(column.split(self._at_once) for column in queries), strict=True)
        return torch.cat([self._nearest(*block) for block in blocks])

    def _nearest(self, histories: Tensor, items: Tensor, times: Tensor, own: Tensor) -> Tensor:
        """Choose the most similar earlier rows of each label; the most similar of all is last."""
        asked, found, similar = self._key(histories, items), [], []
        for pool, keys in zip(self._pools, self._keys, strict=True):
            allowed = self._times[pool] < times[:, None]
            if self._leak:
                allowed |= pool == own[:, None]
            scores = (asked @ keys.T).masked_fill(~allowed, -torch.inf)
            best = scores.topk(min(self._half, len(pool)), dim=1)
            too_few = (self._half - best.values.shape[1], 0)
            similar.append(functional.pad(best.values, too_few, value=-torch.inf))
            found.append(functional.pad(pool[best.indices], too_few, value=-1))
        scores, rows = torch.cat(similar, dim=1), torch.cat(found, dim=1)
        order = scores.argsort(dim=1, stable=True)
        return rows.masked_fill(scores == -torch.inf, -1).gather(1, order)


def _earlier_sums(users: Tensor, times: Tensor, vectors: Tensor) -> Tensor:
    """Sum each row's vectors over the rows of its user at earlier times: float32 (n, width)."""
    order = times.argsort(stable=True)
    order = order[users[order].argsort(stable=True)]
    users, times, vectors = users[order], times[order], vectors[order]
    by_user = vectors.split(torch.bincount(users).tolist())
    sums = torch.cat([part.cumsum(dim=0) - part for part in by_user])
    starts = torch.ones_like(users, dtype=torch.bool)
    starts[1:] = (users[1:] != users[:-1]) | (times[1:] != times[:-1])
    first = torch.where(starts, torch.arange(len(users), device=users.device), 0)
    return sums[first.cummax(dim=0).values[order.argsort()]]


class Decoder(nn.Module):
    """Causal self-attention over examples and, after them, the features of a prediction."""

    def __init__(self, features: int, texts: Sequence[Tensor], settings: LlmCf) -> None:
        """Make the maps to the decoder's width and back.

        Args:
            features: width of a row's features.
            texts: of users and of items, float32 (n, any) each: both halves of thoughts.
            settings: section `llm_cf`.
        """
        super().__init__()
        width, self._texts = settings.width, [functional.normalize(half, dim=1) for half in texts]
        self.features, self.label = nn.Linear(features, width), nn.Embedding(3, width)
        self._thinks, self._step = settings.thoughts, 2 + settings.thoughts
        if self._thinks:
            widths = [half.shape[1] for half in texts]
            self.thought = nn.ModuleList(nn.Linear(n, width, bias=False) for n in widths)
            self.rebuilt = nn.ModuleList(nn.Linear(width, n, bias=False) for n in widths)
        n_tokens = self._step * settings.examples + 1
        self.places = nn.Parameter(0.02 * torch.randn(n_tokens, width))
        layer = nn.TransformerEncoderLayer(
            width, _HEADS, 2 * width, dropout=0.0, batch_first=True, norm_first=True
        )
        norm = nn.LayerNorm(width)
        self.layers = nn.TransformerEncoder(layer, _LAYERS, norm, enable_nested_tensor=False)
        mask = nn.Transformer.generate_square_subsequent_mask(n_tokens)
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, features: Tensor, ids: Sequence[Tensor], labels: Tensor) -> Tensor:
        """Read b sequences of k examples.

        Args:
            features: float32 (b, k + 1, any), the prediction's last.
            ids: int64 (b, k) each, the examples' users and items, whose texts are the thoughts.
            labels: int64 (b, k), 0 or 1, or 2 where there is no example.

        Returns:
            The states of all tokens: float32 (b, tokens, width).
        """
        mapped = self.features(features)
        kinds = [mapped[:, :-1], self.label(labels)]
        if self._thinks:
            maps = zip(self.thought, self._texts, ids, strict=True)
            kinds.insert(1, torch.stack([layer(half)[rows] for layer, half, rows in maps]).sum(0))
        tokens = torch.cat((torch.stack(kinds, dim=2).flatten(1, 2), mapped[:, -1:]), dim=1)
        states: Tensor = self.layers(tokens + self.places, mask=self.mask, is_causal=True)
        return states

    def apart(self, states: Tensor, ids: Sequence[Tensor]) -> Tensor:
        """One minus the mean cosine of thoughts and what the features before them say: a scalar.

        Halves count apart, unknown ones not at all; without thoughts it is 0. Products and norms
        are taken in the decoder's width, so that nothing as wide as a text is made per example.
        """
        gaps = [states.new_zeros(0)]
        said = states[:, : -1 : self._step]
        for layer, half, rows in (
            zip(self.rebuilt, self._texts, ids, strict=True) if self._thinks else ()
        ):
            weight: Any = layer.weight
            square = (said @ (weight.T @ weight) * said).sum(dim=-1)
            product = (said * (half @ weight)[rows]).sum(dim=-1)
            cosines = product / square.clamp(min=1e-12).sqrt()
            gaps.append(1 - cosines[half.any(dim=1)[rows]])
        found = torch.cat(gaps)
        return found.sum() / max(len(found), 1)


def with_examples(
    model: type[nn.Module], users: Tensor, items: Tensor, settings: LlmCf, examples: Examples
) -> type[nn.Module]:
    """Derive a class from `model` whose deep layers also read the decoder's last state.

    `model` must have RecBole's `mlp_layers` over all fields; nothing else of it changes. `users`
    and `items` are the texts' vectors, float32 (n, any) by internal ids, zero where unknown.
    """
    base: Any = model

    class Extended(base):  # type: ignore[misc]
        """The model with a decoder."""

        def __init__(self, config: Any, dataset: Any) -> None:
            super().__init__(config, dataset)
            fields = self.num_feature_field * self.embedding_size
            self.decoder = Decoder(fields, (users, items), settings)
            layers = self.mlp_layers.mlp_layers  # dropout, then the first map
            first = layers[1]
            layers[1] = nn.Linear(first.in_features + settings.width, first.out_features)
            self._init_weights(layers[1])
            self.mlp_layers.register_forward_pre_hook(
                lambda _, given: torch.cat((given[0], self._state), dim=1)
            )

        def _read(self, interaction: Any) -> tuple[Tensor, Tensor]:
            """Return the last state, float32 (b, width), and the loss of thoughts, a scalar."""
            asked = interaction[USER], interaction[ITEM]
            trains = ROW in interaction.interaction
            rows = examples.of_rows[interaction[ROW]] if trains else examples.of_pairs(*asked)
            theirs = examples.users[rows], examples.items[rows]
            pairs = [
                torch.cat((ids, own[:, None]), dim=1).flatten()
                for ids, own in zip(theirs, asked, strict=True)
            ]
            columns = dict(zip((USER, ITEM), pairs, strict=True))
            fields = self.concat_embed_input_fields(columns | examples.pairs.features_of(*pairs))
            fields = fields.reshape(len(rows), settings.examples + 1, -1)
            states = self.decoder(fields, theirs, examples.labels[rows])
            return states[:, -1], self.decoder.apart(states, theirs)

        def forward(self, interaction: Any) -> Tensor:
            """The model's logits: float32 (b,)."""
            self._state, self._apart = self._read(interaction)
            logits: Tensor = super().forward(interaction)
            return logits

        def calculate_loss(self, interaction: Any) -> Tensor:
            """The model's own loss and, weighed, that of the thoughts: a scalar."""
            loss: Tensor = super().calculate_loss(interaction)
            return loss + settings.reconstruction * self._apart

    return type(model.__name__, (Extended,), {})
