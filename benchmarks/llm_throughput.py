"""Measure the throughput of the profiles stage against the latency of an LLM endpoint.

A server process on this machine answers every chat request after 200 ms. The stage asks it for
the profiles of 2,000 users, including rendering of prompts, HTTP, commits of single answers and
the Parquet file. `efficiency` is the ideal time, users / concurrency · 200 ms, over the time of
the stage. `asking alone` is the same over the time from the first request to the last answer at
the server. With trouble, a tenth of the requests meets 429, 500 or a time-out; then every profile
must arrive, and no prompt may be answered twice.

`RSS + MB` is the growth of resident memory from the second quarter of a run to its second half. The
server shares the cores with the stage; on a busy machine use the best of several rounds.

    .venv/bin/python benchmarks/llm_throughput.py [--rounds 3] [--users 2000] [--json]
"""

import argparse
import asyncio
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import Any
from urllib.request import urlopen

LATENCY = 0.2
CONCURRENCIES = (32, 64)
TROUBLE = 0.1
CLIENT_TIMEOUT = 2.0
KEY_VARIABLE = "LLMKT_BENCHMARK_KEY"


def main() -> None:
    """Measure in a temporary data folder and print a table, or one line of JSON."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--users", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3, help="the best one counts")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        asyncio.run(serve())
        return
    from prefect.logging import disable_run_logger

    import tasks.profiles.profiles_task  # noqa: F401 - configures logging, which would undo the next line

    os.environ[KEY_VARIABLE] = "none"
    with disable_run_logger(), server() as url:
        measure(url, 64, 64, 0.0)  # imports and first calls
        runs = {
            wide: min(
                (measure(url, options.users, wide, 0.0) for _ in range(options.rounds)),
                key=lambda run: float(run["seconds"]),
            )
            for wide in CONCURRENCIES
        }
        troubled = measure(url, options.users, CONCURRENCIES[0], TROUBLE)
    efficiency = {str(wide): round(run["efficiency"], 3) for wide, run in runs.items()}
    if options.json:
        print(json.dumps({"efficiency": efficiency}))
    else:
        show(runs, troubled)
    if troubled["missing"] or troubled["answered_twice"]:
        sys.exit(f"with trouble: {troubled}")


def show(runs: dict[int, dict[str, Any]], troubled: dict[str, Any]) -> None:
    """Print the table."""
    from rich.console import Console
    from rich.table import Table

    names = ("seconds", "ideal", "efficiency", "asking", "cpu_seconds", "rss_growth_mb")
    heads = ("s", "ideal s", "efficiency", "asking alone", "CPU s", "RSS + MB")
    table = Table("wide", *heads, "missing", "twice")
    for wide, run in [*runs.items(), (f"{CONCURRENCIES[0]} {TROUBLE:.0%}", troubled)]:
        figures = [f"{run[name]:.3g}" for name in names]
        table.add_row(str(wide), *figures, str(run["missing"]), str(run["answered_twice"]))
    Console().print(table)


def measure(url: str, users: int, concurrency: int, trouble: float) -> dict[str, Any]:
    """Run the stage once, with nothing in its store."""
    import time

    from models.config import LLM, Profiles
    from tasks.profiles.profiles_task import profiles

    statistics = f"{url}/statistics?trouble={trouble}"
    json.load(urlopen(statistics))
    llm = LLM(
        base_url=f"{url}/v1",
        api_key_env=KEY_VARIABLE,
        concurrency=concurrency,
        timeout_seconds=CLIENT_TIMEOUT,
    )
    template = (Path(__file__).parent.parent / "prompts" / "user-movies.j2").read_text("utf-8")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["LLMKT_DATA_DIR"] = folder
        data = world(users)
        config = Profiles(provider="openai", llm=llm, max_missing=0.0)
        with resident() as sizes:
            began, cpu = perf_counter(), time.process_time()
            done = profiles.fn(config, template, *data)
            seconds, cpu = perf_counter() - began, time.process_time() - cpu
    answers = json.load(urlopen(statistics))
    ideal = users / concurrency * LATENCY
    early = sizes[len(sizes) // 4 : len(sizes) // 2] or sizes
    return {
        "seconds": seconds,
        "ideal": ideal,
        "efficiency": ideal / seconds,
        "asking": ideal / answers["seconds"],
        "cpu_seconds": cpu,
        "rss_growth_mb": (max(sizes[len(sizes) // 2 :]) - max(early)) / 2**20,
        "missing": done.missing + users - answers["prompts"],
        "answered_twice": answers["successes"] - answers["prompts"],
    }


def world(users: int) -> tuple[Any, Any]:
    """Users with 20 films each, no two users alike."""
    import numpy as np
    import pyarrow as pa

    from models.schemas import INTERACTIONS, ITEMS
    from tasks.storage.artifacts import write_parquet

    rng, per_user, films = np.random.default_rng(0), 20, 1000
    items = [f"i{item}" for row in range(users) for item in rng.permutation(films)[:per_user]]
    ids = [f"u{row // per_user}" for row in range(users * per_user)]
    ratings = rng.integers(1, 6, len(items)).astype(np.float32)
    times = np.arange(len(items))
    train = pa.table([ids, items, ratings, times], INTERACTIONS.names).cast(INTERACTIONS)
    catalogue = [
        {
            "item_id": f"i{n}",
            "title": f"Film number {n}",
            "year": 1950 + n % 70,
            "genres": ["Drama"],
        }
        for n in range(films)
    ]
    known = pa.Table.from_pylist(catalogue, schema=ITEMS)
    return write_parquet("split", train), write_parquet("items", known)


@contextmanager
def resident() -> Iterator[list[int]]:
    """This process's resident memory in bytes, ten times a second while the block runs."""
    sizes: list[int] = []
    done = threading.Event()
    page = os.sysconf("SC_PAGE_SIZE")

    def sample() -> None:
        while not done.wait(0.1):
            sizes.append(int(Path("/proc/self/statm").read_text().split()[1]) * page)

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    try:
        yield sizes
    finally:
        done.set()
        thread.join()
        sizes.append(int(Path("/proc/self/statm").read_text().split()[1]) * page)


