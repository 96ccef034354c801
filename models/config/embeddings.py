"""Section `embeddings`."""

from typing import Annotated, Any, Literal

from pydantic import Field

from models.config.llm import Endpoint
from models.config.plugins import Table, checked
from models.config.profiles import Imported
from models.config.section import Placed, named, unkeyed

TEXT_MODELS: Table[Any] = Table(
    dict.fromkeys(("sentence-transformers", "openai", "import", "hashing")),
    lambda name, found: checked(name, "embed(texts)", found, lambda *_: None),
)
"""One's own is a function `embed(texts)`: a list of n texts to float (n, width)."""
TextModelName = Annotated[str, *named(TEXT_MODELS)]


class Embeddings(Endpoint, Imported, Placed):
    """The text model that turns profiles into vectors.

    `base_url`, its key, times and retries are for provider openai.
    """

    provider: TextModelName = Field(
        "sentence-transformers",
        description="sentence-transformers: a local model; openai: any OpenAI-compatible endpoint; "
        "import: a file of existing vectors, which needs no profiles; hashing: counts of hashed "
        "words, no language model, for smoke runs and tests of scale; an import path: your own "
        "function embed(texts).",
    )
    path: str | None = unkeyed(
        None,
        description="import only: a .parquet, .npy, .pt or .json file with one vector per user.",
    )
    ids: str | None = unkeyed(
        None,
        description="import only: the ids of a .npy file or a bare .pt tensor, one a line or a "
        "JSON list; empty: FILE.ids.txt or FILE.ids.json.",
    )
    model: str = Field(
        "all-MiniLM-L6-v2",
        description="sentence-transformers: all-MiniLM-L6-v2 (ships in a package) or a local "
        "folder; openai: text-embedding-3-small, text-embedding-ada-002, …",
    )
    dimensions: int = Field(384, ge=2, description="hashing only: width of the vectors.")
    precision: Literal["bfloat16", "float32"] = Field(
        "bfloat16",
        description="sentence-transformers only: bfloat16 is about twice as fast on recent CPUs, "
        "at cosine 0.9999 to float32.",
    )
    batch_size: int = unkeyed(
        16,
        ge=1,
        description="sentence-transformers only: texts per batch. Small batches of similar length "
        "stay in the CPU cache and waste little on padding.",
    )
    threads: int = unkeyed(1, ge=1, le=1024, description="CPU threads of the text model.")
