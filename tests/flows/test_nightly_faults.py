"""Nights that are killed: nothing published is a mixture, and no night is without a row."""

import multiprocessing
import os
import signal

import pytest

import flows.nightly_retrain
import tasks.publishing.sinks
import tasks.publishing.versions
from tasks.nightly.promotion_log import promotions
from tasks.publishing.manifest import current
from tests.flows.test_nightly_retrain import drop, first, new_rows, night, world  # noqa: F401
from tests.support.toy_project import no_workers

PLACES = {
    "after the gate": (flows.nightly_retrain, "refit"),
    "after the refit": (flows.nightly_retrain, "recommendations"),
    "before the swap": (tasks.publishing.versions, "_point"),
    "after the swap": (flows.nightly_retrain, "record"),
    "before the sinks": (flows.nightly_retrain, "deliver_current"),
    "between two sinks": (tasks.publishing.sinks, "_to_second"),
}
SINKS = [{"kind": "command", "command": ["true", name]} for name in ("one", "two")]


def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)


def killed_night(given: dict, place: str, api: str) -> None:
    """In another process: a night that is killed at a place."""
    os.environ["PREFECT_API_URL"] = api  # a temporary server would outlive the kill
    module, name = PLACES[place]
    if name == "_to_second":
        deliver = module._DELIVERIES["command"]
        by_turn = iter((deliver, die))
        module._DELIVERIES["command"] = lambda *args: next(by_turn)(*args)
    elif hasattr(getattr(module, name), "fn"):  # a stage
        getattr(module, name).fn = die
    else:
        setattr(module, name, die)
    with no_workers():
        night(given, tolerance=1, sinks=SINKS)


@pytest.mark.slow
@pytest.mark.parametrize("place", PLACES)
def test_a_kill_anywhere_leaves_the_old_or_the_new_version_whole(world, prefect_server, place):  # noqa: F811
    (data, given), api = world, prefect_server
    was = current("toy").version
    drop(data, "new.csv", new_rows(data, 10, 700))
    process = multiprocessing.get_context("spawn").Process(
        target=killed_night, args=(given, place, api)
    )
    process.start()
    process.join(300)
    assert process.exitcode == -signal.SIGKILL
    now = current("toy")
    now.verify()
    published = place in ("after the swap", "before the sinks", "between two sinks")
    assert (now.version != was) == published
    assert promotions("toy")[0]["decision"] == (
        "published" if published and place != "after the swap" else "failed"
    )
    ended = night(given, tolerance=1, sinks=SINKS)
    assert ended.decision == ("skipped" if published else "published")
    rows = promotions("toy")
    assert [row["decision"] for row in rows] == (
        ["skipped", "published", "published"] if published else ["published", "failed", "published"]
    )
    now = current("toy")
    now.verify()
    notes = now.folder.parent / ".delivered"
    assert [note.read_text() for note in notes.iterdir()] == [now.version] * 2
