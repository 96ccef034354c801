"""The pipeline's stages as Prefect tasks: all disk, network and database access."""
