"""Requirements of a pipeline's models and metrics on its data set."""

from models.config import Pipeline
from models.errors import BadInput
from models.evaluation import click_metrics
from models.schemas import RATING
from tasks.dataset.outputs import Interactions, Splits
from tasks.storage.artifacts import read_parquet


def require_enough_items(pipeline: Pipeline, data: Interactions, **further: int) -> None:
    """Refuse lists that are longer than the catalogue.

    `further` are lengths beside the cut-offs, by key of the section `nightly`.

    Raises:
        BadInput: naming the key to change.
    """
    lengths = {f"nightly.{key}": length for key, length in further.items()}
    for key, length in ({"evaluation.k": max(pipeline.evaluation.k)} | lengths).items():
        if length > data.items.rows:
            raise BadInput(
                f"{key}: {length} is larger than the number of items, {data.items.rows}. Lower it."
            )


def require_likes(pipeline: Pipeline, parts: Splits) -> None:
    """Refuse data that do not say what users like, where that is predicted; see `click_metrics`."""
    like_from = pipeline.evaluation.like_from
    if like_from is None:
        return
    for name in type(parts).model_fields:
        ratings = read_parquet(getattr(parts, name), [RATING])[RATING]
        click_metrics.require_likes(ratings, like_from, name)
