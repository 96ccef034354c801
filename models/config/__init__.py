"""Every knob of a pipeline, as frozen pydantic models: one YAML file is one `Pipeline`.

Unknown keys are errors. A field marked `identity=False` changes how the work is done
(concurrency, worker count), never its result, and so stays out of every cache key.
"""

from models.config.alignments import ALIGNMENTS
from models.config.arms import ARMS, BASELINE, TRANSFER, Arm, ArmName
from models.config.dataset import ROLES, DataColumns, Dataset, Format, KCore, Role, seconds
from models.config.embeddings import Embeddings
from models.config.evaluation import CLICK_METRICS, Evaluation, Metric, parse_metric
from models.config.experiment import Experiment, Search, Space
from models.config.history import History, ItemHistory
from models.config.llm import LLM, Sampling
from models.config.nightly import Nightly
from models.config.pipeline import Job, Pipeline
from models.config.profiles import Columns, ItemProfiles, Profiles
from models.config.runner import Dask, Runner
from models.config.section import IDENTITY_IF_SET, NOT_IDENTITY, Section
from models.config.sides import SIDES, Side
from models.config.split import Split
from models.config.targets import Reduction, Refit, Targets, Umap
from models.config.training import Budget, Model, Precision, Training
from models.config.transfer import (
    Freeze,
    Kar,
    Phase,
    Tap,
    Transfer,
)
from models.config.yaml_loader import parse_yaml

__all__ = [
    "ALIGNMENTS",
    "ARMS",
    "BASELINE",
    "CLICK_METRICS",
    "IDENTITY_IF_SET",
    "LLM",
    "NOT_IDENTITY",
    "ROLES",
    "SIDES",
    "TRANSFER",
    "Arm",
    "ArmName",
    "Budget",
    "Columns",
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
    "Sampling",
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
