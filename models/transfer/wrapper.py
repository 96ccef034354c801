"""Model Wrapper: a recommender's loss, with or without knowledge transfer."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import reduce
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from models.config import Side, Tap, Transfer
from models.errors import BadInput
from models.transfer.hooks import Captured, HookManager, did_not_fire, gradient_norm
from models.transfer.losses import AlignmentLoss, Losses, LossManager
from models.transfer.ridge_map import RidgeMap
from models.transfer.teacher import Taught
from models.transfer.weights import WeightsManager


class Trainable(Protocol):
    """What the wrapper needs of a recommender (`models.recommenders.recommender.Recommender`)."""

    name: str
    module: nn.Module

    def loss(self, batch: Any) -> Tensor:
        """The model's own loss on a batch: a scalar."""

    def ids(self, side: Side, batch: Any) -> Tensor:
        """The batch's internal ids of users or items, with repeats: int64 (n,)."""

    def counts(self, side: Side) -> Tensor:
        """Training interactions by internal id of a user or item: int64 (n,)."""

    def rows(self, side: Side, table: str) -> range:
        """Which rows of an embedding table or parameter are the users' or the items'."""


@dataclass(frozen=True)
class Targets:
    """Targets aligned to a model's internal ids of users or items.

    Attributes:
        vectors: float32 (n_users or n_items, width), zero where unknown.
        known: bool (n_users or n_items,), False where there is no profile: masked out.
    """

    vectors: Tensor
    known: Tensor


@dataclass(frozen=True)
class Knowledge:
    """What one side's transfer needs.

    Attributes:
        side: whose profiles.
        tap: where they enter.
        width: of the tapped layer, as `models.recommenders.tap_probe.probe` finds it.
        targets: what the layer is to resemble.
    """

    side: Side
    tap: Tap
    width: int
    targets: Targets


class ModelWrapper:
    """Computes the loss of a training step and holds the managers that transfer needs.

    The architecture is not changed and nothing stays behind: in prediction the recommender is
    exactly what RecBole built.
    """

    def __init__(
        self,
        recommender: Trainable,
        transfer: Transfer | None = None,
        knowledge: Sequence[Knowledge] = (),
        seed: int = 0,
        lesson: Taught | None = None,
    ) -> None:
        """Wrap `recommender`, without `transfer` as a baseline; BadInput for a wrong tap."""
        self.recommender = recommender
        self.transfer = transfer
        self.weights = WeightsManager(recommender.module)
        self.alpha = transfer.strength if transfer else 0.0
        at_taps = [_Transferred(recommender, transfer, k, seed) for k in knowledge if transfer]
        self.sides: list[_Transferred | Taught] = [lesson] if lesson else [*at_taps]
        if transfer and transfer.method.before_training:
            for side in at_taps:
                side.initialise()

    def head_parameters(self) -> Iterator[nn.Parameter]:
        """Parameters of alignment heads, which train beside the model and are then dropped."""
        for side in self.sides:
            yield from side.losses.align.parameters()

    def start_phase(self, phase: str) -> None:
        """Freeze what the configuration holds still in this phase, thaw the rest."""
        frozen = self.transfer.freeze.model_dump().get(phase, ()) if self.transfer else ()
        self.weights.freeze_only(frozen)

    def start_epoch(self, epoch: int, epochs: int) -> None:
        """Refit maps; let alpha fall in a line to nothing after the last epoch, if asked to."""
        for side in self.sides:
            if side.map is not None:
                side.map.refit()
        if self.transfer and self.transfer.schedule == "decay":
            self.alpha = self.transfer.strength * (1 - epoch / epochs)

    def end_epoch(self) -> None:
        """Place rows that no interaction has trained, if their side has a map."""
        for side in self.sides:
            if self.alpha > 0 and isinstance(side, _Transferred):
                side.place_new()

    def state(self) -> list[dict[str, Any]]:
        """What training has changed on each side, as tensors and plain values."""
        return [side.state() for side in self.sides]

    def restore(self, state: Sequence[dict[str, Any]]) -> None:
        """Go on from what `state` returned."""
        for side, kept in zip(self.sides, state, strict=True):
            side.restore(kept)

    def step_loss(self, batch: Any, transferring: bool) -> Losses:
        """The losses of one step; `transferring` says whether the joint loss is on.

        Where no row of the batch has a profile the model's loss stands alone.
        """
        if not transferring:
            loss = self.recommender.loss(batch)
            return Losses(loss, loss, None)
        with ExitStack() as recording:
            for side in self.sides:
                recording.enter_context(side.recording())
            loss = self.recommender.loss(batch)
        weighed = [side.weigh(loss, batch) for side in self.sides]
        parts = [part for part in weighed if part is not None]
        if not parts:
            return Losses(loss, loss, None)
        transfer, on_model_scale = (
            reduce(torch.add, losses) for losses in zip(*parts, strict=True)
        )
        # (1 - alpha) · model + alpha · transfer, in one operation instead of four.
        return Losses(torch.lerp(loss, on_model_scale.to(loss), self.alpha), loss, transfer)


