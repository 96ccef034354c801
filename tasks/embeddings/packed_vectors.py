"""The vectors that knowledge packs ship beside their texts, so that nobody embeds those again.

    data/knowledge/NAME/vectors.parquet: key, vector (float16), cut_at

A key is that of the vector store, the sha256 of text and text model: where either differs, the text
is embedded.
"""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from models.arrow import Singles
from models.config import SIDES, Embeddings
from models.embeddings.text_batches import to_matrix
from models.errors import BadInput
from models.profiles.card import Card
from models.schemas import TEXT
from tasks.embeddings.vector_store import text_keys, vector_store
from tasks.profiles.knowledge_pack import CARD, PACKS, read_card, write_card
from tasks.storage.artifacts import file_sha256

_FILE = "vectors.parquet"


def shipped(keys: list[bytes]) -> tuple[list[bytes], Singles, list[int | None]]:
    """Look keys up in the packs of `data/knowledge/`; return what `VectorStore.write` takes.

    Raises:
        BadInput: for a damaged card, and a file that is not the one that its card describes.
    """
    found = list[pa.Table]()
    for file in sorted(PACKS.glob(f"*/{_FILE}")):
        if file_sha256(file) != read_card(file.parent, str(file.parent)).vectors_sha256:
            raise BadInput(
                f"{file}: this is not the file that {CARD} describes (its sha256 differs). Restore "
                "it; or delete it, and the texts are embedded again."
            )
        table = pq.read_table(file)
        found.append(table.filter(pc.is_in(table["key"], pa.array(keys, pa.binary()))))
    if not any(map(len, found)):
        return [], np.zeros((0, 0), np.float32), []
    table = pa.concat_tables(filter(len, found))
    matrix = to_matrix(table["vector"]).astype(np.float32)
    return table["key"].to_pylist(), matrix, table["cut_at"].to_pylist()


def pack_vectors(folder: Path, config: Embeddings) -> Card | None:
    """Add to a pack what the vector store knows of its texts; None if that is nothing."""
    files = [folder / f"{side}.parquet" for side in SIDES]
    texts = pa.chunked_array([pq.read_table(file)[TEXT] for file in files if file.is_file()])
    keys = text_keys(config, pc.unique(pc.utf8_trim_whitespace(texts)).to_pylist())
    with vector_store() as store:
        known, matrix = store.read(keys)
        cut_at = pa.array(store.cut_at(), pa.int32())
    if not len(known):
        return None
    flat = pa.array(matrix.astype(np.float16).ravel())
    vectors = pa.FixedSizeListArray.from_arrays(flat, matrix.shape[1])
    columns = {"key": [keys[place] for place in known], "vector": vectors, "cut_at": cut_at}
    pq.write_table(pa.table(columns), folder / _FILE, compression="zstd")
    return write_card(folder, {"vectors_sha256": file_sha256(folder / _FILE)})
