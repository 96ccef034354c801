"""Embedding without a language model: words hashed into as many columns as a vector has.

It knows that texts share words, not that words mean alike. It is cheap, so that all else can be
measured at sizes at which a language model would take days.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def hashed(texts: Sequence[str], dimensions: int) -> NDArray[np.float32]:
    """Words and pairs of words counted, with signs, in the columns that they hash to.

    The hashing trick (Weinberger et al. 2009, "Feature hashing for large scale multitask
    learning"): inner products of texts stay what they are on average, whatever the width. Equal
    texts give equal bits, whatever else is in the batch.

    Returns:
        float32 (n_texts, dimensions), rows of length 1, or of 0 for a text without words.
    """
    from sklearn.feature_extraction.text import HashingVectorizer

    counts = HashingVectorizer(n_features=dimensions, ngram_range=(1, 2), dtype=np.float32)
    return np.asarray(counts.transform(texts).toarray())
