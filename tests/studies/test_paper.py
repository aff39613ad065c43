"""The paper's tables as data: what they print, that every row makes a run, and that it trains what
is printed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import pytest

from lorakit.bases.outline import outline
from lorakit.errors import RecipeError
from lorakit.methods import Attachment
from lorakit.models import Model
from lorakit.recipe.load import load_recipe
from lorakit.recipe.shipped import names
from lorakit.studies.paper_plan import Reproduction, Selection, load_reproduction
from lorakit.studies.paper_result import PaperEntry, average
from lorakit.studies.paper_table import base_names, load_base, load_paper_table, table_names
from lorakit.studies.plan import load_study
from tests.tiers import unit_or_slow

TABLES = [
    "table2",
    "table3",
    "table4",
    "table5",
    "table6",
    "table8",
    "table13",
    "table14",
    "table15",
    "table16",
    "table18",
]
ROWS = [(table, row) for table in TABLES for row in load_paper_table(table)[0].rows]


def load_table(
    name: str,
    base: str | None = None,
    rows: Sequence[str] = (),
    columns: Sequence[str] = (),
    **more,
) -> Reproduction:
    """The reproduction of a table, with the fields of `Selection` as arguments."""
    return load_reproduction(name, Selection(base, rows, columns, **more))


PRINTED = {  # read from the paper once more: (table, row) -> column -> number as printed
    ("table2", "base_ft"): {"mnli": "87.6", "stsb": "91.2", "avg": "86.4"},
    ("table2", "base_bitfit"): {"mrpc": "92.7", "qqp": "84.0", "rte": "81.5"},
    ("table2", "base_adpt_d_0.3m"): {"cola": "60.8±.4", "rte": "71.5±2.7"},
    ("table2", "base_adpt_d_0.9m"): {"cola": "62.6±.9", "rte": "75.9±2.2"},
    ("table2", "base_lora"): {
        "mnli": "87.5±.3",
        "cola": "63.4±1.2",
        "rte": "86.6±.7",
        "avg": "87.2",
    },
    ("table2", "large_adpt_p_3m"): {"rte": "83.8±2.9", "qnli": "94.8±.2"},
    ("table2", "large_adpt_h_6m"): {"cola": "66.5±4.4", "mrpc": "88.7±2.9"},
    ("table2", "large_adpt_h_0.8m"): {"rte": "72.9±2.9", "avg": "86.4"},
    ("table2", "large_lora"): {"rte": "87.4±2.5", "qqp": "91.6±.1"},
    ("table2", "large_lora_dagger"): {"rte": "85.2±1.1", "stsb": "92.3±.5"},
    ("table2", "xxl_lora"): {"mnli": "91.9±.2", "rte": "94.9±.4", "avg": "91.3"},
    ("table3", "medium_lora"): {
        "bleu": "70.4±.1",
        "nist": "8.85±.02",
        "meteor": "46.8±.2",
        "rouge_l": "71.8±.1",
        "cider": "2.53±.02",
    },
    ("table3", "medium_adapter_h"): {"bleu": "67.3±.6", "cider": "2.44±.01"},
    ("table3", "large_lora"): {"bleu": "70.4±.1", "nist": "8.89±.02", "cider": "2.47±.02"},
    ("table3", "large_prelayer"): {"bleu": "70.3", "rouge_l": "71.7"},
    ("table4", "lora_4.7m"): {
        "wikisql": "73.4",
        "mnli": "91.7",
        "rouge1": "53.8",
        "rouge2": "29.8",
        "rougel": "45.9",
    },
    ("table4", "lora_37.7m"): {"wikisql": "74.0", "mnli": "91.6"},
    ("table4", "preembed"): {"wikisql": "63.1", "rouge2": "24.2"},
    ("table5", "q"): {"wikisql": "70.4", "mnli": "91.0"},
    ("table5", "qkvo"): {"wikisql": "73.7", "mnli": "91.7"},
    ("table6", "q_r1"): {"wikisql": "68.8", "mnli": "90.7"},
    ("table6", "qv_r64"): {"wikisql": "73.5", "mnli": "91.4"},
    ("table6", "qkvo_r1"): {"wikisql": "74.1", "mnli": "91.2"},
    ("table8", "few_shot"): {"mnli": "40.6", "rte": "69.0"},
    ("table8", "ft"): {"mnli": "89.5", "rte": "85.4"},
    ("table13", "medium_top2"): {"bleu": "41.0", "ter": "0.56"},
    ("table13", "large_lora"): {"bleu": "47.5±.1", "meteor": "0.39", "ter": "0.45"},
    ("table14", "medium_lora"): {"bleu_u": "46.7±.4", "met_s": "0.44", "ter_a": "0.39"},
    ("table14", "large_ft"): {"bleu_u": "43.1", "bleu_s": "65.3", "ter_u": "0.53"},
    ("table15", "lora_pe_64"): {"wikisql": "76.2", "mnli": "91.3"},
    ("table15", "adapter_h_64"): {"wikisql": "72.6", "mnli": "91.5"},
    ("table15", "lora_qv_64"): {"wikisql": "73.6", "mnli": "91.4"},
    ("table16", "lora"): {
        "mnli_100": "63.8",
        "mnli_1k": "85.6",
        "mnli_10k": "89.2",
        "mnli_392k": "91.7",
    },
    ("table16", "preembed"): {"mnli_100": "37.6", "mnli_392k": "88.6"},
    ("table18", "r4"): {"val_loss": "1.18", "bleu": "70.38", "nist": "8.8439", "meteor": "0.4689"},
    ("table18", "r1024"): {"bleu": "69.37", "cider": "2.5090"},
}


def test_every_table_is_there():
    assert table_names() == TABLES
    assert len(ROWS) == 125


def test_tables_and_bases_are_no_recipes():
    assert not [name for name in names() if name.startswith("tables/")]


@pytest.mark.parametrize(
    ("at", "columns"), PRINTED.items(), ids=lambda at: at if isinstance(at, str) else "-".join(at)
)
def test_what_is_printed(at, columns):
    table, _ = load_paper_table(at[0])
    for name, text in columns.items():
        found = table.rows[at[1]].values[list(table.columns).index(name)]
        value, _, spread = text.partition("±")
        assert found is not None
        assert (found.value, found.spread) == (float(value), float(spread) if spread else None), (
            name
        )


def test_the_averages_of_table_2_are_those_of_its_columns():
    table, _ = load_paper_table("table2")
    for row in table.rows.values():
        *values, average = [value.value for value in row.values if value]
        assert len(values) == 8
        assert sum(values) / 8 == pytest.approx(average, abs=0.0501), row.label


def test_the_recipes_say_what_the_tables_say():
    for table in ("table2", "table3", "table13", "table14"):
        chosen = load_table(table, rows=["lora"])
        assert len(chosen.cells) >= 2
        for (row, run), cell in chosen.cells.items():
            published = load_recipe(cell.recipe).recipe.expect.scores
            for name, column in chosen.table.columns.items():
                if column.metric and chosen.table.run_of(name) == run:
                    printed = chosen.table.rows[row].values[list(chosen.table.columns).index(name)]
                    known = published.get(column.metric) or published[column.metric.split("/")[1]]
                    assert printed is not None
                    assert (known.value, known.spread) == (printed.value, printed.spread), (
                        table,
                        row,
                        name,
                    )


GPT3 = Model(
    name="gpt-3",
    shape={
        "model_type": "gpt2",
        "n_layer": 96,
        "n_embd": 12288,
        "n_head": 96,
        "vocab_size": 50257,
        "n_positions": 2048,
    },
)


@cache
def _loaded(table: str):
    return load_table(table, seeds=1)


def trainable(table: str, row: str) -> int:
    """On the paper's base, from shapes alone, without the head, which the paper does not count."""
    chosen = _loaded(table)
    recipe = next(
        reversed([cell for (r, _), cell in chosen.cells.items() if r == row and "wikisql" not in _])
    ).loaded.recipe
    model = GPT3 if chosen.table.another_base else recipe.model
    base = outline(model, recipe.task.head.value, recipe.task.labels)
    attachment = recipe.method.attach(base.model, base.roles, base.newly_initialised)
    return count_of(attachment)


