"""Nothing that the pipeline reads can run code: no pickle is loaded in any run."""

import ast

import pytest

from tasks.storage.data_dir import PROJECT_ROOT

MODULES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
LOADERS = {"load", "loads", "read_pickle", "Unpickler", "open"}
CALLS = {"read_pickle", "to_pickle", "allow_pickle", "unsafe_load", "full_load", "eval", "exec"}


def pickle_loads(source: str) -> list[int]:
    """Lines that load a pickle, or something as good as one."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        root, _, last = name.rpartition(".")
        options = {word.arg: ast.unparse(word.value) for word in node.keywords}
        if (
            (root.split(".")[0] in MODULES and last in LOADERS)
            or (name.endswith("torch.load") and options.get("weights_only") != "True")
            or options.get("allow_pickle", "False") != "False"
            or (last in CALLS and root != "self" and not root.endswith("module"))
            or (name in ("yaml.load",) and "Loader" not in options)
        ):
            found.append(node.lineno)
        # np.load without allow_pickle refuses pickles since NumPy 1.16.
    imports = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ImportFrom)]
    return found + [node.lineno for node in imports if node.module in MODULES]


@pytest.mark.parametrize("folder", ["flows", "tasks", "models"])
def test_the_product_loads_no_pickle(folder):
    for file in sorted((PROJECT_ROOT / folder).rglob("*.py")):
        if (
            file.name == "pickle_conversion.py"
        ):  # a command of its own, with a list of what it admits
            continue
        assert pickle_loads(file.read_text()) == [], file


@pytest.mark.parametrize(
    "source",
    [
        "pickle.load(f)",
        "pickle.loads(b)",
        "from pickle import loads",
        "torch.load(f)",
        "torch.load(f, weights_only=False)",
        "np.load(f, allow_pickle=True)",
        "joblib.load(f)",
        "pd.read_pickle(f)",
        "yaml.load(f)",
        "cloudpickle.loads(b)",
        "eval(text)",
    ],
)
def test_the_search_finds_what_it_looks_for(source):
    assert pickle_loads(source)


def test_results_of_stages_are_json():
    """Prefect's own default is a pickle."""
    from tasks.execution.stage import VerifiedJSON, stage

    assert isinstance(stage("s", version=1)(lambda: None).result_serializer, VerifiedJSON)
    text = (PROJECT_ROOT / "tasks" / "execution" / "stage.py").read_text()
    assert "persist_result=False" in text.partition("def always")[2]
