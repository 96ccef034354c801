"""An experiment for a paper: LaTeX tables, figures as vector PDF, methods and BibTeX."""

import html
import json
import re
from pathlib import Path
from typing import Any

from slugify import slugify

from models.config import BASELINE, Job, Pipeline, parse_metric
from models.evaluation.beyond_accuracy import BEYOND
from models.report import wording
from models.report.charts.forest_plot import forest
from models.report.charts.learning_curves import Course, learning_curves
from models.report.charts.parameter_sweeps import sweeps
from models.report.charts.theme import Figure
from models.schemas import Epoch
from tasks.inspection.power import power_of
from tasks.report.leaderboard import StoredEvaluation, stored
from tasks.report.page import rendered
from tasks.results.queries import Rows, reading, require_experiment, select
from tasks.storage.sql_scripts import script

_TEMPLATES = Path(__file__).parent / "templates" / "paper"
_JUDGED = ("experiment", "split", "models", "training", "evaluation")
_DASHES = {"dash": "--", "dot": ":", "dashdot": "-.", "longdash": (0, (8, 3))}
_TEX = {sign: f"\\{sign}" for sign in "&%$#_{}"} | {
    **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"},
    **{"−": "$-$", "±": r"$\pm$", "–": "--", "α": r"$\alpha$", "<": "$<$", ">": "$>$"},
}


def write_paper(experiment: str, folder: Path) -> list[Path]:
    """Write an experiment's tables, figures, methods and references; BadInput if it is unknown."""
    own = {"experiment": experiment}
    with reading() as connection:
        require_experiment(connection, experiment)
        (facts,) = select(connection, script("report/paper_facts"), **own)
        judged = {key: json.loads(facts["config"])[key] for key in _JUDGED}
        pipeline = Pipeline.model_validate(judged | {"dataset": {"name": facts["dataset"]}})
        metric, k = parse_metric(pipeline.evaluation.primary)
        table = select(
            connection, script("report/paper_table"), **own, k=k, first=BASELINE, beyond=[*BEYOND]
        )
        epochs = select(connection, "FROM epochs ORDER BY epoch")
    found, primary = stored(experiment, facts["run_ids"], metric, k), wording.metric_name(metric, k)
    gains = [row for row in found.contrasts if row["is_primary"]]
    figures = {"Gains with 95 % intervals": forest(gains)} if gains else {}
    figures |= _figures(found, epochs, primary)
    folder.mkdir(parents=True, exist_ok=True)
    for caption, figure in figures.items():
        _draw(figure, folder / f"{slugify(caption)}.pdf")
    shown = (
        own
        | {"table": table, "gains": gains, "facts": facts, "primary": primary}
        | {
            "columns": {name: wording.metric_name(name, k) for name in pipeline.evaluation.metrics},
            "figures": {caption: slugify(caption) for caption in figures},
            "power": power_of([pipeline], max(facts["splits"], facts["seeds"]), experiment),
        }
    )
    for file in _TEMPLATES.glob("*.j2"):
        given = {"finalize": _tex, "words": wording, "pipeline": pipeline, **shown}
        text = rendered(_TEMPLATES, file.name, **given)
        (folder / file.stem).write_text(text, encoding="utf-8")
    return sorted(folder.iterdir())


def _figures(found: StoredEvaluation, epochs: Rows, primary: str) -> dict[str, Figure]:
    """Sweeps and learning curves, by caption."""
    figures = {f"{by.model} by {by.factor}": by.figure for by in sweeps(found.runs, primary)}
    courses: dict[str, list[Epoch]] = {}
    for row in epochs:
        courses.setdefault(row["run_id"], []).append(Epoch.model_validate(row))
    drawn = [
        Course(Job.model_validate(run["config"]["job"]), courses[run["run_id"]], run["best_epoch"])
        for run in found.runs
        if run["run_id"] in courses
    ]
    for model, panels in learning_curves(drawn).items():
        figures |= {f"{title} of {model} by epoch": panel for title, panel in panels.items()}
    return figures


def _tex(value: Any) -> Any:
    """Write a text so that LaTeX prints it."""
    signs = "|".join(map(re.escape, _TEX))
    return re.sub(signs, lambda sign: _TEX[sign[0]], value) if isinstance(value, str) else value


def _draw(figure: Figure, path: Path) -> None:
    """Draw a chart's Plotly data as vector PDF."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure as Canvas

    with rc_context({"font.size": 8, "pdf.fonttype": 42, "lines.linewidth": 1}):
        canvas = Canvas(figsize=(5, figure["layout"]["height"] / 80), layout="constrained")
        axes: Any = canvas.subplots()
        frame = figure["layout"]
        for trace in figure["data"]:
            line, mode = trace.get("line", trace.get("marker")), trace["mode"]
            errors = [trace.get(f"error_{at}", {}) for at in "yx"]
            axes.errorbar(
                *([_plain(value) for value in trace[at]] for at in "xy"),
                *((e and [e.get("arrayminus", e["array"]), e["array"]]) or None for e in errors),
                color=line["color"],
                linestyle=_DASHES.get(line.get("dash"), "-") if "lines" in mode else "",
                marker="o" if "markers" in mode else "",
                label=_plain(trace.get("name", "_")),
            )
        for shape in frame.get("shapes", ()):
            if shape["type"] == "rect":
                axes.axvspan(shape["x0"], shape["x1"], color="0.94", zorder=0)
            elif shape["xref"] == "paper":
                axes.axhline(shape["y0"], color="0.6", linestyle="--")
            else:
                axes.axvline(shape["x0"], color="0.6")
        axes.set_xlabel(frame["xaxis"]["title"]["text"])
        axes.set_ylabel(frame["yaxis"].get("title", {}).get("text"))
        if len(axes.get_legend_handles_labels()[1]) > 1:
            axes.legend(fontsize=6)
        canvas.savefig(path, metadata={"CreationDate": None})


def _plain(value: Any) -> Any:
    """Undo Plotly's markup; a dollar would begin a formula."""
    return html.unescape(value).replace("$", r"\$") if isinstance(value, str) else value
