"""Every setting of a pipeline, as frozen pydantic models: one YAML file is one `Pipeline`.

Unknown keys are errors. A field marked `NOT_IDENTITY` changes how the work is done (concurrency,
worker count), never its result, and so stays out of every cache key.
"""

from models.config.alignments import ALIGNMENTS
from models.config.arms import ARMS, BASELINE, TRANSFER, Arm, ArmName
from models.config.dataset import ROLES, DataColumns, Dataset, Format, KCore, Role, seconds
from models.config.embeddings import TEXT_MODELS, Embeddings
from models.config.evaluation import CLICK_METRICS, Claims, Evaluation, Metric, parse_metric
from models.config.experiment import Experiment, Search, Space
from models.config.llm import LLM, Sampling
from models.config.metrics import RANKING_METRICS, PerUser, RankingMetric
from models.config.nightly import Guardrails, Nightly, Sink
from models.config.pipeline import Job, Pipeline
from models.config.profiles import Columns, History, ItemHistory, ItemProfiles, Profiles
from models.config.runner import Dask, Runner
from models.config.section import NOT_IDENTITY, SIDES, Section, Side
from models.config.split import Split
from models.config.targets import REDUCTIONS, Reduction, Refit, Targets, Umap
from models.config.training import Budget, Model, Precision, Training
from models.config.transfer import Freeze, Kar, LlmCf, Phase, Tap, Transfer
from models.config.yaml_loader import parse_yaml
