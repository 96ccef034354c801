"""`llmkt inspect`: a model's modules, shapes and tap points."""

from pydantic import BaseModel

from models.config import SIDES, Model
from models.errors import BadInput
from models.recommenders.registry import described


class TapRow(BaseModel):
    """A tap point of a model; `mark` names the side whose tap it is."""

    mark: str
    kind: str
    name: str
    shape: str
    fires: int


class Inspected(BaseModel):
    """A model's tap points, and what the chosen ones yield, by side, in words."""

    taps: list[TapRow]
    chosen: dict[str, str]


def inspected(model: str, settings: Model | None) -> Inspected:
    """Inspect `model` on toy data, with hyper-parameters and taps; BadInput for wrong ones."""
    from models.recommenders.tap_probe import probe, sightings, toy

    settings = settings or Model()
    built = toy(model, settings.given)
    if not built.entry.by_gradient:
        raise BadInput(f"{model} is computed, not trained by gradient: it has no layer to tap.")
    chosen: dict[str, str] = {}
    marks: dict[tuple[str, str], list[str]] = {}
    for side in SIDES:
        tap = settings.tap_of(side) or built.entry.default_tap(side)
        found = probe(model, settings.given, tap, side) if tap else None
        if found is None or found.tap is None:
            chosen[side] = "no default tap: the model has no vector of its own for each"
            continue
        chosen[side] = f"{described(found.tap)}, {found.width} wide"
        marks.setdefault((found.tap.kind, found.tap.name), []).append(side)
    taps = [
        TapRow(mark=", ".join(marks.get((seen.kind, seen.name), [])), **vars(seen))
        for seen in sightings(built)
        if seen.rows
    ]
    return Inspected(taps=taps, chosen=chosen)
