"""Studies from YAML: what the words mean, and every mistake at once with file and line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lorakit.errors import RecipeError
from lorakit.recipe.shipped import names
from lorakit.studies.plan import MOST_CELLS, load_study, short_names, study_names
from lorakit.studies.run import look
from lorakit.studies.schema import Study


@pytest.fixture
def study(tmp_path: Path):
    def write(text: str) -> str:
        (tmp_path / "mine.yaml").write_text(text)
        return str(tmp_path / "mine.yaml")

    return write


def problems(path: str) -> str:
    with pytest.raises(RecipeError) as caught:
        load_study(path)
    return str(caught.value)


@pytest.mark.parametrize("name", study_names())
def test_every_shipped_study_loads_and_is_about_something(name):
    plan = load_study(name)
    assert plan.name == name
    assert len(plan.cells) > 1
    assert plan.axes
    assert plan.study.about
    assert load_study(f"studies/{name}") == plan


def test_studies_are_no_recipes():
    assert len(study_names()) >= 3
    assert not [name for name in names() if name.startswith("studies")]


def test_every_combination_once_and_in_order(study):
    plan = load_study(
        study("""\
recipes: [quickstart, quickstart_generate]
set: [train.epochs=1]
cells: {narrow: {method.targets: [query]}, wide: [method.targets=all-linear]}
grid:
  method.r, method.alpha: [[1, 2], [4, 8]]
  train.learning_rate: [4e-4, 1e-3, 0.1]
seeds: [3, 4]
""")
    )
    assert len(plan.cells) == 2 * 2 * 2 * 3
    assert plan.axes == ("recipe", "cell", "r", "learning_rate")
    first, last = plan.cells[0], plan.cells[-1]
    assert first.label == "quickstart, narrow, r=1, alpha=2, learning_rate=0.0004"
    assert last.point == {
        "recipe": "quickstart_generate",
        "cell": "wide",
        "r": 4,
        "alpha": 8,
        "learning_rate": 0.1,
    }
    for cell in plan.cells:
        recipe = cell.loaded.recipe
        assert recipe.seeds == (3, 4)
        assert recipe.train.epochs == 1
        assert recipe.method.model_dump()["r"] == cell.point["r"] == cell.point["alpha"] / 2
        assert recipe.train.learning_rate == cell.point["learning_rate"]
        assert len(recipe.method.model_dump()["targets"]) == 1


@pytest.mark.parametrize(
    "value", ["", "true", "null", "3", "4e-4", "a: b # c", "[x", "'quoted'", " padded ", 'a"b', "é"]
)
def test_a_text_stays_a_text(study, value):
    path = study(json.dumps({"recipes": "quickstart", "set": {"about": value}}))
    assert load_study(path).cells[0].loaded.recipe.about == value


def test_each_run_has_the_task_that_it_is_scored_on(study, tmp_path):
    plan = load_study(study("recipes: [glue_mrpc, glue_rte]\n"))
    tasks = [cell.task for cell in look(plan, tmp_path / "runs").cells]
    assert tasks == ["glue/mrpc", "glue/rte"]


def test_without_seeds_each_recipe_has_its_own(study):
    assert load_study(study("recipes: quickstart\n")).cells[0].loaded.recipe.seeds == (0,)
    assert load_study(study("recipes: quickstart\nset: ['seeds=[5]']\n")).cells[
        0
    ].loaded.recipe.seeds == (5,)


def test_a_recipe_beside_the_study(study, tmp_path):
    (tmp_path / "own.yaml").write_text(
        "task: {name: glue/mrpc}\nmodel: {name: some/model}\nmethod: lora\n"
    )
    [cell] = load_study(study("recipes: own.yaml\n")).cells
    assert (cell.recipe, cell.loaded.name) == (str(tmp_path / "own.yaml"), "own")


def test_all_mistakes_of_the_file_at_once(study):
    said = problems(
        study("""\
recipe: quickstart
set: 3
grid: {method.r: 3}
seeds: [0, -1]
slurm:
  tim: 3
""")
    )
    for part in (
        "6 problems",
        "mine.yaml:1: recipe: unknown key (its value is 'quickstart'); did you mean 'recipes'?",
        "recipes: is missing",
        "mine.yaml:2: set: 3 should be a list: [3]",
        "mine.yaml:3: grid: method.r: 3 should be a list of values: [3]",
        "mine.yaml:4: seeds.1: -1 should be greater than or equal to 0",
        "mine.yaml:6: slurm.tim: unknown key (its value is 3); did you mean 'time'?",
    ):
        assert part in said


def test_all_mistakes_of_the_runs_at_once_each_once_and_where_it_stands(study):
    said = problems(
        study("""\
recipes: [quickstart, quickstrt]
set:
  train.epoch: 3
cells:
  a: [method.alhpa=3]
  b: {method.targets: 7}
grid:
  method.r: [1, x]
