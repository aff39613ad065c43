"""A prompt and the text that should follow it, from one's own files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from pydantic import field_validator, model_validator

from lorakit.errors import DataError
from lorakit.metrics import Tokenize, Weighted
from lorakit.tasks._answers import accepted_texts, score_texts, weigh_texts, written_text
from lorakit.tasks._base import ASSISTANT, Data, Example, Head, Prediction, Turn
from lorakit.tasks._own import Names, OwnFiles
from lorakit.tasks._remarks import Remarks
from lorakit.tasks._template import Spans, columns_of, filled, filled_with_spans, is_column


class Text(OwnFiles):
    """A causal model continues a prompt, or answers in a chat. Equal prompts are one example when scored, with every
    answer accepted."""

    name: Literal["text"] = "text"
    head: ClassVar[Head] = Head.CAUSAL
    prompt: str = "prompt"
    """Column of the prompt; or a template of several, such as `"{question}\n### SQL:"` (`{{` is a brace)."""
    completion: str = "completion"
    """Column of the text to write; or a template, such as `" {answer}"`."""
    messages: str | None = None
    """Column with a chat, a list of {"role": ..., "content": ...}, in place of prompt and completion: written by the
    tokenizer's chat template. The assistant's turns are trained; scored is its last one, asked for with all before."""
    train_on: Literal["all", "last"] = "all"
    """Of a chat: every turn of the assistant, or its last."""
    references: str | None = None
    """Column with the list of accepted texts, in the files that are scored; None: `completion` holds the one."""
    separator: str = ""
    """Added to every prompt."""
    eos: bool = False
    """The end-of-text token stands between prompt and completion, as in the reference code's GPT-2 tasks; a prompt may
    then be empty, and the completion is plain text to pretrain on."""
    metrics: Names = ("exact_match", "bleu")
    tokenize: Tokenize | None = None
    """How bleu, rouge and ter split texts, by the name of sacrebleu's tokenizer: `zh` for Chinese, `char` for other
    scripts without spaces, `intl` for other letters. None: as the official scorers do, for English."""

    @field_validator("prompt", "completion")
    @classmethod
    def _names_columns(cls, value: str) -> str:
        columns_of(value)
        return value

    @model_validator(mode="after")
    def _chat_or_prompt(self) -> Text:
        if self.messages is None:
            if self.train_on == "last":
                raise ValueError("train_on: last is for chats; name their column with messages")
            return self
        beside = ("prompt", "completion", "references", "separator", "eos")
        changed = [
            name for name in beside if getattr(self, name) != type(self).model_fields[name].default
        ]
        if changed:
            raise ValueError(
                f"{changed[0]} has no meaning beside messages: the chat template writes the whole text"
            )
        return self

    def read(self, split: str, data: Data) -> list[Example]:
        if self.messages is not None:
            return self._chats(split, data, self.messages)
        return (
            self._to_learn(split, data)
            if split == self.train_split
            else self._to_score(split, data)
        )

    def _chats(self, split: str, data: Data, column: str) -> list[Example]:
        found, remarks = [], Remarks()
        for index, (where, row) in enumerate(self.own_rows(split, data, [column], ())):
            before, answer = _before_and_answer(
                row[column], f"{where}: column {column!r}", split in self.test_splits
            )
            asked = next((turn.text for turn in reversed(before) if turn.role != ASSISTANT), "")
            accepted = () if answer is None else (answer,)
            if answer is not None and len(row[column]) > len(before) + 1:
                remarks.note(
                    "a chat that goes on after the assistant's last turn; what follows it is left out",
                    where,
                )
            found.append(
                Example(
                    f"{split}-{index}",
                    asked,
                    target=answer,
                    references=accepted,
                    turns=before,
                    last_turn_only=self.train_on == "last",
                    where=where,
                )
            )
        remarks.say(len(found))
        return found

    def _to_learn(self, split: str, data: Data) -> list[Example]:
        examples, remarks = [], Remarks()
        columns = columns_of(self.completion)
        remarks, index = Remarks(), -1
        for index, (where, row) in enumerate(
            self.own_rows(split, data, columns_of(self.prompt), columns)
        ):
            self._remark(remarks, row, where)
            prompt, given = self._prompt(row, where)
            answer, target_given = filled_with_spans(self.completion, row, where)
            self._remark(remarks, row, where)
            if not answer.strip():
                raise DataError(
                    f"{where}: column {columns[0]!r} is empty, so there is nothing to learn"
                )
            examples.append(
                Example(
                    f"{split}-{index}",
                    prompt,
                    target=answer,
                    eos=self.eos,
                    where=where,
                    given=given,
                    target_given=target_given,
                )
            )
        remarks.say(len(examples))
        return examples

    def _remark(self, remarks: Remarks, row: dict[str, Any], where: str) -> None:
        """An empty column of a template may be meant; one that says that it is missing is not."""
        for column in dict.fromkeys((*columns_of(self.prompt), *columns_of(self.completion))):
            if isinstance(value := row.get(column), str) and value.strip():
                remarks.text(value, column, where)

    def _to_score(self, split: str, data: Data) -> list[Example]:
        columns = (self.references,) if self.references else columns_of(self.completion)
        groups: dict[str, tuple[int, str, Spans, list[str]]] = {}
        remarks, index = Remarks(), -1
        for index, (where, row) in enumerate(
            self.own_rows(split, data, columns_of(self.prompt), columns)
        ):
            self._remark(remarks, row, where)
            prompt, given = self._prompt(row, where)
            accepted = groups.setdefault(prompt, (index, where, given, []))[3]
            if all(column in row for column in columns):
                accepted.extend(
                    answer for answer in self._answers(row, where) if answer not in accepted
                )
        remarks.say(index + 1)
        return [
            Example(
                f"{split}-{index}",
                prompt,
                target=accepted[0] if accepted else None,
                references=tuple(accepted),
                eos=self.eos,
                where=where,
                given=given,
            )
            for prompt, (index, where, given, accepted) in groups.items()
        ]

    def _answers(self, row: dict[str, Any], where: str) -> list[str]:
        if self.references is None and not is_column(self.completion):
            found: Any = filled(self.completion, row, where)
        else:
            found = row[self.references or self.completion]
        texts = found if isinstance(found, list) else [found]
        if not texts or not all(isinstance(text, str) and text.strip() for text in texts):
            column = self.references or self.completion
            raise DataError(
                f"{where}: column {column!r} holds {found!r}; give a text, or a list of texts, none empty"
            )
        return texts

    def _prompt(self, row: dict[str, Any], where: str) -> tuple[str, Spans]:
        text, given = filled_with_spans(self.prompt, row, where)
        return text + self.separator, given

    def ask(self, text: str) -> Example:
        if self.messages is not None:
            return Example("prompt", text, turns=(Turn("user", text),))
        if is_column(self.prompt) or len(columns_of(self.prompt)) > 1:
            return Example("prompt", text + self.separator, eos=self.eos)
        text, given = self._prompt({columns_of(self.prompt)[0]: text}, "prompt")
        return Example("prompt", text, eos=self.eos, given=given)

    def to_prediction(self, output: Sequence[float] | str) -> str:
        return written_text(output).strip()

    def to_reference(self, example: Example) -> list[str]:
        return accepted_texts(example)

    def score(
        self, predictions: Sequence[Prediction], references: Sequence[Prediction | list[str]]
    ) -> dict[str, float]:
        return score_texts(self.metrics, predictions, references, self.tokenize)

    def weighted(
        self, predictions: Sequence[Prediction], references: Sequence[Prediction | list[str]]
    ) -> Weighted:
        """`score` where examples count several times, or not at all."""
        return weigh_texts(self.metrics, predictions, references, self.tokenize)


def _before_and_answer(value: Any, where: str, hidden: bool) -> tuple[tuple[Turn, ...], str | None]:
    """The turns before the assistant's last, and that one; what comes after it is nothing to learn. hidden: there may
    be none, and the chat ends with what it is to answer."""
    if not isinstance(value, list) or not value:
        raise DataError(
            f'{where} holds {_short(value)}; give a list of {{"role": ..., "content": ...}}'
        )
    turns = [
        _turn(message, f"{where}, message {number}") for number, message in enumerate(value, 1)
    ]
    last = max((i for i, turn in enumerate(turns) if turn.role == ASSISTANT), default=None)
    if last is None or (hidden and last < len(turns) - 1):
        if hidden:
            return tuple(turns), None
        raise DataError(f"{where}: the assistant says nothing, so there is nothing to learn")
    if last == 0:
        raise DataError(f"{where}: the assistant's only turn is the first, so nothing asks for it")
    return tuple(turns[:last]), turns[last].text


def _turn(message: Any, where: str) -> Turn:
    if not isinstance(message, dict) or not isinstance(message.get("role"), str):
        raise DataError(f'{where}: {_short(message)} is no {{"role": ..., "content": ...}}')
    text = message.get("content")
    if not isinstance(text, str) or not text.strip():
        raise DataError(
            f"{where}: its content is {_short(text)}; only texts that are not empty are read"
        )
    if beside := sorted(
        key for key, value in message.items() if key not in ("role", "content", "name") and value
    ):
        raise DataError(
            f"{where}: {beside[0]!r} is not read, and leaving it out would change the chat; remove it"
        )
    return Turn(message["role"], text)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 60 else f"{text[:60]} ..."


PLUGIN = Text
