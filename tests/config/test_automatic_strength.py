"""`transfer.alpha: auto`: what a training takes where no search chose it."""

import pytest

from models.config import Job, Pipeline, Transfer
from models.config.transfer import COMMITTED
from models.recommenders.registry import MODELS
from tasks.config.pipeline_file import load


def strength(model: str, **transfer) -> float:
    own = transfer.pop("own", {})
    pipeline = Pipeline.model_validate(
        {"experiment": "toy", "models": {model: {"transfer": own}}, "transfer": transfer}
    )
    assert Job.of(pipeline, model, "baseline", 1, {}).transfer is None
    return Job.of(pipeline, model, "transfer", 1, {"users": None}).transfer.alpha


@pytest.mark.parametrize("model", ["BPR", "iALS", "EASE"])
def test_auto_is_the_default_and_takes_what_is_committed_for_the_model(model):
    assert Transfer().alpha == "auto"
    assert strength(model) == COMMITTED.get(model, Transfer().strength)
    assert strength(model, alpha=0.0) == 0.0
    assert strength(model, alpha=0.3) == 0.3
    assert strength(model, alpha=0.3, own={"alpha": "auto"}) == COMMITTED.get(
        model, Transfer().strength
    )
    assert strength(model, own={"alpha": 0.7}) == 0.7
    for alignment, chosen in (("mapped", 0.2), ("teacher", 0.6)):
        assert strength(model, alignment=alignment) == COMMITTED.get(model, chosen)


def test_a_models_own_teacher_keeps_what_it_does_not_set():
    pipeline = Pipeline.model_validate(
        {
            "experiment": "toy",
            "models": {"BPR": {"transfer": {"teacher": {"alpha": 0.7}}}},
            "transfer": {"teacher": {"model": "iALS", "alpha": 0.2}},
        }
    )
    teacher = pipeline.transfer_of("BPR").teacher
    assert (teacher.model, teacher.alpha) == ("iALS", 0.7)


def test_committed_strengths_are_of_models_that_there_are():
    assert set(COMMITTED) <= set(MODELS)
    assert all(0 <= value <= 1 for value in COMMITTED.values())


def test_a_preset_with_a_fixed_strength_keeps_it(tmp_path):
    path = tmp_path / "toy.yaml"
    path.write_text("{experiment: toy, models: {BPR: {}}, preset: as-published}")
    assert load(path).transfer_of("BPR").alpha == 0.5


@pytest.mark.parametrize("key", ["transfer", "models.BPR.transfer"])
def test_a_word_that_is_no_strength_is_named_by_its_key(tmp_path, key):
    path = tmp_path / "toy.yaml"
    path.write_text("{experiment: toy, models: {BPR: {}}}")
    with pytest.raises(ValueError, match=rf"{key}\.alpha: input should be 'auto' \(got 'best'\)"):
        load(path, [f"{key}.alpha=best"])
