"""SAMSum (Gliwa et al. 2019, arXiv 1911.12237): a chat becomes a summary, as the LoRA paper gives it to GPT-3.

The prompt is the utterances, one per line, and a blank line; the summary follows without a space before it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Literal, NamedTuple

from pydantic import BaseModel, Field

from lorakit.errors import DataError
from lorakit.metrics import Tokenize, Weighted, facts_of
from lorakit.tasks._answers import accepted_texts, score_texts, weigh_texts, written_text
from lorakit.tasks._base import Data, Example, Head, Prediction, Task
from lorakit.tasks._files import limit_of, rows
from lorakit.tasks._sources import hub_table, official_file, read_json, shaped

log = logging.getLogger(__name__)

HUB = "knkarthick/samsum"
JSON = {"train": "train.json", "validation": "val.json", "test": "test.json"}
NAMED_CSV = {split: f"samsum-{split}.csv" for split in JSON}
CSV = {split: f"{split}.csv" for split in JSON}
GET_IT = "The .json files: corpus.7z of https://arxiv.org/abs/1911.12237. The .csv files: the hub's knkarthick/samsum"

BLANK_LINE = "\n\n"
COLUMNS = ("id", "dialogue", "summary")


class _Entry(BaseModel):
    """Of the JSON files, and of the hub, where a table of numbers has numbers as ids and no dialogue is null."""

    id: str | int
    dialogue: str | None
    summary: str


class Chat(NamedTuple):
    """A row with what is read of it: no "\\r", no white space around it."""

    where: str
    id: str
    dialogue: str
    summary: str


class Samsum(Task):
    """A chat to its summary, scored by ROUGE. ROUGE-1 selects the best epoch; the paper reports it first."""

    name: Literal["samsum"] = "samsum"
    head: ClassVar[Head] = Head.CAUSAL
    rows: ClassVar[dict[str, int]] = {"train": 14732, "validation": 818, "test": 819}
    max_dialogue_chars: int | None = Field(default=None, ge=1)
    """For models with few positions. A longer dialogue is left out of the training split; where it is scored, its first
    utterances of so many characters are given instead. Both are counted in the log. None: whole dialogues."""

    tokenize: Tokenize | None = None
    """How rouge splits texts, by the name of sacrebleu's tokenizer: `zh` for Chinese, `char` for other
    scripts without spaces, `intl` for other letters. None: as the official scorers do, for English."""

    @property
    def eval_splits(self) -> tuple[str, ...]:
        return ("validation",)

    @property
    def final_splits(self) -> tuple[str, ...]:
        return ("test",)

    @property
    def primary(self) -> str:
        return "rouge1"

    @property
    def protocol(self) -> str:
        other = (
            f"; tokens are those of sacrebleu's {self.tokenize}, lower-cased, no stemmer"
            if self.tokenize
            else ""
        )
        return facts_of("rouge").protocol + other

    def expected_rows(self) -> Mapping[str, int]:
        """Examples: one row of train has no dialogue."""
        return self.rows | {"train": self.rows["train"] - 1}

    def read(self, split: str, data: Data) -> list[Example]:
        """Ids are the data set's own, texts such as `13818513` and `13731370-1`."""
        limit = limit_of(data.limit, split, tuple(self.rows))
        where, entries = (
            self._hub(split, data.revision) if data.path is None else _official(split, data.path)
        )
        chats = list(_chats(entries))
        if len(chats) != self.rows[split]:
            log.warning(
                "%s: %d rows; the official %s split has %d",
                where,
                len(chats),
                split,
                self.rows[split],
            )
        _refuse_equal_ids(chats)
        if split == self.train_split:
            return [
                Example(chat.id, chat.dialogue + BLANK_LINE, target=chat.summary)
                for chat in self._to_learn(where, chats)
            ][:limit]
        return [
            Example(chat.id, dialogue + BLANK_LINE, target=chat.summary, references=(chat.summary,))
            for chat, dialogue in self._to_score(where, chats)
        ][:limit]

    def _to_learn(self, where: str, chats: Sequence[Chat]) -> list[Chat]:
        spoken = [chat for chat in chats if chat.dialogue]
        if len(spoken) < len(chats):
            empty = next(chat for chat in chats if not chat.dialogue)
            log.info(
                "%s: %d without a dialogue left out (id %s)",
                where,
                len(chats) - len(spoken),
                empty.id,
            )
        kept = [chat for chat in spoken if not self._too_long(chat)]
        if len(kept) < len(spoken):
            most = self.max_dialogue_chars
            log.info(
                "%s: %d dialogues of more than %s characters left out",
                where,
                len(spoken) - len(kept),
                most,
            )
        return kept

    def _to_score(self, where: str, chats: Sequence[Chat]) -> Iterator[tuple[Chat, str]]:
        cut = sum(map(self._too_long, chats))
        if cut:
            log.warning(
                "%s: %d of %d dialogues are longer than %s characters; the model sees their first utterances",
                where,
                cut,
                len(chats),
                self.max_dialogue_chars,
            )
        for chat in chats:
            yield chat, self._beginning(chat.dialogue) if self._too_long(chat) else chat.dialogue

    def _too_long(self, chat: Chat) -> bool:
        return self.max_dialogue_chars is not None and len(chat.dialogue) > self.max_dialogue_chars

    def _beginning(self, dialogue: str) -> str:
        """Whole utterances, or of the first one what fits."""
        fits = dialogue[: self.max_dialogue_chars]
        whole = fits if dialogue[len(fits)] == "\n" else fits.rpartition("\n")[0]
        return (whole or fits).strip()

    @staticmethod
    def _hub(split: str, revision: str | None) -> tuple[str, Iterator[tuple[str, _Entry]]]:
        where = f"{HUB}, {split}"
        table = hub_table(HUB, None, split, revision, f"Give data.path=FOLDER. {GET_IT}")
        return where, (
            (w := f"{where} row {i}", shaped(_Entry, dict(row), w)) for i, row in enumerate(table)
        )

    def ask(self, text: str) -> Example:
        """A dialogue, its utterances in lines."""
        return Example("prompt", _clean(text) + BLANK_LINE)

    def to_prediction(self, output: Sequence[float] | str) -> str:
        """The whole text, which may have several lines, without white space around it."""
        return _clean(written_text(output))

    def to_reference(self, example: Example) -> list[str]:
        return accepted_texts(example)

    def score(
        self, predictions: Sequence[Prediction], references: Sequence[Prediction | list[str]]
    ) -> dict[str, float]:
        """ROUGE in percent. A reference is a text, or a list of accepted ones."""
        return score_texts(("rouge",), predictions, references, self.tokenize)

    def weighted(
        self, predictions: Sequence[Prediction], references: Sequence[Prediction | list[str]]
    ) -> Weighted:
        """`score` where examples count several times, or not at all."""
        return weigh_texts(("rouge",), predictions, references, self.tokenize)


