"""The alignments: how a tapped layer is drawn to its targets. Adding one is one row here.

One's own is named by import path: a function `loss(layer, target, run)`, or an `Alignment`.

Torch is imported when a loss is computed, so that a configuration loads without it.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Annotated, Any, Protocol

from models.config.plugins import Table, calling, checked
from models.config.section import named
from models.errors import BadInput

if TYPE_CHECKING:
    from torch import Tensor, nn

    from models.config.transfer import Transfer

_TINY = 1e-12


class Run(Protocol):
    """What a loss may use beside layer and target.

    Attributes:
        head: what the row's `head` made.
        settings: the section `transfer`.
    """

    head: Any
    settings: "Transfer"

    def uniform(self, like: "Tensor") -> "Tensor":
        """Draw numbers from 0 to 1, float shaped `like`; the model's own generator stays still."""


@dataclass(frozen=True)
class Alignment:
    """A reconstruction loss, with a head of its own where it needs one.

    Attributes:
        description: for the reference of the configuration.
        loss: a scalar, of the layer float (n, width), its target float (n, target width) and the
            run.
        head: makes a trainable head, given both widths; it is dropped after training.
        bridges: whether layer and target may differ in width; targets are then not reduced.
        scaled: whether targets are brought to the layer's scale first.
        one_row_each: whether a user (item) that a batch repeats may enter only once, because
            rows are compared with each other.
        before_training: whether the tapped table starts from the targets and trains plainly.
        mapped: whether targets enter through a ridge regression that is refitted each epoch.
        teaches: whether targets make a teacher, and layer and target are scores of all items.
        strength: `transfer.alpha` where nobody chooses it; see docs/models.md.
        scale: `transfer.scale`, likewise; None: layer.
    """

    description: str
    loss: Callable[["Tensor", "Tensor", Run], "Tensor"]
    head: "Callable[[int, int], nn.Module] | None" = None
    bridges: bool = False
    scaled: bool = False
    one_row_each: bool = False
    before_training: bool = False
    mapped: bool = False
    teaches: bool = False
    strength: float = 0.02
    scale: float | None = None


def _mse(layer: "Tensor", target: "Tensor", _run: Run) -> "Tensor":
    from torch.nn import functional

    return functional.mse_loss(layer, target)


def _rmse(layer: "Tensor", target: "Tensor", run: Run) -> "Tensor":
    """The root is of the error plus 1e-12, so that its gradient is finite at the target."""
    return (_mse(layer, target, run) + _TINY).sqrt()


def _cosine(layer: "Tensor", target: "Tensor", _run: Run) -> "Tensor":
    from torch.nn import functional

    return 1 - functional.cosine_similarity(layer, target).mean()


def _contrastive(layer: "Tensor", target: "Tensor", run: Run) -> "Tensor":
    """Cross-entropy of each row's own profile among all rows' profiles.

    The profile is projected to the layer's width (van den Oord et al. 2018, equation 4).
    """
    import torch
    from torch.nn import functional

    profile = functional.normalize(run.head(target), dim=1)
    likeness = functional.normalize(layer, dim=1) @ profile.T / run.settings.temperature
    return functional.cross_entropy(likeness, torch.arange(len(layer), device=layer.device))


def _generative(layer: "Tensor", target: "Tensor", run: Run) -> "Tensor":
    """One minus the cosine of the target and its reconstruction from the masked layer.

    RLMRec masks nodes before graph convolution; masked here are columns of the tapped vector,
    which every model has.
    """
    mask = run.settings.mask
    kept = layer * (run.uniform(layer) >= mask) / (1 - mask)
    return _cosine(run.head(kept), target, run)


def _linear(layer: "Tensor", target: "Tensor", run: Run) -> "Tensor":
    error: Tensor = run.head(layer) - target
    return ((error**2).mean() + _TINY).sqrt()


def _relational(layer: "Tensor", target: "Tensor", _run: Run) -> "Tensor":
    """Mean squared difference of the two cosine matrices, without their diagonals."""
    from torch.nn import functional

    rows, profiles = functional.normalize(layer, dim=1), functional.normalize(target, dim=1)
    difference = rows @ rows.T - profiles @ profiles.T
    pairs = max(len(layer) * (len(layer) - 1), 1)
    return (difference**2).fill_diagonal_(0.0).sum() / pairs


