"""Stage *split*: train, valid and test as three artifacts, so that later stages see no more."""

from prefect.logging import get_run_logger

from models import split as splitting
from models.config import Split
from tasks.caching import stage
from tasks.handoffs import Splits
from tasks.storage import Handle, read_parquet, write_parquet


@stage("split", version=1)
def split(config: Split, interactions: Handle) -> Splits:
    """Divide the interactions; see `models.split.split` for strategies and errors."""
    parts = splitting.split(read_parquet(interactions), config)
    train, valid, test = (
        write_parquet(
            "split",
            table,
            inputs={"interactions": interactions},
            config={**config.identity(), "part": part},
        )
        for part, table in zip(("train", "valid", "test"), parts, strict=True)
    )
    kept = train.rows + valid.rows + test.rows
    get_run_logger().info(
        "Split %s: %d train, %d valid, %d test, %d dropped (short histories)",
        config.strategy,
        train.rows,
        valid.rows,
        test.rows,
        interactions.rows - kept,
    )
    return Splits(train=train, valid=valid, test=test)