def _official(split: str, path: str) -> tuple[str, Iterable[tuple[str, _Entry]]]:
    """The file, and (where, entry) of each row."""
    file = official_file(path, split, ("", "samsum"), (JSON, NAMED_CSV, CSV), GET_IT)
    if file.suffix == ".csv":
        return str(file), _csv(file)
    entries = shaped(list[_Entry], read_json(file), str(file))
    return str(file), ((f"{file}: [{i}]", entry) for i, entry in enumerate(entries))


def _csv(file: Path) -> Iterator[tuple[str, _Entry]]:
    for line, row in rows(file, COLUMNS):
        yield f"{file}:{line}", _Entry(**row)


def _chats(entries: Iterable[tuple[str, _Entry]]) -> Iterator[Chat]:
    for where, entry in entries:
        summary = _clean(entry.summary)
        if not summary:
            raise DataError(f"{where}: id {entry.id}: the summary is empty")
        yield Chat(where, str(entry.id), _clean(entry.dialogue or ""), summary)


def _refuse_equal_ids(chats: Sequence[Chat]) -> None:
    first: dict[str, str] = {}
    for chat in chats:
        if chat.id in first:
            raise DataError(
                f"{chat.where}: id {chat.id!r} stands at {first[chat.id]} too; predictions are kept by id"
            )
        first[chat.id] = chat.where


def _clean(text: str) -> str:
    """The files end lines with "\\r\\n" in most rows and with "\\n" in the rest."""
    return text.replace("\r", "").strip()


PLUGIN = Samsum