""")
    )
    for part in (
        "mine.yaml:1: there is no recipe file 'quickstrt' and no shipped recipe 'quickstrt'",
        "mine.yaml:3: train.epoch: unknown key (its value is 3); did you mean 'epochs'?",
        "mine.yaml:5: method.alhpa: unknown key (its value is 3); did you mean 'alpha'?",
        "mine.yaml:6: method.targets: 7 should be a list: [7]",
        "mine.yaml:8: method.r: 'x' should be a valid integer",
    ):
        assert said.count(part) == 1, said


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("recipes: quickstart\ngrid: {method.r: [8, 8]}\n", "'r=8' and 'r=8' are the same run"),
        ("recipes: quickstart\ngrid: {method.r: []}\n", "method.r: [] should be a list of values"),
        (
            "recipes: quickstart\ngrid: {'method.r, method.alpha': [[1, 2], 3]}\n",
            "3 should be a list of 2 values",
        ),
        (
            "recipes: quickstart\nset: [nonsense]\n",
            "mine.yaml:2: 'nonsense' is neither key=value nor ~key",
        ),
        ("recipes: quickstart\nset: [~start_from]\n", "mine.yaml:2: ~start_from"),
        ("recipes: quickstart\nseeds: [1, 1]\n", "mine.yaml:2: seeds: 1 is given twice"),
        ("recipes: quickstart\nset: !!python/object:os.system x\n", "mine.yaml:2: tags (!)"),
        (
            "recipes: quickstart\nset: {about: '[x', train.epochs: 1, train.epochs: 2}\n",
            "given twice",
        ),
        (
            f"recipes: quickstart\ngrid: {{train.max_steps: {list(range(1, MOST_CELLS + 2))}}}\n",
            "1,001 runs",
        ),
        ("- quickstart\n", "mine.yaml:1: "),
    ],
)
def test_what_is_refused(study, text, message):
    assert message in problems(study(text))


def test_no_such_study():
    with pytest.raises(
        RecipeError, match="no shipped study 'quickstat'; did you mean 'quickstart'"
    ):
        load_study("quickstat")


def test_short_names():
    assert short_names(["method.r", "train.epochs"]) == {"method.r": "r", "train.epochs": "epochs"}
    assert short_names(["data.limit.train", "x.train"]) == {
        "data.limit.train": "data.limit.train",
        "x.train": "x.train",
    }
    assert short_names(["a.recipe"]) == {"a.recipe": "a.recipe"}


def test_every_field_says_what_it_is():
    said = Study.model_json_schema()["properties"]
    assert not [
        name
        for name, field in said.items()
        if "description" not in field and name not in ("about", "slurm")
    ]


def test_overrides_of_the_command_line_come_last(study):
    path = study("recipes: quickstart\nset: {train.epochs: 9}\ngrid: {method.r: [1, 2]}\n")
    plan = load_study(path, ["train.epochs=7"])
    assert [(c.loaded.recipe.train.epochs, c.loaded.recipe.method.r) for c in plan.cells] == [
        (7, 1),
        (7, 2),
    ]
    with pytest.raises(RecipeError, match=r"command line: train\.epoch: unknown key"):
        load_study(path, ["train.epoch=7"])
    with pytest.raises(RecipeError, match="are the same run"):
        load_study(path, ["method.r=4"])


WHERE = """\
recipes: quickstart
cells: {a: {train.epochs: 1}, b: {train.epochs: 2}}
grid: {data.limit.train: [10, 20]}
where:
  - {at: {cell: b, train: 20}, set: {train.learning_rate: 7}}
"""


def test_some_runs_have_settings_of_their_own(study):
    plan = load_study(study(WHERE))
    rates = {
        (c.point["cell"], c.point["train"]): c.loaded.recipe.train.learning_rate for c in plan.cells
    }
    assert {at for at, rate in rates.items() if rate == 7} == {("b", 20)}
    assert len(rates) == 4


def test_what_is_nearer_to_a_run_comes_later(study):
    """For all, for a cell, for the runs at a place in the order of the file, on the command
    line."""
    path = study("""\
recipes: quickstart
set: {train.learning_rate: 1}
cells:
  a: {train.epochs: 1, train.learning_rate: 2}
  b: {train.epochs: 2, train.learning_rate: 2}
  c: {train.epochs: 3}
grid: {data.limit.train: [10, 20]}
where:
  - {at: {cell: b}, set: {train.learning_rate: 3}}
  - {at: {cell: b, train: 20}, set: {train.learning_rate: 4}}
""")

    def rates(*more):
        return [c.loaded.recipe.train.learning_rate for c in load_study(path, more).cells]

    assert rates() == [2, 2, 3, 4, 1, 1]
    assert rates("train.learning_rate=5") == [5] * 6


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("train: 20}", "train: 30}", 'mine.yaml:5: where: no run is at {"cell": "b", "train": 30}'),
        ("cell: b", "cel: b", 'mine.yaml:5: where: no run is at {"cel": "b", "train": 20}'),
        ("learning_rate: 7", "rate: 7", "mine.yaml:5: train.rate: unknown key"),
        (
            "at: {cell: b, train: 20}",
            "at: {}",
            "mine.yaml:5: where.0.at: {} should have at least 1 item",
        ),
        ("set: {train", "sets: {train", "mine.yaml:5: where.0.sets: unknown key"),
    ],
)
def test_mistakes_in_where(study, old, new, said):
    assert old in WHERE
    assert said in problems(study(WHERE.replace(old, new, 1)))