def count_of(attachment: Attachment) -> int:
    return sum(
        p.numel()
        for name, p in attachment.trained().items()
        if name not in attachment.newly_initialised
    )


def fits(number: int, printed: str) -> bool:
    """Rounded or cut to the digits that are printed."""
    value, unit = re.fullmatch(r"([\d,.]+)([MB])", printed).groups()  # type: ignore[union-attr]
    digits = len(value.partition(".")[2])
    scaled, last = number / {"M": 1e6, "B": 1e9}[unit], 10**-digits
    printed_value = float(value.replace(",", ""))
    return abs(scaled - printed_value) <= last / 2 or printed_value <= scaled < printed_value + last


BASES = {"table2": "encoders", "table3": "GPT-2", "table13": "GPT-2", "table14": "GPT-2"}
"""Of the tables that are not of GPT-3."""
FIRST = {
    (BASES.get(table), load_paper_table(table)[0].rows[row].method_name): (table, row)
    for table, row in reversed(ROWS)
}
"""A row of each method on the bases of a kind."""


@pytest.mark.parametrize(("table", "row"), unit_or_slow(ROWS, set(FIRST.values())))
def test_a_row_trains_as_many_parameters_as_printed(table, row):
    of = _loaded(table).table.rows[row]
    found = trainable(table, row)
    if of.params is None:
        assert found == of.trainable
    elif of.misfit:
        assert found == of.trainable
        assert not fits(found, of.params), f"{found:,} is {of.params}: no misfit"
    else:
        assert fits(found, of.params), f"{found:,} for {of.params}"


