"""Which devices this machine has, and what a configuration that asks for one gets."""

import logging

from prefect.exceptions import MissingContextError
from prefect.logging import get_run_logger

from models.config import Embeddings, Pipeline
from models.config.section import Placed
from models.errors import BadInput
from models.recommenders.registry import entry


def placed(pipeline: Pipeline) -> Pipeline:
    """The pipeline with `auto` settled for this machine, so that its keys say what is done.

    Torch is imported only where something but the CPU is asked for.

    Raises:
        BadInput: if a GPU is asked for that is not there.
    """
    training = pipeline.training
    kind = _settled("training", training)
    precision = training.precision
    if precision == "auto":
        precision = "bfloat16" if kind != "cpu" and _has_bfloat16() else "float32"
    changes: dict[str, object] = {
        "training": training.model_copy(update={"device": kind, "precision": precision}),
        "embeddings": _embedding("embeddings", pipeline.embeddings),
    }
    if pipeline.item_embeddings is not None:
        changes["item_embeddings"] = _embedding("item_embeddings", pipeline.item_embeddings)
    return pipeline.model_copy(update=changes)


def torch_device(section: Placed, worker: int = 0) -> str:
    """The device by torch's name: `cpu`, or `cuda:N`.

    Args:
        section: what says which device.
        worker: number of the worker process; `cuda` without a number deals GPUs out in turn.

    Raises:
        BadInput: if it is not there: a run may be taken up on another machine.
    """
    settled = _settled("embeddings" if isinstance(section, Embeddings) else "training", section)
    if settled != "cuda":
        return settled
    import torch

    return f"cuda:{worker % torch.cuda.device_count()}"


def say_what_stays_float32(pipeline: Pipeline) -> None:
    """Log which models do not take the mixed precision that is asked for, and why."""
    if pipeline.training.precision != "bfloat16":
        return
    try:
        logger: logging.Logger | logging.LoggerAdapter[logging.Logger] = get_run_logger()
    except MissingContextError:  # outside a run
        logger = logging.getLogger("llmkt")
    for name in pipeline.models:
        why = entry(name).float32_only
        if why:
            logger.warning("models.%s trains in float32: %s", name, why)


def _embedding(name: str, section: Embeddings) -> Embeddings:
    return section.model_copy(update={"device": _settled(name, section)})


def _settled(name: str, section: Placed) -> str:
    """`cpu`, `cuda` or `cuda:N`, and it is there."""
    if section.device == "cpu":
        return "cpu"
    n = _gpus()
    if section.device == "auto":
        return "cuda" if n else "cpu"
    if n == 0:
        raise BadInput(
            f"{name}.device is {section.device}, but torch finds no GPU here; set it to auto or "
            "cpu, or install the CUDA build of torch on a machine with an NVIDIA GPU"
        )
    number = int(section.device.partition(":")[2] or 0)
    if number >= n:
        raise BadInput(
            f"{name}.device is {section.device}, but there are {n} GPUs here, from cuda:0 to "
            f"cuda:{n - 1}; choose one of them, or cuda for all"
        )
    return section.device


def _gpus() -> int:
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def _has_bfloat16() -> bool:
    import torch

    return bool(torch.cuda.is_bf16_supported())
