"""Where heavy work is done: on this machine, or on a Dask cluster."""

import re
from typing import Literal

from pydantic import Field, field_validator

from models.config.section import Section

Runner = Literal["local", "dask"]


class Dask(Section):
    """The cluster of `runner: dask`; nothing here can change a result."""

    address: str | None = Field(
        None,
        description="Address of the scheduler, such as tcp://10.0.0.5:8786, whose workers you "
        "start (docs/scaling.md). Empty: a temporary scheduler with training.workers processes on "
        "this machine.",
    )
    timeout_seconds: float = Field(
        30.0,
        gt=0,
        le=1e6,
        description="How long to wait for the scheduler and a first worker, and for a new worker "
        "when all are gone.",
    )

    @field_validator("address")
    @classmethod
    def _has_a_protocol(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"(tcp|tls|ws|wss)://\S+:[0-9]+", value):
            raise ValueError("write it as the scheduler prints it, such as tcp://10.0.0.5:8786")
        return value