def test_misfits_are_few_and_each_is_explained():
    rows = [(t, r, load_paper_table(t)[0].rows[r]) for t, r in ROWS]
    assert [
        (t, r)
        for t, r, row in rows
        if row.params and bool(row.misfit) != (row.trainable is not None)
    ] == []
    assert {t for t, _, row in rows if row.params is None} == {"table6", "table8", "table18"}
    assert sum(bool(row.misfit) for _, _, row in rows) == 33


def test_table_17_is_in_table_16():
    cells = _loaded("table16").cells
    found = {
        key: (r.data.sample, r.train.global_batch_size, r.train.epochs, r.train.learning_rate)
        for key, cell in cells.items()
        for r in [cell.loaded.recipe]
    }
    assert found["lora", "mnli_100"] == (100, 20, 40, 2e-4)
    assert found["ft", "mnli_10k"] == (10000, 100, 4, 5e-6)
    assert found["preembed", "mnli_10k"] == (10000, 100, 4, 4e-4)
    assert found["preembed", "mnli_392k"] == (None, 128, 2, 5e-4)
    assert found["prelayer", "mnli_1k"] == (1000, 20, 40, 5e-5)
    sizes = ("mnli_100", "mnli_1k", "mnli_10k", "mnli_392k")
    assert [cells["preembed", run].loaded.recipe.method.prefix for run in sizes] == [
        16,
        32,
        64,
        256,
    ]  # type: ignore[attr-defined]
    study = {
        (c.point["cell"], c.point["sample"]): c.loaded.recipe
        for c in load_study("mnli_low_data").cells
    }
    assert len(study) == 16
    for (row, cell), (size, n) in [
        ((r, c), (s, k))
        for r, c in (
            ("ft", "full"),
            ("preembed", "prefix_embedding"),
            ("prelayer", "prefix_layer"),
            ("lora", "lora"),
        )
        for s, k in zip(sizes, (100, 1000, 10000, 392702), strict=True)
    ]:
        mine, theirs = study[cell, n], cells[row, size].loaded.recipe
        assert (mine.method, mine.train) == (theirs.method, theirs.train), (cell, n)


