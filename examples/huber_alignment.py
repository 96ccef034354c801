"""An alignment of one's own: Huber's loss, which outlying coordinates pull less.

transfer: {alignment: examples/huber_alignment.py:HUBER}
"""

from torch import Tensor
from torch.nn import functional

from models.config.alignments import Alignment, Run


def huber(layer: Tensor, target: Tensor, run: Run) -> Tensor:
    """Squared below one standard deviation of the targets, linear above."""
    return functional.huber_loss(layer, target, delta=float(target.std()))


HUBER = Alignment("Huber's loss (1964)", huber, scaled=True)
"""Targets are brought to the layer's scale first. A function alone is an alignment, too."""
