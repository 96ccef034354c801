"""The two sides that profiles can describe."""

from typing import Literal, get_args

Side = Literal["users", "items"]


SIDES: tuple[Side, ...] = get_args(Side)
