"""The benchmarks run and keep to the form of their one line of JSON."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_training_speed_ends_with_one_line_of_json():
    done = subprocess.run(
        [
            sys.executable,
            "benchmarks/training_speed.py",
            *("--models", "BPR,Nonesuch"),
            *("--epochs", "1"),
            *("--seconds", "0"),
            "--json",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    [line] = done.stdout.splitlines()
    result = json.loads(line)
    assert set(result) == {"ratio", "transfer_overhead"}
    assert set(result["ratio"]) == set(result["transfer_overhead"]) == {"BPR"}
    assert result["ratio"]["BPR"] > 0
    assert result["transfer_overhead"]["BPR"] > -1
    assert "Nonesuch skipped" in done.stderr
    assert not [name for name in ("saved", "log_tensorboard") if (ROOT / name).exists()]


def test_the_gpu_script_is_tried_on_the_cpu(capsys):
    from benchmarks import gpu

    gpu.main(["--models", "BPR", "--epochs", "1", "--json"])
    found = json.loads(capsys.readouterr().out)
    figures = found["models"]["BPR"]
    assert found["tests_pass"]
    assert figures["within noise"]
    if not torch.cuda.is_available():
        assert figures["NDCG@10 on CPU"] == figures["on GPU"] > 0


def test_the_gpu_script_tells_another_result_from_noise(monkeypatch):
    from benchmarks import gpu

    class Fake:
        """A side whose GPU has learnt less; seeds differ by a hundredth."""

        def __init__(self, _model, _settings, _data, seed, device):
            self._score = seed / 100 + (0.5 if device == "cpu" else 0.1)

        def train_epoch(self):
            pass

        def validate(self):
            return self._score

    monkeypatch.setattr(gpu, "Ours", Fake)
    monkeypatch.setattr(gpu, "seconds_of", lambda work, _: work() or 1.0)
    assert not gpu.compare("BPR", None, "cuda", 1)["within noise"]


def test_sweeps_agree_with_implicit_and_are_timed():
    pytest.importorskip("implicit")
    from benchmarks import ials_speed

    pairs = ials_speed.power_law(users=300, items=60, each=8)
    for columns in (4, 16):  # histories longer and shorter than there are columns
        ials_speed.require_agreement(pairs, columns)
    seconds = ials_speed.measure(pairs, 4, rounds=1)
    assert set(seconds) == {"ours", "exact", "default"}
    assert min(seconds.values()) > 0


def test_sweeps_that_differ_from_implicit_are_not_timed(monkeypatch):
    pytest.importorskip("implicit")
    from benchmarks import ials_speed

    monkeypatch.setattr(ials_speed.Ials, "sweep", lambda _: 0.0)
    with pytest.raises(SystemExit, match="nothing is timed"):
        ials_speed.require_agreement(ials_speed.power_law(users=300, items=60, each=8), 4)


def test_the_learnable_log_is_ranked_as_it_should_be():
    from benchmarks.learnable import World

    world = World.draw(60, 200, 30)
    users, items = world.held
    wanted = np.zeros((60, 200), np.float32)
    wanted[users, items] = 1
    one_hot = np.eye(200, dtype=np.float32)
    assert world.ndcg(wanted, one_hot) == pytest.approx(1.0)
    wanted[world.train] = 2  # what is hidden takes nobody's place
    assert world.ndcg(wanted, one_hot) == pytest.approx(1.0)
    assert world.ndcg(-wanted, one_hot) < 0.05


def test_both_sides_of_bpr_learn(capsys):
    pytest.importorskip("implicit")
    from benchmarks import bpr_speed

    size = ["--size", "500x200x20", "--epochs", "12", "--batch", "128"]
    bpr_speed.main([*size, "--our-rates", "0.02", "--their-rates", "0.1", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert found["ratio"] > 0
    assert min(found["ours"], found["implicit"]) > 0.1, "random vectors have 0.03"


def test_a_benchmark_whose_sides_disagree_times_nothing():
    from benchmarks import training_speed

    class Fake:
        """A side whose validation is known beforehand."""

        def __init__(self, score):
            self.score = score
            self.module = torch.nn.ParameterDict(
                {
                    "user_embedding": torch.nn.ParameterDict({"weight": torch.zeros(2, 1)}),
                    "item_embedding": torch.nn.ParameterDict({"weight": torch.zeros(2, 1)}),
                }
            )
            self.recommender = self
            self.tokens = dict.fromkeys(("user_id", "item_id"), np.array(["[PAD]", "a"]))

        def ids(self, _field, tokens):
            return torch.arange(len(tokens))

        def train_epoch(self):
            pass

        def validate(self):
            return self.score

    class Make:
        def __init__(self, theirs, own):
            self.stock, self.ours = lambda *_: Fake(theirs), lambda *_: Fake(own)

    training_speed.require_agreement(Make(0.2, 0.2 + 1e-6))
    with pytest.raises(SystemExit, match=r"0\.200000 by RecBole and 0\.200100 by ours"):
        training_speed.require_agreement(Make(0.2, 0.2001))


def test_quality_keeps_the_epoch_that_validates_best():
    from benchmarks.quality import _best

    class Side:
        """Validates best in its second epoch."""

        def __init__(self):
            self.module = torch.nn.Linear(1, 1, bias=False)
            self.epoch = 0

        def train_epoch(self):
            self.epoch += 1
            torch.nn.init.constant_(self.module.weight, float(self.epoch))

        def validate(self):
            return [0.1, 0.3, 0.2][self.epoch - 1]

        def test(self):
            return self.module.weight.item()

    assert _best(Side(), 3) == (0.3, 2.0)


def test_coverage_tells_honest_intervals_from_others():
    from benchmarks import coverage

    measured = coverage.measure(luck=0.028, seeds=2, users=60, draws=80)
    assert list(measured) == ["crossed", "users", "pooled", "seeds"]
    assert measured["crossed"]["coverage"] >= 0.9
    assert measured["users"]["coverage"] < 0.9
    alarms = coverage.false_alarms(luck=0.028, seeds=2, users=300)
    assert alarms["crossed"] <= 0.0013  # 1 in 1000, and what 200 000 draws may add
    assert alarms["pooled"] > 0.02


def test_training_cost_counts_an_epoch_and_the_rankings(capsys, monkeypatch):
    from benchmarks import training_cost

    monkeypatch.setenv("LLMKT_DATA_DIR", "")  # what the benchmark sets is taken back
    training_cost.main(["--users", "300", "--items", "200", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert 0.8 * 300 * 30 < found["interactions"] < 300 * 30
    assert found["epoch_cpu_seconds"] > 0
    assert found["two_rankings_cpu_seconds"] > 0
    assert found["peak_rss_gb"] > 0.1