class _Transferred:
    """One side's transfer: its hooks, its targets and its loss."""

    def __init__(
        self, recommender: Trainable, transfer: Transfer | None, knowledge: Knowledge, seed: int
    ) -> None:
        assert transfer is not None
        self.recommender = recommender
        self.transfer = transfer
        self.side = knowledge.side
        self.targets = knowledge.targets
        self.hooks = HookManager(recommender.module, knowledge.tap)
        self.recording = self.hooks.recording
        self.layer_spread: float | None = None
        self._scaled: Tensor | None = None
        self._all_known = bool(self.targets.known[1:].all())
        self._rows = recommender.rows(self.side, knowledge.tap.name)
        _require_own_table(recommender.name, self.hooks, self._rows, self.side)
        target_width = self.targets.vectors.shape[1]
        if not transfer.method.bridges and knowledge.width != target_width:
            raise BadInput(
                f"the tapped layer {knowledge.tap.name} is {knowledge.width} wide, the targets "
                f"are {target_width} wide. Set targets.width or the tap's slice."
            )
        align = AlignmentLoss(transfer, knowledge.width, target_width, seed)
        self.losses = LossManager(align.to(self.targets.vectors.device), transfer.balance)
        self.map: RidgeMap | None = None
        if transfer.method.mapped:
            counts = recommender.counts(self.side)
            given = self.targets.vectors, self.targets.known, counts, knowledge.width
            self.map = RidgeMap(transfer, *given)

    def state(self) -> dict[str, Any]:
        """What training has changed, as tensors and plain values."""
        mapped = self.map.state() if self.map else None
        return {"spread": self.layer_spread, "map": mapped, **self.losses.state()}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` returned."""
        self.losses.restore(state)
        self.layer_spread = state["spread"]
        if self.map is not None:
            self.map.restore(state["map"])

    def place_new(self) -> None:
        """Give the tapped table's rows without an interaction what the map foretells."""
        table = self.hooks.matrix()
        if self.map is not None and table is not None:
            with torch.no_grad():
                self.map.place_new(table[self._rows.start : self._rows.stop])

    def initialise(self) -> None:
        """Start the tapped table from the targets, on its own scale (alignment `init`)."""
        table = self.hooks.starting_table(self.recommender.name, self.side)
        ids = self.targets.known.nonzero().flatten()
        with torch.no_grad():
            table[ids + self._rows.start] = self.targets.vectors[ids] * self._scale(table)

    def weigh(self, loss: Tensor, batch: Any) -> tuple[Tensor, Tensor] | None:
        """The transfer loss and the same on the model loss's scale; None without any profile."""
        captured = self.hooks.take()
        if captured is None:
            name, module = self.recommender.name, self.recommender.module
            tap = self.hooks.tap
            raise did_not_fire(name, module, tap, lambda: self.recommender.loss(batch))
        vectors = captured.vectors
        rows, ids = self._aligned(captured, len(vectors), batch)
        if len(ids) == 0:
            return None
        if self.transfer.method.one_row_each:
            rows = torch.arange(len(ids), device=ids.device) if rows is None else rows
            rows, ids = _first_of_each(rows, ids)
        hidden = vectors if rows is None else vectors.index_select(0, rows)
        pair = self._pair(hidden, ids)

        def pull(loss: Tensor) -> float:
            return gradient_norm(loss, captured, rows)

        return self.losses.weigh(loss, *pair, pull)

    def _pair(self, hidden: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
        """The rows and what they are compared with."""
        if self.map is not None:
            return self.map.pair(ids, hidden, self._scale(hidden))
        if self._scaled is None:
            self._scaled = self.targets.vectors * self._scale(hidden)
        return hidden, self._scaled.index_select(0, ids)

    def _aligned(self, captured: Captured, n_rows: int, batch: Any) -> tuple[Tensor | None, Tensor]:
        """Which tapped rows have a profile, None for all, and whose they are: int64 (n,)."""
        tap = self.hooks.tap
        if tap.kind == "parameter" or tap.rows == "all":
            if n_rows < self._rows.stop:
                raise BadInput(
                    f"the tap {tap.name} yields {n_rows} rows, but there are {len(self._rows)} "
                    f"{self.side}. Choose a tap with one row for each, or tap.rows batch."
                )
            ids = self.recommender.ids(self.side, batch).unique()
            ids = ids[self.targets.known[ids]]
            return ids + self._rows.start, ids
        table = self.hooks.table
        if self._all_known and (table is None or table.num_embeddings == len(self._rows)):
            ids = captured.ids if captured.ids is not None else self._batch_ids(n_rows, batch)
            if int(ids.min()) > 0:
                return None, ids
        if captured.ids is not None:
            ids = captured.ids - self._rows.start
            inside = ((ids >= 0) & (ids < len(self._rows))).nonzero().flatten()
            rows, ids = inside, ids[inside]
        else:
            ids = self._batch_ids(n_rows, batch)
            rows = torch.arange(len(ids), device=ids.device)
        has_profile = self.targets.known[ids]
        return rows[has_profile], ids[has_profile]

    def _batch_ids(self, n_rows: int, batch: Any) -> Tensor:
        # RecBole repeats a batch's users once per negative item; the rows are the first repeat.
        ids = self.recommender.ids(self.side, batch)
        if n_rows == 0 or len(ids) % n_rows:
            raise BadInput(
                f"the tap {self.hooks.tap.name} yields {n_rows} rows for {len(ids)} {self.side} "
                f"of the batch: they cannot be matched. Choose a tap with one row for each."
            )
        return ids[:n_rows]

    def _scale(self, hidden: Tensor) -> float:
        """What unit-variance targets are multiplied by; the layer's own spread is taken once.

        Following the layer while it trains would let its growth pull the targets along.
        """
        scale = self.transfer.scale or self.transfer.method.scale
        if scale == "none" or not self.transfer.method.scaled:
            return 1.0
        if isinstance(scale, float):
            return scale
        if self.layer_spread is None:
            self.layer_spread = float(hidden.detach().std()) if hidden.numel() > 1 else 1.0
        return self.layer_spread


def _require_own_table(model: str, hooks: HookManager, rows: range, side: Side) -> None:
    """Refuse an embedding whose rows are not this side's: it would align strangers."""
    table = hooks.table
    if table is None or hooks.tap.pool is not None or rows.start > 0:
        return
    has = table.num_embeddings
    own = has >= len(rows) if "token_embedding" in hooks.tap.name else has - len(rows) <= 1
    if has < len(rows) or not own:
        raise BadInput(
            f"models.{model}: the tap {hooks.tap.name} has {has} rows, but there are {len(rows)} "
            f"{side} (padding counted); it is not the {side}' table. Choose another tap."
        )


def _first_of_each(rows: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
    """The first row of each id, ascending by id."""
    unique, place = ids.unique(return_inverse=True)
    first = torch.full_like(unique, len(ids)).scatter_reduce_(
        0, place, torch.arange(len(ids), device=ids.device), "amin"
    )
    return rows[first], unique
