"""WikiSQL (Zhong et al. 2017, arXiv 1709.00103): a question and the column names of a table become a query.

The LoRA paper trains on it and does not print how it writes queries; the guide to text to SQL says how this does.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, NamedTuple

from lorakit.errors import DataError
from lorakit.metrics import Means, Weighted, joined
from lorakit.metrics._wikisql import PROTOCOL, Query, Table, logical_form, same_form, same_result
from lorakit.tasks._answers import accepted_texts, written_text
from lorakit.tasks._base import Data, Example, Head, Prediction, Task
from lorakit.tasks._files import limit_of
from lorakit.tasks._generation import END_OF_TEXT
from lorakit.tasks._sql import parse, placed, quoted, spelled, written
from lorakit.tasks._wikisql import NAMES, Question, Sheet, query_of, read, sheets

log = logging.getLogger(__name__)

MARK = " -- "


class WikiSql(Task):
    """A causal model writes SQL to a question.

    A reference is the gold query, then after `--` the table: its id, its column names, and where its rows are.
    """

    name: Literal["wikisql"] = "wikisql"
    head: ClassVar[Head] = Head.CAUSAL

    @property
    def eval_splits(self) -> tuple[str, ...]:
        return ("validation",)

    @property
    def final_splits(self) -> tuple[str, ...]:
        return ("test",)

    @property
    def primary(self) -> str:
        return "logical_form_accuracy"

    @property
    def stops(self) -> tuple[str, ...]:
        return ("\n",)

    @property
    def protocol(self) -> str:
        return PROTOCOL

    def expected_rows(self) -> Mapping[str, int]:
        return {"train": 56_355, "validation": 8_421, "test": 15_878}

    def read(self, split: str, data: Data) -> list[Example]:
        """Ids are `<split>-<number of the row>`."""
        limit = limit_of(data.limit, split, tuple(NAMES))
        questions, tables = read(split, data.path, data.revision)
        source = (
            {}
            if split == self.train_split
            else {"path": data.path, "revision": data.revision, "split": split}
        )
        found = [
            _example(f"{split}-{i}", question, tables, source)
            for i, question in enumerate(questions)
        ]
        return found[:limit]

    def to_prediction(self, output: Sequence[float] | str | Mapping[str, Any]) -> str:
        """The query that stands in the first line of a text, written as the targets are; the line where it is none.

        Also a line of the official format for predictions, `{"query": {"sel", "agg", "conds"}}` or `{"error": ...}`.
        """
        if isinstance(output, Mapping):
            return _official(output)
        line = written_text(output).split(END_OF_TEXT)[0].strip().split("\n")[0].strip()
        query = parse(line)
        return line if query is None else written(query)

    def to_reference(self, example: Example) -> list[str]:
        return accepted_texts(example)

    def score(
        self, predictions: Sequence[Prediction], references: Sequence[Prediction | list[str]]
    ) -> dict[str, float]:
        """In percent. execution_accuracy: on the tables that come with rows, and not at all where none does.

        unparsable: the share of predictions that are no query of their table, by their form or by a column's name.
        """
        gold, said = _read(predictions, references)
        scores = logical_form(said, [one.query for one in gold])
        executed = _executed(said, gold)
        scores |= {"execution_accuracy": sum(executed.values()) / len(executed)} if executed else {}
        scores["unparsable"] = said.count(None) / len(said)
        return {key: 100.0 * value for key, value in scores.items()}

    def weighted(
        self, predictions: Sequence[Prediction], references: Sequence[Prediction | list[str]]
    ) -> Weighted:
        """`score` where examples count several times, or not at all; execution only where all tables have rows."""
        gold, said = _read(predictions, references)
        each = {
            "logical_form_accuracy": same_form(said, [one.query for one in gold]),
            "unparsable": [query is None for query in said],
        }
        if len(executed := _executed(said, gold)) == len(gold):
            each["execution_accuracy"] = list(executed.values())
        return joined((Means(each).weigh(), 100.0))


class _Gold(NamedTuple):
    query: Query
    table: str
    header: list[str | None]
    source: dict[str, Any] | None
    """What `sheets` needs to find the rows; None where there are none."""


def _example(
    id: str, question: Question, tables: Mapping[str, Sheet], source: dict[str, Any]
) -> Example:
    sheet = tables.get(question.table)
    if sheet is None:
        raise DataError(
            f"{question.where}: no table {question.table!r}; are questions and tables of one split?"
        )
    text = " ".join(question.text.split())
    if not text:
        raise DataError(f"{question.where}: an empty question")
    columns = [
        int(at) for at in (question.query.column, *(c[0] for c in question.query.conditions))
    ]
    if max(columns) >= len(sheet.header):
        raise DataError(
            f"{question.where}: column {max(columns)} of table {question.table}, which has "
            f"{len(sheet.header)}"
        )
    names = ", ".join(
        f"col{i}" + (f" {quoted(name, chr(34))}" if name else "")
        for i, name in enumerate(sheet.header)
    )
    sql = written(spelled(question.query, sheet.header))
    about = {"table": question.table, "columns": sheet.header} | (
        {"rows": source} if sheet.content and source else {}
    )
    references = (sql + MARK + json.dumps(about, ensure_ascii=False),) if source else ()
    return Example(
        id, f"table: {names}\nquestion: {text}\nSQL:", target=f" {sql}", references=references
    )


def _official(line: Mapping[str, Any]) -> str:
    try:
        if not line.get("error"):
            return written(query_of(line.get("query"), "prediction"))
    except DataError:
        pass
    return json.dumps(
        {key: line[key] for key in ("query", "error") if key in line}, ensure_ascii=False
    )


def _query(text: Prediction, header: Sequence[str | None]) -> Query | None:
    query = parse(written_text(text))
    return None if query is None else placed(query, header)


def _gold(accepted: Prediction | list[str], number: int) -> _Gold:
    texts = [accepted] if isinstance(accepted, str) else accepted
    try:
        (text,) = texts  # type: ignore[misc]
        start = text.rindex(MARK + '{"table": ')
        about = json.loads(text[start + len(MARK) :])
        query = _query(text[:start], about["columns"])
        if query is None:
            raise ValueError("no query of its table")
        return _Gold(query, about["table"], about["columns"], about.get("rows"))
    except (TypeError, ValueError, LookupError, AttributeError) as error:
        raise DataError(
            f"reference {number}: {accepted!r:.200} ({error}); give one query, then -- and its table, as "
            "predictions/SPLIT.jsonl of a run has it"
        ) from None


def _read(
    predictions: Sequence[Prediction], references: Sequence[Prediction | list[str]]
) -> tuple[list[_Gold], list[Query | None]]:
    gold = [_gold(accepted, i) for i, accepted in enumerate(references)]
    said = [_query(text, one.header) for text, one in zip(predictions, gold, strict=False)]
    return gold, said + [None] * (len(predictions) - len(said))  # which `logical_form` refuses


def _executed(said: Sequence[Query | None], gold: Sequence[_Gold]) -> dict[int, bool]:
    """Number of the example -> whether the query gives what the gold one gives, where the table has rows."""
    tables: dict[str, Table] = {}
    for source in {json.dumps(one.source): one.source for one in gold if one.source}.values():
        tables |= _contents(source)
    at = [i for i, one in enumerate(gold) if one.table in tables]
    if not at:
        log.info("no table has rows, so execution accuracy is left out")
        return {}
    if len(at) < len(gold):
        log.warning(
            "execution accuracy is of the %d examples of %d whose table has rows",
            len(at),
            len(gold),
        )
    found = same_result(
        [said[i] for i in at], [gold[i].query for i in at], [gold[i].table for i in at], tables
    )
    return dict(zip(at, found, strict=True))


def _contents(source: Mapping[str, Any]) -> dict[str, Table]:
    try:
        found = sheets(source["split"], source["path"], source["revision"])
    except (DataError, LookupError) as error:
        log.warning("the tables' rows are not where the references say: %s", error)
        return {}
    return {name: sheet.content for name, sheet in found.items() if sheet.content}


PLUGIN = WikiSql
