"""What an earlier run's profiles spare the stage *profiles*: users who have hardly changed."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from prefect.logging import get_logger

from models.config import Profiles
from models.profiles.offline_writer import WRITER
from models.profiles.prompt_templates import Messages
from models.profiles.reuse import KeptProfiles, keep, keep_none
from models.profiles.user_history import provenance
from models.schemas import USER
from tasks.execution.cache_key import content
from tasks.profiles.outputs import Previous, Profiled
from tasks.storage.artifacts import Handle, read_parquet, write_parquet


@dataclass(frozen=True)
class Earlier:
    """Which profiles are kept, and how they join the new ones."""

    kept: KeptProfiles
    settings: str

    @classmethod
    def of(
        cls, config: Profiles, prompt: Any, train: Handle, previous: Previous | None
    ) -> "Earlier":
        """Find the users who keep their profile; none where other settings wrote it.

        Args:
            config: how profiles are written now.
            prompt: the prompt template.
            train: schema `INTERACTIONS`.
            previous: an earlier run's profiles.
        """
        settings = settings_of(config, prompt)
        if previous is None or previous.settings != settings:
            return cls(keep_none(), settings)
        policy = config.history if config.asks else None
        earlier, seen = read_parquet(previous.profiles), read_parquet(previous.seen)
        kept = keep(earlier, seen, read_parquet(train), policy, previous.min_new)
        get_logger("profiles").info(
            "%d of %d earlier profiles are kept", kept.profiles.num_rows, earlier.num_rows
        )
        return cls(kept, settings)

    def asking(self, config: Profiles, n_users: int) -> Profiles:
        """`config` for the users who are asked for: what may be missing is a share of all."""
        if not self.kept.profiles.num_rows:
            return config
        n_asked = n_users - self.kept.profiles.num_rows
        share = min(1.0, config.max_missing * n_users / max(n_asked, 1))
        return config.model_copy(update={"max_missing": share})

    def others(self, rendered: Iterable[tuple[str, Messages]]) -> Iterator[tuple[str, Messages]]:
        """The prompts of users whose profile is not kept."""
        users = set(self.kept.profiles[USER].to_pylist())
        return ((user, messages) for user, messages in rendered if user not in users)

    def join(
        self, written: Profiled, expected: pa.Table, train: Handle, inputs: Mapping[str, Handle]
    ) -> Profiled:
        """Kept and new profiles as one result, with everything that proves what they saw.

        Args:
            written: the new ones.
            expected: `models.profiles.user_history.record` of what a new profile may see, of all
                users.
            train: the training part.
            inputs: what the artifact is recorded to come from.
        """
        facts = {"settings": self.settings}
        if not self.kept.profiles.num_rows:
            return written.model_copy(update={"seen": train, **facts})
        table = self.kept.with_others(read_parquet(written.profiles).replace_schema_metadata(None))
        inputs = {**inputs, "written": written.profiles}
        seen = self.kept.all_seen(read_parquet(train).replace_schema_metadata(None))
        return written.model_copy(
            update={
                "profiles": write_parquet("profiles", table, inputs, facts),
                "seen": write_parquet("profiles", seen, inputs, {**facts, "part": "seen"}),
                "provenance": provenance(table, self.kept.proof(expected)),
                "kept": self.kept.profiles.num_rows,
                **facts,
            }
        )


def settings_of(config: Profiles, prompt: Any) -> str:
    """Digest of all that decides a profile but its user's interactions."""
    section = {name: value for name, value in config.identity().items() if name != "max_missing"}
    writer = WRITER if config.provider == "offline" else content(prompt)
    deciding = json.dumps([section, writer], sort_keys=True, default=str)
    return hashlib.sha256(deciding.encode()).hexdigest()[:16]
