"""Compare the speed of the embeddings stage with the plain sentence-transformers call.

Both sides embed the same texts, the offline profiles of ml-100k (943 users), on the same number of
threads, from loading the model to holding the vectors:

- plain: `SentenceTransformer(folder).encode(texts)`, float32, default batches;
- ours: the stage with an empty store (every distinct text once, batches of similar length,
  bfloat16, each batch committed to disk).

The sides take turns, so a busy machine slows both. `ratio` is the median of the plain times over
the median of ours; `cosine` is the smallest cosine between the two vectors of one user.

    .venv/bin/python benchmarks/embedding_speed.py [--rounds 3] [--threads 1] [--json]
"""

import argparse
import json
import os
import statistics
import tempfile
from collections.abc import Callable
from time import perf_counter
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from prefect.logging import disable_run_logger
from rich.console import Console
from rich.table import Table
from sentence_transformers import SentenceTransformer
from sklearn.preprocessing import normalize

from models.config import Dataset, Embeddings, Profiles, Split
from models.embeddings.text_batches import to_matrix
from models.schemas import EMBEDDING, TEXT
from tasks.dataset.interactions_task import interactions
from tasks.dataset.source_files import raw_files
from tasks.dataset.split_task import split
from tasks.embeddings.embeddings_task import embeddings
from tasks.embeddings.text_models import minilm_folder
from tasks.profiles.profiles_task import profiles
from tasks.storage.artifacts import Handle, data_dir, read_parquet

Vectors = NDArray[np.float32]


def main() -> None:
    """Measure in a temporary data folder and print a table, or one line of JSON."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3, help="how often each side runs")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of both sides")
    parser.add_argument("--precision", choices=("bfloat16", "float32"), default="bfloat16")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, disable_run_logger():
        os.environ["LLMKT_DATA_DIR"] = folder
        plain, ours = measure(options.rounds, options.threads, options.precision)
    cosines = np.sum(normalize(plain[1]) * normalize(ours[1]), axis=1)
    ratio = statistics.median(plain[0]) / statistics.median(ours[0])
    if options.json:
        print(json.dumps({"ratio": round(ratio, 3), "cosine": round(float(cosines.min()), 6)}))
        return
    table = Table("side", "median s", "best s", "texts/s", "min cosine", "mean cosine")
    for name, (seconds, vectors), like in (("plain", plain, None), ("ours", ours, cosines)):
        median = statistics.median(seconds)
        figures = [f"{median:.2f}", f"{min(seconds):.2f}", f"{len(vectors) / median:.0f}"]
        agreement = ["", ""] if like is None else [f"{like.min():.5f}", f"{like.mean():.5f}"]
        table.add_row(name, *figures, *agreement)
    console = Console()
    console.print(table)
    console.print(
        f"ratio {ratio:.2f}; {options.rounds} rounds, {options.threads} threads, "
        f"{options.precision}"
    )


def measure(
    rounds: int, threads: int, precision: str
) -> tuple[tuple[list[float], Vectors], tuple[list[float], Vectors]]:
    """Seconds per round and the vectors, float32 (users, width), of the plain side and of ours."""
    handle = offline_profiles()
    texts = read_parquet(handle)[TEXT].to_pylist()
    torch.set_num_threads(threads)
    folder = str(minilm_folder())
    sides: tuple[Callable[[], Vectors], ...] = (
        lambda: embed_plainly(folder, texts),
        lambda: embed_by_stage(handle, threads, precision),
    )
    embed_plainly(folder, texts[:8])  # imports and first-call costs fall on neither side
    seconds: tuple[list[float], list[float]] = ([], [])
    vectors: list[Any] = [None, None]
    for round_ in range(rounds):
        for side in (0, 1) if round_ % 2 == 0 else (1, 0):
            began = perf_counter()
            vectors[side] = sides[side]()
            seconds[side].append(perf_counter() - began)
    return (seconds[0], vectors[0]), (seconds[1], vectors[1])


def offline_profiles() -> Handle:
    """The offline profiles of ml-100k's training part, made by the pipeline's own stages."""
    data = interactions.fn(Dataset(), raw_files(Dataset()))
    parts = split.fn(Split(), data.interactions)
    written: Handle = profiles.fn(Profiles(), "", parts.train, data.items).profiles
    return written


def embed_plainly(folder: str, texts: list[str]) -> Vectors:
    """What one would write without this project."""
    model = SentenceTransformer(folder, device="cpu")
    return np.asarray(model.encode(texts, show_progress_bar=False), dtype=np.float32)


def embed_by_stage(written: Handle, threads: int, precision: str) -> Vectors:
    """The embeddings stage, with nothing in its store."""
    for file in data_dir().glob("embeddings.sqlite*"):
        file.unlink()
    config = Embeddings.model_validate({"threads": threads, "precision": precision})
    done = embeddings.fn(config, written)
    return to_matrix(read_parquet(done.embeddings)[EMBEDDING])


if __name__ == "__main__":
    main()
