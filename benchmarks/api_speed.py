"""Requests per second and latency of `llmkt api`: one process on loopback, the load from another.

A version with 943 users and 20 items each. The load is plain HTTP/1.1 over kept connections, in a
process of its own, without a client library that would cost more than the server.

    .venv/bin/python benchmarks/api_speed.py [--seconds 5] [--connections 8] [--json]
"""

import argparse
import asyncio
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from rich.console import Console

if TYPE_CHECKING:
    from tasks.publishing.manifest import Manifest

PROJECT = Path(__file__).resolve().parent.parent
USERS, ITEMS, LENGTH = 943, 1682, 20


def main(arguments: list[str] | None = None) -> None:
    """Measure in a temporary folder; print the figures, and one line of JSON if asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--json", action="store_true", help="end with one line of JSON")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        found = measure(Path(folder), options.seconds, options.connections)
    Console(stderr=options.json).print(
        f"{found['requests_per_second']:.0f} requests a second over {options.connections} "
        f"connections; p50 {found['p50_ms']:.2f} ms, p99 {found['p99_ms']:.2f} ms"
    )
    if options.json:
        print(json.dumps(found))


def measure(folder: Path, seconds: float, connections: int) -> dict[str, float]:
    """Serve a version from `folder` and ask for random users."""
    os.environ["LLMKT_DATA_DIR"] = str(folder)
    publish_version()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    command = [sys.executable, "-m", "flows.cli", "api", "--port", str(port)]
    server = subprocess.Popen(command, cwd=PROJECT)
    try:
        _wait_for(port)
        asyncio.run(_load(port, 1.0, connections))  # warm up
        latencies, took = asyncio.run(_load(port, seconds, connections))
    finally:
        server.terminate()
        server.wait()
    return {
        "requests_per_second": round(len(latencies) / took, 1),
        "p50_ms": round(1e3 * float(np.quantile(latencies, 0.5)), 3),
        "p99_ms": round(1e3 * float(np.quantile(latencies, 0.99)), 3),
    }


def publish_version() -> None:
    """Publish random lists for `USERS` users."""
    import pyarrow as pa

    from models.schemas import ITEMS as CATALOGUE
    from models.schemas import RECOMMENDATIONS
    from models.schemas import USERS as KNOWN
    from tasks.publishing.versions import publish
    from tasks.storage.artifacts import write_parquet

    rng = np.random.default_rng(0)
    users = [f"u{n}" for n in range(USERS)]
    items = [f"i{n}" for n in range(ITEMS)]
    chosen = [rng.choice(ITEMS, LENGTH, replace=False) for _ in users]
    lists = pa.table(
        {
            "user_id": np.repeat(users, LENGTH),
            "rank": pa.array(np.tile(np.arange(1, LENGTH + 1), USERS), pa.int32()),
            "item_id": [items[n] for row in chosen for n in row],
            "score": pa.array(rng.random(USERS * LENGTH), pa.float32()),
            "source": pa.repeat("model", USERS * LENGTH),
        },
        schema=RECOMMENDATIONS,
    )
    titles = [f"A film with a title of usual length, number {n}" for n in range(ITEMS)]
    years = pa.repeat(1999, ITEMS)
    catalogue = pa.table(
        {"item_id": items, "title": titles, "year": years, "genres": [[]] * ITEMS}
    ).cast(CATALOGUE)
    popular = pa.table(
        {
            "user_id": pa.repeat("", LENGTH),
            "rank": pa.array(range(1, LENGTH + 1), pa.int32()),
            "item_id": items[:LENGTH],
            "score": pa.array(np.full(LENGTH, 0.5), pa.float32()),
            "source": pa.repeat("popular", LENGTH),
        },
        schema=RECOMMENDATIONS,
    )
    publish(
        _manifest(),
        {
            "recommendations.parquet": write_parquet("bench", lists),
            "popular.parquet": write_parquet("bench", popular),
            "inputs/items.parquet": write_parquet("bench", catalogue),
            "inputs/users.parquet": write_parquet(
                "bench", pa.table({"user_id": users}, schema=KNOWN)
            ),
        },
    )


def _manifest() -> "Manifest":
    from models.config import Job, Pipeline
    from tasks.publishing.manifest import Manifest

    at = datetime.now(UTC)
    pipeline = Pipeline.model_validate({"experiment": "bench", "models": {"Pop": {}}})
    night = {
        "experiment": "bench",
        "decided_at": at,
        "flow_run_id": None,
        "challenger_version": "1",
        "metric": "ndcg",
        "k": 10,
        "tolerance": 0.0,
        "decision": "published",
        "reason": "a benchmark",
        "interactions": 0,
        "new_interactions": 0,
        "quarantined": 0,
        "start": "cold",
    }
    return Manifest.model_validate(
        {
            "experiment": "bench",
            "version": "1",
            "created_at": at,
            "previous": None,
            "dataset": "random",
            "job": Job.of(pipeline, "Pop", "baseline", 1, {}),
            "files": {},
            "inputs": {},
            "served_from": "all",
            "users_known": USERS,
            "users_served": USERS,
            "users_by_model": USERS,
            "coverage": 1.0,
            "tail_share": 0.0,
            "vectors": {},
            "scored_by_product": False,
            "metrics": {},
            "knowledge": {},
            "decision": night,
            "packages": {},
        }
    )


def _wait_for(port: int) -> None:
    until = time.monotonic() + 120
    while time.monotonic() < until:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise SystemExit("the API did not start")


async def _load(port: int, seconds: float, connections: int) -> tuple[list[float], float]:
    """Latencies in seconds of all requests, and the time that they took together."""
    latencies: list[float] = []
    began = time.perf_counter()

    async def client(number: int) -> None:
        rng = np.random.default_rng(number)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while time.perf_counter() - began < seconds:
            user = rng.integers(USERS)
            sent = time.perf_counter()
            writer.write(f"GET /recommend/u{user} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            await reader.readexactly(length)
            assert head.startswith(b"HTTP/1.1 200")
            latencies.append(time.perf_counter() - sent)
        writer.close()

    await asyncio.gather(*(client(number) for number in range(connections)))
    return latencies, time.perf_counter() - began


if __name__ == "__main__":
    main()
