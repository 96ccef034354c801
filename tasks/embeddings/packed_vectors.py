"""The vectors that knowledge packs ship beside their texts, so that nobody embeds those again.

    data/knowledge/NAME/vectors.parquet: key, vector (float16), cut_at

Keys are those of the vector store, sha256 of text and text model, so that a vector serves exactly
the text and the model that it came from; where either differs, the text is embedded.
"""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from models.config import SIDES, Embeddings
from models.embeddings.text_batches import to_matrix
from models.errors import BadInput
from models.schemas import TEXT
from tasks.embeddings.text_models import model_name
from tasks.embeddings.vector_store import text_keys, vector_store
from tasks.profiles.knowledge_pack import CARD, PACKS, read_card, write_card
from tasks.storage.artifacts import file_sha256

_FILE = "vectors.parquet"
Vectors = tuple[list[bytes], NDArray[np.float32], list[int | None]]
"""Keys, vectors, and where each text was cut: the arguments of `VectorStore.write`."""


def shipped(keys: list[bytes]) -> Vectors:
    """Look keys up in the packs of `data/knowledge/`; those that none has are left out.

    Raises:
        BadInput: for a damaged card, and a file that is not the one that its card describes.
    """
    wanted, found = pa.array(keys, pa.binary()), list[pa.Table]()
    for file in sorted(PACKS.glob(f"*/{_FILE}")):
        card = read_card(file.parent, str(file.parent))
        if card.vectors is None or file_sha256(file) != card.vectors.sha256:
            raise BadInput(
                f"{file}: this is not the file that {CARD} describes (its sha256 differs). Restore "
                "it; or delete it, and the texts are embedded again."
            )
        table = pq.read_table(file)
        table = table.filter(pc.is_in(table["key"], wanted))
        found += [table] if len(table) else []
    if not found:
        return [], np.zeros((0, 0), np.float32), []
    table = pa.concat_tables(found)
    return (
        table["key"].to_pylist(),
        to_matrix(table["vector"]).astype(np.float32),
        table["cut_at"].to_pylist(),
    )


def pack_vectors(folder: Path, config: Embeddings) -> int:
    """Add what the store knows of a pack's texts to the pack; how many vectors these are."""
    texts = list[str]()
    for file in (folder / f"{side}.parquet" for side in SIDES):
        texts += pq.read_table(file, columns=[TEXT])[TEXT].to_pylist() if file.is_file() else []
    keys = text_keys(config, [text.strip() for text in dict.fromkeys(texts)])
    with vector_store() as store:
        known, matrix = store.read(keys)
        cut_at = store.cut_at()
    if not len(known):
        return 0
    flat = pa.array(matrix.astype(np.float16).ravel())
    table = pa.table(
        {
            "key": pa.array([keys[place] for place in known], pa.binary()),
            "vector": pa.FixedSizeListArray.from_arrays(flat, matrix.shape[1]),
            "cut_at": pa.array(cut_at, pa.int32()),
        }
    )
    pq.write_table(table, folder / _FILE, compression="zstd")
    facts = {"sha256": file_sha256(folder / _FILE), "model": model_name(config)}
    write_card(folder, {"vectors": facts})
    return len(known)
