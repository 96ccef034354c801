"""Every knob of a pipeline, as frozen pydantic models: one YAML file is one `Pipeline`.

Unknown keys are errors. A field marked `identity=False` changes how the work is done
(concurrency, worker count), never its result, and so stays out of every cache key.
"""

from models.config.data import Split
from models.config.dataset import ROLES, DataColumns, Dataset, Format, KCore, Role, seconds
from models.config.experiment import Experiment, Search, Space
from models.config.history import History, ItemHistory
from models.config.knowledge import (
    Columns,
    Embeddings,
    ItemProfiles,
    Profiles,
    Reduction,
    Refit,
    Targets,
    Umap,
)
from models.config.llm import LLM
from models.config.nightly import Nightly
from models.config.pipeline import Job, Pipeline
from models.config.reading import parse_yaml
from models.config.running import Dask, Runner
from models.config.section import IDENTITY_IF_SET, NOT_IDENTITY, Section
from models.config.training import (
    BRIDGING,
    CLICK_METRICS,
    CONTROLS,
    KAR_MODELS,
    SIDES,
    Alignment,
    Arm,
    Budget,
    Control,
    Evaluation,
    Freeze,
    Kar,
    Metric,
    Model,
    Phase,
    Precision,
    Side,
    Tap,
    Training,
    Transfer,
    parse_metric,
)

__all__ = [
    "BRIDGING",
    "CLICK_METRICS",
    "CONTROLS",
    "IDENTITY_IF_SET",
    "KAR_MODELS",
    "LLM",
    "NOT_IDENTITY",
    "ROLES",
    "SIDES",
    "Alignment",
    "Arm",
    "Budget",
    "Columns",
    "Control",
    "Dask",
    "DataColumns",
    "Dataset",
    "Embeddings",
    "Evaluation",
    "Experiment",
    "Format",
    "Freeze",
    "History",
    "ItemHistory",
    "ItemProfiles",
    "Job",
    "KCore",
    "Kar",
    "Metric",
    "Model",
    "Nightly",
    "Phase",
    "Pipeline",
    "Precision",
    "Profiles",
    "Reduction",
    "Refit",
    "Role",
    "Runner",
    "Search",
    "Section",
    "Side",
    "Space",
    "Split",
    "Tap",
    "Targets",
    "Training",
    "Transfer",
    "Umap",
    "parse_metric",
    "parse_yaml",
    "seconds",
]