@contextmanager
def server() -> Iterator[str]:
    """The endpoint in a process of its own; yields its address."""
    command = [sys.executable, __file__, "--serve"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


async def serve() -> None:
    """Answer chat requests after `LATENCY`; print the address once ready."""
    from aiohttp import web

    state: dict[str, Any] = {"answers": Counter(), "first": 0.0, "last": 0.0}
    state |= {"trouble": 0.0, "rng": random.Random(0)}

    async def chat(request: web.Request) -> web.Response:
        body = await request.read()
        state["first"] = state["first"] or perf_counter()
        draw = state["rng"].random()
        if draw < state["trouble"]:
            return await stumble(draw / state["trouble"])
        await asyncio.sleep(LATENCY)
        state["answers"][json.loads(body)["messages"][-1]["content"]] += 1
        state["last"] = perf_counter()
        return web.Response(body=COMPLETION, content_type="application/json")

    async def statistics(request: web.Request) -> web.Response:
        answers = state["answers"]
        counts = {"prompts": len(answers), "successes": sum(answers.values())}
        counts["seconds"] = state["last"] - state["first"]
        state.update(trouble=float(request.query["trouble"]), answers=Counter(), first=0.0)
        return web.json_response(counts)

    async def stumble(draw: float) -> web.Response:
        if draw < 1 / 3:
            return web.json_response({"error": {}}, status=429, headers={"Retry-After": "1"})
        if draw > 2 / 3:
            await asyncio.sleep(2 * CLIENT_TIMEOUT)
        return web.json_response({"error": {}}, status=500)

    application = web.Application()
    application.router.add_post("/v1/chat/completions", chat)
    application.router.add_get("/statistics", statistics)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    assert site._server is not None
    port = site._server.sockets[0].getsockname()[1]  # type: ignore[attr-defined]
    print(f"http://127.0.0.1:{port}", flush=True)
    await asyncio.Event().wait()


PROFILE = " ".join(f"Likes slow films of kind {n}." for n in range(17))

COMPLETION = json.dumps(
    {
        "id": "1",
        "object": "chat.completion",
        "created": 1,
        "model": "local",
        "choices": [
            {
                "index": 0,
                "finish_reason": "stop",
                "message": {"role": "assistant", "content": PROFILE},
            }
        ],
        "usage": {"prompt_tokens": 400, "completion_tokens": 100, "total_tokens": 500},
    }
).encode()


if __name__ == "__main__":
    main()