class TestChoosing:
    def test_rows_by_name_and_by_method(self):
        assert load_table("table2", rows=["bitfit", "xxl_ft"], columns=["mrpc"]).rows == (
            "base_bitfit",
            "xxl_ft",
        )
        assert len(load_table("table2", rows=["adapter_h"]).rows) == 2

    def test_seeds_are_the_papers_or_the_first_so_many(self):
        def seeds(*args, **kwargs):
            return next(iter(load_table(*args, **kwargs).cells.values())).loaded.recipe.seeds

        assert seeds("table2", rows=["base_lora"]) == (0, 1, 2, 3, 4)
        assert seeds("table2", rows=["base_lora"], seeds=2) == (0, 1)
        assert seeds("table2", "minilm", ["base_lora"], ["mrpc"]) == (0, 1, 2)
        assert seeds("table3", rows=["medium_lora"], seeds=7) == tuple(range(7))
        assert seeds("table2", rows=["base_lora"], seeds=2, overrides=["seeds=[5]"]) == (5,)

    def test_a_limit_is_of_every_split_and_never_more_than_there_was(self):
        cells = load_table("table16", rows=["lora"], limit=500).cells
        splits = {"validation_matched": 500, "validation_mismatched": 500}
        data = {run: cells["lora", run].loaded.recipe.data for run in ("mnli_100", "mnli_10k")}
        assert {run: of.sample for run, of in data.items()} == {"mnli_100": 100, "mnli_10k": 500}
        assert all(of.limit == {"train": 500, **splits} for of in data.values())

    def test_another_base_has_its_own_rates_and_each_run_once(self):
        chosen = load_table("table2", "minilm", columns=["mrpc", "rte", "cola"])
        assert chosen.another_base == "MiniLM for RoBERTa and DeBERTa"
        assert not chosen.comparable
        rates = {
            row: chosen.cells[row, "rte"].loaded.recipe.train.learning_rate for row in chosen.rows
        }
        assert rates["base_ft"] == 1e-4
        assert rates["base_bitfit"] == 2e-3
        assert rates["base_lora"] == 1e-3
        assert chosen.same["xxl_ft"] == "base_ft"
        assert chosen.same["large_lora_dagger"] == "base_lora"
        assert {chosen.table.rows[row].method_name for row in chosen.rows} == {
            "full",
            "bitfit",
            "lora",
            "adapter_d",
            "adapter_p",
            "adapter_h",
        }
        assert all(
            cell.loaded.recipe.train.epochs == 2 for cell in chosen.cells.values()
        )  # of MiniLM, not of Table 9

    def test_a_column_without_a_recipe_is_said(self):
        chosen = load_table("table2", "minilm", ["lora"], ["mrpc", "mnli"])
        assert chosen.absent["base_lora", "mnli"] == "no recipe minilm/glue_mnli"

    @pytest.mark.parametrize(
        ("args", "said"),
        [
            (("table1",), "no table 'table1'; did you mean 'table"),
            (
                ("table2", "minlm"),
                "no base 'minlm'; did you mean 'minilm'? (there are: minilm, mpnet, qwen2_5_7b",
            ),
            (("table2", None, ["base_lore"]), "no row 'base_lore'; did you mean 'base_lora'"),
            (
                ("table2", None, [], ["mrcp"]),
                "no column 'mrcp'; did you mean 'mrpc'? (there are: mnli, sst2, mrpc",
            ),
            (
                ("table3", "minilm"),
                "the base 'minilm' has no recipes for table3: no recipe minilm/e2e",
            ),
        ],
    )
    def test_wrong_names(self, args, said):
        with pytest.raises(RecipeError) as caught:
            load_table(*args)
        assert said in str(caught.value)

    @pytest.mark.parametrize("base", [None, "minilm"])
    def test_columns_without_a_measured_one(self, base):
        with pytest.raises(RecipeError, match="avg"):
            load_table("table2", base, columns=["avg"])

    def test_a_wrong_override_is_said_once(self):
        with pytest.raises(RecipeError) as caught:
            load_table("table2", rows=["lora"], overrides=["train.epoch=3"])
        assert str(caught.value).count("did you mean") == 1
        assert (
            "command line: train.epoch: unknown key (its value is 3); did you mean 'epochs'?"
            in str(caught.value)
        )


