"""The devices of this machine, and which one a configuration gets."""

from models.config import Embeddings, Pipeline
from models.config.section import Placed
from models.errors import BadInput
from models.recommenders.registry import judged
from tasks.execution.progress import run_logger


def placed(pipeline: Pipeline) -> Pipeline:
    """The pipeline with `auto` resolved for this machine, so that cache keys name the device.

    Torch is imported only where something but the CPU is asked for.

    Raises:
        BadInput: if a GPU is asked for that is not there.
    """
    training = pipeline.training
    kind = _resolved("training", training)
    precision = training.precision
    if precision == "auto":
        precision = "float32"
        if kind != "cpu":
            import torch

            precision = "bfloat16" if torch.cuda.is_bf16_supported() else "float32"
    changes: dict[str, object] = {
        "training": training.model_copy(update={"device": kind, "precision": precision}),
    }
    for name in ("embeddings", "item_embeddings"):
        section = getattr(pipeline, name)
        if section is not None:
            changes[name] = section.model_copy(update={"device": _resolved(name, section)})
    return pipeline.model_copy(update=changes)


def torch_device(section: Placed, worker: int = 0) -> str:
    """The device by torch's name: `cpu`, or `cuda:N`; worker processes use all GPUs in turn.

    Raises:
        BadInput: if there is no such device: a run may be resumed on another machine.
    """
    device = _resolved("embeddings" if isinstance(section, Embeddings) else "training", section)
    if device != "cuda":
        return device
    import torch

    return f"cuda:{worker % torch.cuda.device_count()}"


def log_float32_models(pipeline: Pipeline) -> None:
    """Log which models train in float32 although mixed precision is asked for, and why."""
    if pipeline.training.precision != "bfloat16":
        return
    for name in pipeline.models:
        why = judged(name).float32_only
        if why:
            run_logger().warning("models.%s trains in float32: %s", name, why)


def _resolved(name: str, section: Placed) -> str:
    """The device that a section gets: `cpu`, `cuda` or `cuda:N`."""
    if section.device == "cpu":
        return "cpu"
    import torch

    n = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if section.device == "auto":
        return "cuda" if n else "cpu"
    if n == 0:
        raise BadInput(
            f"{name}.device is {section.device}, but torch finds no GPU here. Set it to auto or "
            "cpu, or install the CUDA build of torch on a machine with an NVIDIA GPU"
        )
    number = int(section.device.partition(":")[2] or 0)
    if number >= n:
        raise BadInput(
            f"{name}.device is {section.device}, but there are {n} GPUs here, from cuda:0 to "
            f"cuda:{n - 1}. Choose one of them, or cuda for all"
        )
    return section.device
