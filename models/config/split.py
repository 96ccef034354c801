"""How interactions are divided."""

from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from models.config.section import Section, Seed, unkeyed


class Split(Section):
    """How to divide interactions into train, valid and test."""

    strategy: Literal[
        "random", "leave-one-out", "temporal", "cold-items", "cold-users", "files"
    ] = Field(
        "random",
        description="random: per user, by ratios; leave-one-out: the newest item is test, the one "
        "before it valid; temporal: one global cut in time, by ratios; cold-items: whole items, "
        "about in these ratios; cold-users: whole users likewise, the same for every seed, of whom "
        "train keeps train_limit interactions; files: the files train, test and optionally valid.",
    )
    train: str | None = unkeyed(  # its content decides, see tasks/dataset/split_task.py
        None,
        description="files only: tab-separated user, item and any further columns, with or without "
        "a header. Interactions in no file are left out.",
    )
    valid: str | None = unkeyed(
        None, description="files only: as train; empty: a share of each user's train, by seed."
    )
    test: str | None = unkeyed(None, description="files only: as train.")
    valid_share: float = Field(0.1, gt=0, lt=1, description="files only: valid's share of train.")
    ratios: tuple[float, float, float] = Field(
        (0.7, 0.1, 0.2),
        description="Shares of train, valid and test (all but leave-one-out and files).",
    )
    train_limit: int | None = Field(
        None,
        ge=1,
        description="At most so many training interactions of each user, drawn by the seed; more "
        "hold fewer, valid and test stay. With cold-users, those of new users, who need some: the "
        "rest of theirs is valid or test. Empty: all.",
    )
    seed: Seed = Field(2026, description="Seed of everything that is drawn.")
    short_histories: Literal["error", "train", "drop"] = Field(
        "error",
        description="Users with fewer than 3 interactions: stop, keep them in train only, or drop "
        "them. With files, users without a training interaction: stop or drop.",
    )

    @property
    def by_time(self) -> bool:
        """Whether every interaction needs a timestamp."""
        return self.strategy in ("leave-one-out", "temporal")

    @field_validator("ratios")
    @classmethod
    def _ratios_make_a_split(cls, ratios: tuple[float, float, float]) -> tuple[float, float, float]:
        if min(ratios) <= 0 or abs(sum(ratios) - 1) > 1e-9:
            raise ValueError(f"three shares above 0 that add up to 1 are needed, not {ratios}")
        return ratios

    @model_validator(mode="after")
    def _files_are_named(self) -> Self:
        if self.strategy == "files" and (self.train is None or self.test is None):
            raise ValueError("strategy files needs train and test, the paths of two files")
        if self.strategy != "files" and (self.train or self.valid or self.test):
            raise ValueError("train, valid and test are paths for strategy files only")
        if self.strategy == "cold-users" and self.train_limit is None:
            raise ValueError("strategy cold-users needs train_limit; set it to 1 or more")
        return self
