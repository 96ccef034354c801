"""The API key, from a Secret block or a variable."""

import os
from typing import cast

from prefect.blocks.system import Secret

from models.config import LLM, Embeddings
from models.errors import BadInput


def api_key(config: LLM | Embeddings) -> str:
    """The endpoint's key, from the Prefect Secret block if one is named, else the environment.

    Raises:
        BadInput: if there is none, or it holds what no header can carry; the message names the
            variable or the block, never the key.
    """
    section = "profiles.llm" if isinstance(config, LLM) else "embeddings"
    if config.api_key_secret is not None:
        source = f"Prefect Secret {config.api_key_secret}"
        try:
            key = str(cast("Secret[str]", Secret.load(config.api_key_secret)).get()).strip()
        except ValueError:
            raise BadInput(
                f"{section}.api_key_secret: there is no {source}; create the block, or leave "
                f"the option empty to use the environment variable {config.api_key_env}"
            ) from None
    else:
        source = f"environment variable {config.api_key_env}"
        key = os.environ.get(config.api_key_env, "").strip()
    if not key:
        without = {
            "profiles.llm": "profiles.provider to offline",
            "embeddings": "embeddings.provider to sentence-transformers",
        }
        raise BadInput(
            f"{section}: the {source} is empty, so there is no key; set the environment variable "
            f"{config.api_key_env} (to any word for a server that checks none), or name a Prefect "
            f"Secret block in {section}.api_key_secret, or set {without[section]}"
        )
    if not (key.isascii() and key.isprintable()):
        raise BadInput(f"{section}: the {source} holds characters that no key has; correct it")
    return key
