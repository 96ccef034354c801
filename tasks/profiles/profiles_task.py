"""Stage *profiles*: one text per user or item, from statistics or an LLM, and what it cost."""

import pyarrow as pa

from models.config import Profiles, Side
from models.profiles.front_matter import Template
from models.profiles.prompt_templates import Prompt
from models.schemas import TEXT
from tasks.execution.stage import stage
from tasks.execution.worker_pool import require_workers
from tasks.profiles.llm_writer import _write_asked, render
from tasks.profiles.offline_writer import texts_in_memory, write_in_memory, write_of_users
from tasks.profiles.outputs import Previous, Profiled
from tasks.profiles.profile_import import import_profiles
from tasks.profiles.reuse import Earlier, settings_of
from tasks.profiles.subjects import Subjects, _subjects
from tasks.storage.artifacts import Handle, read_parquet


@stage("profiles", version=5)
def profiles(
    config: Profiles,
    prompt: Template | str,
    train: Handle,
    items: Handle,
    imported: Handle | None = None,
    side: Side = "users",
    demographics: Handle | None = None,
    previous: Previous | None = None,
) -> Profiled:
    """Write a profile for every user (item) of the training interactions.

    Args:
        config: provider, history policy and endpoint.
        prompt: the prompt template; not used offline.
        train: schema `INTERACTIONS`; what profiles are written from, which `config.interactions`
            may make more than the training part.
        items: schema `ITEMS`.
        imported: the file of the import provider, from `take_in_profiles`.
        side: users or items.
        demographics: what `history.demographics` names, if anything.
        previous: an earlier run's profiles of users, for those who have hardly changed.

    Raises:
        BadInput: for a faulty template, a missing key, an endpoint that cannot be reached or
            refuses, and too many users without an answer; the answers received are kept.
    """
    require_workers()  # a question that is paid for must not end in a run that cannot go on
    if config.provider == "offline" and side == "users" and previous is None:
        written = write_of_users(config, train, items)
        settings = settings_of(config, [prompt, demographics])
        return _marked(config, written.model_copy(update={"seen": train, "settings": settings}))
    inputs = {"train": train, "items": items}
    if imported is not None:
        return import_profiles(config, imported, read_parquet(train), inputs, side)
    subjects = _subjects(config, train, side)
    known = previous if side == "users" else None
    earlier = Earlier.of(config, [prompt, demographics], train, known)
    others = Subjects(subjects.key, earlier.kept.others(subjects.seen))
    if config.provider == "offline":
        texts, writer = texts_in_memory(config, read_parquet(train), read_parquet(items), side)
        of_others = earlier.kept.others(subjects.seen.append_column(TEXT, pa.array(texts)))
        written = write_in_memory(others, of_others[TEXT].to_pylist(), writer, inputs)
    else:
        template = Prompt(prompt, config.prompt, side)
        if demographics is not None:
            inputs["demographics"] = demographics
        rendered = render(config, template, train, items, side, demographics)
        asked = earlier.asking(config, subjects.seen.num_rows)
        written = _write_asked(asked, template, others, earlier.others(rendered), inputs)
    if side == "users":
        written = earlier.join(written, subjects.seen, train, inputs)
    return _marked(config, written)


def _marked(config: Profiles, written: Profiled) -> Profiled:
    """Profiles that were written from held-out interactions, too, prove nothing."""
    leaky = config.interactions == "all"
    return written.model_copy(update={"provenance": "leaky"}) if leaky else written