def _taught(layer: "Tensor", target: "Tensor", run: Run) -> "Tensor":
    """Cross-entropy of the teacher's distribution over items, a row, and the scores' softmax."""
    from torch.nn import functional

    logarithms = functional.log_softmax(run.head.weight.exp() * layer, dim=1)
    return -(logarithms * target).sum(dim=1).mean()


def _gain(_width: int, _target_width: int) -> "nn.Module":
    """The logarithm of a factor of all scores, at first 0."""
    from torch import nn

    made = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(made.weight)
    return made


def _perceptron(inputs: int, outputs: int) -> "nn.Module":
    """Two layers with the mean of both widths between them, as RLMRec's projections."""
    from torch import nn

    between = (inputs + outputs) // 2
    return nn.Sequential(nn.Linear(inputs, between), nn.LeakyReLU(), nn.Linear(between, outputs))


def _linear_head(width: int, target_width: int) -> "nn.Module":
    from torch import nn

    return nn.Linear(width, target_width)


def _own(name: str, found: Any) -> Alignment:
    """Make a row of one's own alignment, once it has a finite loss of random rows."""
    import torch

    from models.config.transfer import Transfer

    def expected(value: Any, layer: "Tensor", *_: Any) -> str | None:
        scalar = isinstance(value, torch.Tensor) and value.dim() == 0
        fits = scalar and (value.requires_grad or not layer.requires_grad)
        return None if fits else "a scalar tensor that depends on the layer"

    row = found if isinstance(found, Alignment) else Alignment(name, found)
    loss = checked(name, "loss(layer, target, run)", row.loss, expected)
    layer, width = torch.randn(8, 6, requires_grad=True), 9 if row.bridges else 6
    head = calling(name, "head", row.head, 6, width) if row.head else None
    run = SimpleNamespace(head=head, settings=Transfer(), uniform=torch.rand_like)
    if not torch.isfinite(loss(layer, torch.randn(8, width), run)):
        raise BadInput(f"{name}: the loss of random rows is not finite. Correct its code.")
    return replace(row, loss=loss)


_SHIPPED: dict[str, Alignment] = {
    "rmse": Alignment(
        "root mean squared error over all rows and columns, as published (LLM-KT, section 3.2)",
        _rmse,
        scaled=True,
    ),
    "mse": Alignment(
        "mean squared error, whose pull fades near the target",
        _mse,
        scaled=True,
    ),
    "cosine": Alignment("one minus the mean cosine of layer and target: direction alone", _cosine),
    "contrastive": Alignment(
        "InfoNCE between the layer and a projection of the target (RLMRec-Con, Ren et al. 2024)",
        _contrastive,
        lambda width, target_width: _perceptron(target_width, width),
        bridges=True,
        one_row_each=True,
    ),
    "generative": Alignment(
        "the target is reconstructed from the masked layer (RLMRec-Gen, Ren et al. 2024)",
        _generative,
        _perceptron,
        bridges=True,
    ),
    "linear": Alignment(
        "a learned linear head from the layer to the whole embedding, by rmse",
        _linear,
        _linear_head,
        bridges=True,
    ),
    "relational": Alignment(
        "two rows are as similar as their targets (relational distillation, Park et al. 2019)",
        _relational,
        bridges=True,
        one_row_each=True,
    ),
    "mapped": Alignment(
        "mse to a linear map of the whole embedding, which ridge regression refits each epoch; the "
        "more interactions a row has, the less it is pulled",
        _mse,
        bridges=True,
        scaled=True,
        mapped=True,
        strength=0.2,
        scale=0.3,
    ),
    "teacher": Alignment(
        "cross-entropy of all items' scores and those of a teacher, EASE, iALS or Blend, that has "
        "the knowledge (Hinton et al. 2015)",
        _taught,
        _gain,
        bridges=True,
        teaches=True,
        strength=0.6,
    ),
    "init": Alignment(
        "the tapped table starts from the target and is trained plainly",
        _rmse,
        scaled=True,
        before_training=True,
    ),
}

ALIGNMENTS = Table(_SHIPPED, _own)

AlignmentName = Annotated[str, *named(ALIGNMENTS)]
