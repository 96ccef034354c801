"""Embeddings into training targets: reducers and control arms."""
