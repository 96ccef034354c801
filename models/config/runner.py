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
        description="The scheduler's, such as tcp://10.0.0.5:8786; its workers are started by hand "
        "(docs/scaling.md). Empty starts a scheduler and training.workers processes on this "
        "machine, for as long as the run takes.",
    )
    timeout_seconds: float = Field(
        30.0,
        gt=0,
        description="How long to wait for the scheduler and a first worker, and later for a new "
        "one when all are gone.",
    )

    @field_validator("address")
    @classmethod
    def _has_a_protocol(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"(tcp|tls|ws|wss)://\S+:[0-9]+", value):
            raise ValueError("write it as the scheduler prints it, such as tcp://10.0.0.5:8786")
        return value
