"""Devices and precision: what is asked for, what it is called in keys, and what comes of it."""

import logging
import os
from multiprocessing import get_context

import pytest
import torch
import yaml

from models.config import Budget, Embeddings, Pipeline, Transfer
from models.errors import BadInput
from models.recommenders.recommender import Recommender
from models.recommenders.registry import MODELS, entry, precision_of
from models.recommenders.top_k import rank
from models.training.validation import Holdout
from tasks.config.pipeline_file import given, load
from tasks.embeddings.text_models import identity
from tasks.execution import worker_pool
from tasks.execution.devices import log_float32_models, placed, torch_device
from tasks.training.checkpoint_files import CheckpointFile
from tasks.training.training_task import training
from tests.support.toy_recommender import TRAINED, interactions, recommender, train, weights, wrap
from tests.training.test_training_task import inputs, job

ON_THE_CPU_FIRST = {"DGCF", "DMF", "DiffRec", "FiGNN", "GCMC", "LDiffRec", "LightGCN", "NCL"} | {
    *("NGCF", "SGL", "SpectralCF", "Random", "ADMMSLIM"),
}
"""RecBole's own code makes tensors on the CPU that are moved afterwards, as is its right."""
gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no GPU here")


def machine(monkeypatch, gpus: int, bfloat16: bool = True) -> None:
    """Let torch say that there are so many GPUs."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: bfloat16)


def pipeline(models=("BPR",), **settings) -> Pipeline:
    known = {"experiment": "toy", "models": {name: {} for name in models}}
    return Pipeline.model_validate(known | settings)


@pytest.mark.usefixtures("data_dir")
def test_auto_without_a_gpu_is_the_cpu_and_finds_its_results(monkeypatch):
    machine(monkeypatch, gpus=0)
    auto = placed(
        pipeline(
            training={"device": "auto", "precision": "auto"},
            embeddings={"device": "auto"},
            item_embeddings={"device": "auto"},
        )
    )
    assert auto == placed(pipeline(item_embeddings={}))
    assert (auto.training.device, auto.training.precision) == ("cpu", "float32")
    known = inputs()
    on_cpu, settled = job(), job(budget=job().budget.model_copy(update={"device": "cpu"}))
    assert training.key_of({"job": settled, **known}) == training.key_of({"job": on_cpu, **known})


def test_auto_takes_the_gpu_and_says_so_in_keys(monkeypatch):
    machine(monkeypatch, gpus=2)
    config = pipeline(
        training={"device": "auto", "precision": "auto"}, embeddings={"device": "auto"}
    )
    auto = placed(config)
    assert (auto.training.device, auto.training.precision) == ("cuda", "bfloat16")
    assert auto.embeddings.device == "cuda"
    assert identity(auto.embeddings) == [*identity(Embeddings()), "cuda"]
    assert auto.training.budget().identity() != Budget().identity()
    machine(monkeypatch, gpus=2, bfloat16=False)
    assert placed(config).training.precision == "float32"


def test_the_number_of_a_gpu_decides_nothing():
    one, other, any_of_them = (Budget(device=name) for name in ("cuda:0", "cuda:1", "cuda"))
    assert one.identity() == other.identity() == any_of_them.identity()
    assert one.identity()["device"] == "cuda"


def test_workers_take_gpus_in_turn_unless_one_is_named(monkeypatch):
    machine(monkeypatch, gpus=2)
    assigned = [torch_device(Budget(device="cuda"), number) for number in range(3)]
    assert assigned == ["cuda:0", "cuda:1", "cuda:0"]
    assert torch_device(Budget(device="cuda:1"), 0) == "cuda:1"
    assert torch_device(Budget(), 1) == "cpu"


def test_worker_processes_are_numbered_as_they_start(monkeypatch):
    monkeypatch.setattr(worker_pool, "_number", 0)
    started = get_context("spawn").Value("i", 0)
    numbers = []
    for _ in range(2):
        worker_pool._start_worker(os.getppid(), started)
        numbers.append(worker_pool.worker_number())
    assert numbers == [0, 1]


@pytest.mark.parametrize(
    ("gpus", "override", "message"),
    [
        (0, "training.device=cuda", r"toy\.yaml: training\.device is cuda, but torch finds no GPU"),
        (0, "embeddings.device=cuda:0", r"embeddings\.device is cuda:0, but torch finds no GPU"),
        (2, "training.device=cuda:2", r"there are 2 GPUs here, from cuda:0 to cuda:1"),
        (0, "training.device=gpu", r"training\.device: string should match pattern"),
        (0, "training.precision=float16", r"training\.precision.*: input should be"),
    ],
)
def test_what_is_not_there_is_refused_before_anything_runs(
    gpus, override, message, tmp_path, monkeypatch
):
    machine(monkeypatch, gpus)
    path = tmp_path / "toy.yaml"
    path.write_text(yaml.safe_dump({"experiment": "toy", "models": {"BPR": {}}}))
    with pytest.raises(BadInput, match=message):
        load(path, [override])


def test_a_pipeline_that_is_handed_to_a_flow_is_settled_too(monkeypatch):
    machine(monkeypatch, gpus=0)
    assert given(pipeline(training={"device": "auto"})).training.device == "cpu"
    with pytest.raises(BadInput, match="torch finds no GPU"):
        given(pipeline(training={"device": "cuda"}))


def first_loss(built: Recommender) -> torch.Tensor:
    built.module.train()
    torch.manual_seed(1)
    return built.loss(next(iter(built.batches())))


@pytest.mark.parametrize("model", TRAINED)
def test_mixed_precision_moves_a_loss_by_less_than_a_hundredth(model):
    """Or the model stays at float32, because torch refuses."""
    plain, mixed = recommender(model), recommender(model, precision="bfloat16")
    expected, found = (first_loss(built) for built in (plain, mixed))
    found.backward()
    assert found.dtype in (torch.float32, torch.float64)
    assert mixed.precision == ("float32" if entry(model).float32_only else "bfloat16")
    assert float(found) == pytest.approx(float(expected), rel=0.01)
    assert all(p.dtype == torch.float32 for p in mixed.module.parameters())
    assert all(
        torch.isfinite(p.grad).all() for p in mixed.module.parameters() if p.grad is not None
    )


@pytest.mark.parametrize("model", [m for m in TRAINED if MODELS[m].float32_only])
def test_what_stays_at_float32_has_to(model):
    built = recommender(model)
    if model == "DCNV2":  # the CPU would do it; a GPU's autocast refuses this very loss
        assert isinstance(built.module.loss, torch.nn.BCELoss)
        return
    built.precision = "bfloat16"
    with pytest.raises(RuntimeError, match="BFloat16"):
        first_loss(built).backward()


@pytest.mark.parametrize(
    "transfer",
    [None, Transfer(alpha=0.5)],
    ids=lambda transfer: "transfer" if transfer else "baseline",
)
@pytest.mark.parametrize("model", ["NeuMF", "MultiVAE", "DeepFM", "SASRec", "ENMF"])
def test_mixed_precision_agrees_with_float32_within_noise(model, transfer):
    """Seeds differ by 0.05 and more in this world."""
    scores, last, trained = [], [], []
    for precision in ("float32", "bfloat16"):
        built = recommender(model, precision=precision)
        fitted = train(built, wrap(built, transfer), epochs=8)
        scores.append(Holdout.from_pairs(built, interactions()[1]).score(built, "ndcg", 5))
        last.append(fitted.epochs[-1].model_loss)
        trained.append(weights(built))
    assert scores[0] == pytest.approx(scores[1], abs=0.03)
    assert last[0] == pytest.approx(last[1], rel=0.01)
    assert any((one != trained[1][name]).any() for name, one in trained[0].items())


def test_rankings_are_made_in_float32():
    built = recommender("MultiVAE", precision="bfloat16")
    plain = recommender("MultiVAE")
    users = torch.arange(1, 9)
    for model in (built, plain):
        model.module.eval()
    assert torch.equal(built.scores(users), plain.scores(users))


def test_a_model_that_stays_at_float32_is_named_in_the_log(caplog):
    config = pipeline(("LightGCN", "BPR"), training={"precision": "bfloat16"})
    with caplog.at_level(logging.WARNING, "llmkt"):
        log_float32_models(config)
    assert [record.getMessage() for record in caplog.records] == [
        "models.LightGCN trains in float32: it multiplies by a sparse matrix, for which torch has "
        "no bfloat16"
    ]
    assert [precision_of(name, "bfloat16") for name in ("LightGCN", "BPR", "EASE")] == [
        "float32",
        "bfloat16",
        "float32",
    ]


@pytest.mark.parametrize("model", [name for name in MODELS if name not in ON_THE_CPU_FIRST])
def test_training_and_scoring_put_no_tensor_on_a_device_of_chance(model):
    """Where none is named they go to `meta`, which mixes with the CPU as ill as a GPU does."""
    built = recommender(model)
    holdout = Holdout.from_pairs(built, interactions()[1])
    wrapper = wrap(built, Transfer() if built.entry.by_gradient else None)
    with torch.device("meta"):
        if built.entry.loader == "sweeps":
            built.module.sweep()
        if built.entry.by_gradient:
            for batch in built.batches():
                wrapper.step_loss(batch, transferring=True).total.backward()
        holdout.score(built, "ndcg", 5)
        rank(built, holdout.held.users, [holdout.seen, holdout.also_held], 5)


@pytest.mark.parametrize("alignment", ["contrastive", "generative", "linear", "relational"])
def test_alignments_put_no_tensor_on_a_device_of_chance(alignment):
    built = recommender("BPR")
    wrapper = wrap(built, Transfer(alignment=alignment))
    with torch.device("meta"):
        for batch in built.batches():
            wrapper.step_loss(batch, transferring=True).total.backward()


@pytest.mark.usefixtures("data_dir")
def test_a_checkpoint_of_a_gpu_is_read_where_the_training_goes_on():
    """What was on the CPU, such as the state of random numbers, stays there."""
    storage = torch.arange(3).untyped_storage()
    for device in ("cpu", "meta"):
        moved = CheckpointFile("key", device)._moved
        assert moved(storage, "cuda:3").device.type == device
        assert moved(storage, "cpu").device.type == "cpu"


@gpu
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("model", ["BPR", "NeuMF", "LightGCN", "MultiVAE", "DeepFM", "SASRec"])
def test_a_gpu_agrees_with_the_cpu_within_noise(model, precision):
    scores = []
    for device, own in (("cpu", "float32"), ("cuda", precision)):
        built = recommender(model, device=device, precision=own)
        train(built, wrap(built, Transfer()), epochs=8)
        scores.append(Holdout.from_pairs(built, interactions()[1]).score(built, "ndcg", 5))
    assert scores[0] == pytest.approx(scores[1], abs=0.1)


@gpu
@pytest.mark.usefixtures("data_dir")
def test_the_training_stage_runs_on_a_gpu():
    known = inputs()
    on_gpu = job(budget=job().budget.model_copy(update={"device": "cuda"}))
    assert training.key_of({"job": on_gpu, **known}) != training.key_of({"job": job(), **known})
    found, expected = training.fn(on_gpu, **known), training.fn(job(), **known)
    assert found.epochs[-1].model_loss == pytest.approx(expected.epochs[-1].model_loss, rel=0.02)
