"""The knowledge-transfer core, in the published framework's words (LLM-KT, arXiv 2411.00556)."""
