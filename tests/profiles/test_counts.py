"""Where a data set counts rather than rates, nothing is liked or disliked for how often it was."""

import pyarrow as pa
import pytest
from pydantic import ValidationError

from models.config import History, Pipeline
from models.profiles import item_profiles, offline_writer
from models.profiles.population import Population
from models.profiles.prompt_templates import Prompt, render_all, render_items
from models.profiles.user_history import describe, presentable, select
from models.schemas import INTERACTIONS, ITEMS
from tasks.storage.artifacts import PROJECT_ROOT

PROMPTS = PROJECT_ROOT / "prompts"
COUNTS = History(feedback="counts", limit=2)
PLAYS = {"u": {"a": 94742, "b": 12, "c": 1}, "v": {"a": 3, "b": 5}}
TRAIN = pa.table(
    {
        "user_id": [user for user, row in PLAYS.items() for _ in row],
        "item_id": [item for row in PLAYS.values() for item in row],
        "rating": [float(n) for row in PLAYS.values() for n in row.values()],
        "timestamp": [n for row in PLAYS.values() for n in range(len(row))],
    },
    schema=INTERACTIONS,
)
CATALOGUE = pa.table(
    {
        "item_id": ["a", "b", "c"],
        "title": ["Abba", "Beck", "Cher"],
        "year": [None] * 3,
        "genres": [None] * 3,
    },
    schema=ITEMS,
)


def test_a_history_keeps_the_most_often_chosen():
    assert select(TRAIN, COUNTS)["item_id"].to_pylist() == ["a", "b", "b", "a"]


def test_prompts_speak_of_times_and_of_no_dislikes():
    prompt = Prompt((PROMPTS / "user-counts.j2").read_text(), "user-counts")
    chosen = select(TRAIN, COUNTS)
    text = next(render_all(prompt, chosen, CATALOGUE, COUNTS))[1].user
    assert '- "Abba", 94742 times' in text
    assert "rated" not in text
    shown = "{{ liked | length }} {{ disliked | length }} {{ mean_rating }}"
    own = Prompt(f"{{% block user %}}{shown}{{% endblock %}}", "own")
    assert next(render_all(own, chosen, CATALOGUE, COUNTS))[1].user == "2 0 None"
    hidden = COUNTS.model_copy(update={"ratings": "hidden"})
    assert (
        "times" not in next(render_all(prompt, chosen, CATALOGUE, hidden))[1].user.split("Write")[0]
    )


def test_offline_texts_speak_of_times():
    chosen = select(TRAIN, COUNTS.model_copy(update={"limit": 9}))
    history = describe(chosen, presentable(CATALOGUE))
    known = Population.streamed(lambda: iter([history]), history, COUNTS)
    text = offline_writer.offline(history, known)["text"][0].as_py()
    assert "Has chosen most often: Abba, Beck, Cher." in text
    assert "Chosen 94755 times in all: 3 titles." in text
    assert "isliked" not in text
    assert "ratings" not in text


def test_items_are_chosen_together_however_often():
    known = item_profiles.subjects(TRAIN, CATALOGUE, 2, counted=True)
    texts = item_profiles.offline(known)
    assert "Chosen together with: Beck, Cher." in texts[0]
    assert "rated" not in " ".join(texts)
    prompt = Prompt((PROMPTS / "item-counts.j2").read_text(), "item-counts", "items")
    assert "Users who chose it also chose" in next(render_items(prompt, known))[1].user


def test_the_data_set_decides_and_no_likes_are_predicted():
    raw = {"experiment": "x", "models": {"Pop": {}}, "dataset": {"feedback": "counts"}}
    pipeline = Pipeline.model_validate(raw)
    assert {pipeline.profiles_of(side).history.feedback for side in ("users", "items")} == {
        "counts"
    }
    raw["evaluation"] = {"like_from": 3, "metrics": ["auc"], "primary": "auc"}
    raw["training"] = {"valid_metric": "auc"}
    with pytest.raises(ValidationError, match=r"like_from: dataset\.feedback is counts"):
        Pipeline.model_validate(raw)
