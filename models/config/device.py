"""Where something is computed."""

from typing import Annotated, Any

from pydantic import Field

from models.config.section import IDENTITY_IF_SET, Section

Device = Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:[0-9]+)?)$")]


class Placed(Section):
    """A section whose work a GPU may do.

    A GPU adds in another order, which changes the last digits of a result: what is made on one has
    a key of its own, so that arms of one comparison never come from different kinds of device.
    `auto` is settled before keys are taken (`tasks.execution.devices.placed`), so that on a
    machine without a GPU it is the same as `cpu` and finds the same results. Which GPU it was
    decides nothing.
    """

    device: Device = Field(
        "cpu",
        description="cpu; cuda: a GPU, with worker processes spread over all GPUs; cuda:N: that "
        "GPU; auto: cuda if there is a GPU, else cpu.",
        json_schema_extra=IDENTITY_IF_SET,
    )

    @property
    def kind(self) -> str:
        """The kind of device, without its number."""
        return self.device.partition(":")[0]

    def identity(self) -> dict[str, Any]:
        """As `Section.identity`, with the kind of device for the device."""
        found = super().identity()
        return found | {"device": self.kind} if "device" in found else found
