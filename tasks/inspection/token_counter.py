"""How many tokens a prompt has: exact where its model's tokenizer is at hand, else estimated."""

import hashlib
import importlib
import os
import tempfile
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from tasks.embeddings.text_models import minilm_folder

Chat = list[dict[str, str]]

_SOURCE = "https://openaipublic.blob.core.windows.net/encodings/{}.tiktoken"
_PER_MESSAGE, _PER_ANSWER = 4, 3
"""What the chat format adds, role included (OpenAI, "How to count tokens with tiktoken")."""
_TO_OPENAI = 1.1
"""o200k_base counts 1.01 (items) to 1.10 (users) times what MiniLM's tokenizer does, measured on
the shipped prompts filled with ml-100k; the larger, so that an estimate errs on the dear side."""
_COUNTED = 1000


class TokenCounter:
    """Counts the tokens of chats.

    Attributes:
        how: `exact, ENCODING` or `estimated`.
    """

    def __init__(self, model: str) -> None:
        self._encoding = _encoding(model)
        self.how = f"exact, {self._encoding.name}" if self._encoding else "estimated"
        self._characters = self._tokens = self._texts = 0

    def count(self, chats: Sequence[Chat]) -> list[int]:
        """Return the prompt tokens of each chat.

        An estimate counts the first thousand texts with the tokenizer that is at hand, and goes
        by those texts' characters per token after that.
        """
        texts = [[message["content"] for message in chat] for chat in chats]
        if self._encoding:
            encode = self._encoding.encode
            counts = [sum(len(encode(t, disallowed_special=())) for t in chat) for chat in texts]
        else:
            counts = self._estimated(["\n".join(chat) for chat in texts])
        overhead = [_PER_MESSAGE * len(chat) + _PER_ANSWER for chat in chats]
        return [tokens + extra for tokens, extra in zip(counts, overhead, strict=True)]

    def _estimated(self, texts: list[str]) -> list[int]:
        if self._texts >= _COUNTED:
            share = self._tokens / max(self._characters, 1)
            return [round(len(text) * share) for text in texts]
        encoded = self._tokenizer.encode_batch(texts, add_special_tokens=False)
        counts = [round(len(one.ids) * _TO_OPENAI) for one in encoded]
        self._texts += len(texts)
        self._characters += sum(map(len, texts))
        self._tokens += sum(counts)
        return counts

    @cached_property
    def _tokenizer(self) -> Any:
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(str(minilm_folder() / "tokenizer.json"))
        tokenizer.no_truncation()
        tokenizer.no_padding()
        return tokenizer


def _encoding(model: str) -> Any:
    """Load the model's encoding, if tiktoken is there and has it on disk; it would fetch it."""
    try:
        tiktoken = importlib.import_module("tiktoken")
    except ImportError:
        return None
    try:
        name = tiktoken.encoding_name_for_model(model)
    except KeyError:
        return None
    # Where tiktoken keeps what it fetched, and under which name (tiktoken/load.py).
    cache = os.environ.get("TIKTOKEN_CACHE_DIR") or os.environ.get("DATA_GYM_CACHE_DIR")
    folder = Path(cache) if cache else Path(tempfile.gettempdir()) / "data-gym-cache"
    file = folder / hashlib.sha1(_SOURCE.format(name).encode()).hexdigest()
    return tiktoken.get_encoding(name) if file.is_file() else None