class TestWritingOne:
    """A table is read as strictly as a recipe."""

    TEXT = """\
about: Mine
statistic: median
runs:
  mrpc: {recipe: glue_mrpc}
columns:
  mrpc: {title: MRPC, metric: validation/accuracy}
rows:
  ft: {label: FT, params: 1M, method: full, values: [90.2±.3]}
"""

    @pytest.fixture
    def problems(self, tmp_path, monkeypatch):
        (tmp_path / "tables" / "bases").mkdir(parents=True)
        monkeypatch.setattr("lorakit.studies.paper_table.shipped", lambda kind: tmp_path)

        def read(*changes: tuple[str, str]) -> str:
            text = self.TEXT
            for old, new in changes:
                assert old in text
                text = text.replace(old, new)
            (tmp_path / "tables" / "mine.yaml").write_text(text)
            load_paper_table.cache_clear()
            try:
                load_paper_table("mine")
            except RecipeError as error:
                return str(error).replace(f"{tmp_path}/tables/", "")
            finally:
                load_paper_table.cache_clear()
            return ""

        return read

    def test_it_is_one(self, problems):
        assert problems() == ""

    @pytest.mark.parametrize(
        ("changes", "said"),
        [
            (
                [("label: FT", "lable: FT")],
                "mine.yaml:8: rows.ft.lable: unknown key (its value is 'FT'); did you",
            ),
            ([("[90.2±.3]", "[90.2±x]")], "mine.yaml:8: rows.ft.values.0: '90.2±x' should be"),
            ([("[90.2±.3]", "[90.2, 3]")], "mine.yaml:8: rows.ft has 2 values for 1 columns"),
            (
                [("title: MRPC,", "title: MRPC, run: mrcp,")],
                "mine.yaml:6: columns.mrpc has no run 'mrcp'; did you mean",
            ),
            (
                [("statistic: median", "statistic: mode")],
                "mine.yaml:2: statistic: 'mode' is not one of",
            ),
            (
                [("method: full", "method: full, sets: {x: []}")],
                "mine.yaml:8: rows.ft.sets has no run 'x'",
            ),
        ],
    )
    def test_mistakes_have_their_line(self, problems, changes, said):
        assert said in problems(*changes)


@pytest.mark.parametrize(
    ("base", "tables"),
    [
        ("minilm", ["table2"]),
        ("mpnet", ["table2"]),
        ("qwen2_5_7b", ["table4", "table5", "table6", "table8", "table15", "table16"]),
        ("smollm2", ["table3", "table4", "table5", "table6", "table14", "table15", "table18"]),
    ],
)
def test_a_base_stands_in_where_it_has_a_recipe(base, tables):
    assert base in base_names()
    for table in TABLES:
        if table in tables:
            cells = load_table(table, base, seeds=1).plan.cells
            assert {cell.recipe.split("/")[0] for cell in cells} == {load_base(base).folder}
        else:
            with pytest.raises(RecipeError, match=f"'{base}' .* {table}: no recipe"):
                load_table(table, base)


@pytest.mark.parametrize("name", ["mrpc_weights", "gpt3_tasks_weights"])
def test_a_study_of_weights_spends_its_budget(name):
    used = {}
    for cell in load_study(name).cells:
        recipe = cell.loaded.recipe
        base = outline(recipe.model, recipe.task.head.value, recipe.task.labels)
        attachment = recipe.method.attach(base.model, base.roles, base.newly_initialised)
        used[cell.label] = count_of(attachment) / recipe.method.budget  # type: ignore[attr-defined]
    assert len(used) >= 11
    assert 0.97 < max(used.values()) <= 1
    assert min(used.values()) > 0.8, used


def test_nothing_is_compared_in_another_setting():
    found = load_table("table2", rows=["base_lora"], columns=["mrpc"])
    assert found.comparable
    others = ({"changed": ("train.epochs",)}, {"limit": 9}, {"another_base": "a small one"})
    assert not any(replace(found, **other).comparable for other in others)


def test_an_average_has_the_seeds_of_its_weakest_part():
    parts = [
        PaperEntry(printed=None, printed_spread=None, ours=ours, seeds=seeds, wanted=5)
        for ours, seeds in ((80.0, 3), (90.0, 1))
    ]
    entry = PaperEntry(printed=84.0, printed_spread=None)
    found = average(entry, parts, comparable=True)
    assert (found.ours, found.seeds, found.wanted) == (85.0, 1, 5)
    assert found.difference == 1.0
    assert average(entry, [*parts, None], comparable=True).ours is None
