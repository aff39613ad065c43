"""Text generation from a user's own files: a prompt and the text that follows it, or a chat."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from pydantic import field_validator, model_validator

from lorakit.errors import DataError
from lorakit.metrics import Compared, Tokenize
from lorakit.tasks._base import ASSISTANT, Data, Example, Head, Turn
from lorakit.tasks._chat_rows import turns_and_answer
from lorakit.tasks._own_files import Names, OwnFiles
from lorakit.tasks._remarks import Remarks
from lorakit.tasks._template import Spans, columns_of, filled, is_column

PROMPT_FIELDS = ("prompt", "completion", "references", "separator", "eos")
"""Fields that do not apply to chats: the chat template writes the complete text."""


@dataclass
class _PromptGroup:
    """The rows with the same prompt. index, where: those of the first."""

    index: int
    where: str
    given: Spans
    accepted: list[str] = field(default_factory=list)


class Text(OwnFiles):
    """The model continues a prompt, or answers in a chat. In evaluation, rows with equal
    prompts are one example, and all of their answers are accepted."""

    name: Literal["text"] = "text"
    head: ClassVar[Head] = Head.CAUSAL
    compares: ClassVar[Compared] = "texts"
    prompt: str = "prompt"
    """Column of the prompt, or a template of columns such as `"{question}\\n### SQL:"` (`{{` is a
    literal brace)."""
    completion: str = "completion"
    """Column of the text to write, or a template such as `" {answer}"`."""
    messages: str | None = None
    """Column with a chat, a list of {"role": ..., "content": ...}, instead of prompt and
    completion. The tokenizer's chat template writes it. The assistant's turns are trained; its last
    turn is scored, given all turns before it."""
    train_on: Literal["all", "last"] = "all"
    """Turns of the assistant that are trained: all of them, or the last one."""
    references: str | None = None
    """Column with the list of accepted texts, in the files that are scored; None: `completion` is
    the only accepted text."""
    separator: str = ""
    """Text that is added to every prompt."""
    eos: bool = False
    """Put an end-of-text token between prompt and completion, as the reference code's GPT-2 tasks
    do. The prompt may then be empty, and the completion is plain text to pretrain on."""
    metrics: Names = ("exact_match", "bleu")
    """Names of metrics that compare texts."""
    tokenize: Tokenize | None = None
    """How bleu, rouge and ter split texts, by the name of sacrebleu's tokenizer: `zh` for Chinese,
    `char` for other scripts without spaces, `intl` for other letters. None: as the official scorers
    do, for English."""

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
        defaults = type(self).model_fields
        for name in PROMPT_FIELDS:
            if getattr(self, name) != defaults[name].default:
                raise ValueError(
                    f"{name} does not apply together with messages: "
                    "the chat template writes the complete text"
                )
        return self

    def read(self, split: str, data: Data) -> list[Example]:
        if self.messages is not None:
            return self._chats(split, data, self.messages)
        if split == self.train_split:
            return self._to_learn(split, data)
        return self._to_score(split, data)

    def _chats(self, split: str, data: Data, column: str) -> list[Example]:
        hidden = split in self.test_splits
        examples = []
        remarks = Remarks()
        for index, (where, row) in enumerate(self.own_rows(split, data, [column], ())):
            turns, answer = turns_and_answer(row[column], f"{where}: column {column!r}", hidden)
            if answer is not None and len(row[column]) > len(turns) + 1:
                what = "turns after the assistant's last one, which are left out"
                remarks.add(what, where)
            examples.append(
                Example(
                    f"{split}-{index}",
                    next((turn.text for turn in reversed(turns) if turn.role != ASSISTANT), ""),
                    target=answer,
                    references=() if answer is None else (answer,),
                    turns=turns,
                    last_turn_only=self.train_on == "last",
                    where=where,
                )
            )
        remarks.warn(len(examples))
        return examples

    def _to_learn(self, split: str, data: Data) -> list[Example]:
        examples = []
        remarks = Remarks()
        columns = columns_of(self.completion)
        found = self.own_rows(split, data, columns_of(self.prompt), columns)
        for index, (where, row) in enumerate(found):
            self._remark(remarks, row, where)
            prompt, given = self._prompt(row, where)
            answer, target_given = filled(self.completion, row, where)
            if not answer.strip():  # only an end token would be trained
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
        remarks.warn(len(examples))
        return examples

    def _remark(self, remarks: Remarks, row: dict[str, Any], where: str) -> None:
        """An empty column of a template may be intended; the word for a missing value is not."""
        for column in dict.fromkeys((*columns_of(self.prompt), *columns_of(self.completion))):
            value = row.get(column)
            if isinstance(value, str) and value.strip():
                remarks.add_text(value, column, where)

    def _to_score(self, split: str, data: Data) -> list[Example]:
        columns = (self.references,) if self.references else columns_of(self.completion)
        groups: dict[str, _PromptGroup] = {}
        remarks = Remarks()
        count = 0
        found = self.own_rows(split, data, columns_of(self.prompt), columns)
        for index, (where, row) in enumerate(found):
            count += 1
            self._remark(remarks, row, where)
            prompt, given = self._prompt(row, where)
            accepted = groups.setdefault(prompt, _PromptGroup(index, where, given)).accepted
            if all(column in row for column in columns):  # otherwise the answers are hidden
                answers = self._answers(row, where)
                accepted.extend(answer for answer in answers if answer not in accepted)
        remarks.warn(count)
        return [
            Example(
                f"{split}-{group.index}",
                prompt,
                target=group.accepted[0] if group.accepted else None,
                references=tuple(group.accepted),
                eos=self.eos,
                where=group.where,
                given=group.given,
            )
            for prompt, group in groups.items()
        ]

    def _answers(self, row: dict[str, Any], where: str) -> list[str]:
        column = self.references or self.completion
        if self.references is None and not is_column(column):
            found = filled(column, row, where)[0]
        else:
            found = row[column]
        texts = found if isinstance(found, list) else [found]
        if not texts or not all(isinstance(text, str) and text.strip() for text in texts):
            raise DataError(
                f"{where}: column {column!r} holds {found!r}; "
                "give a text, or a list of texts, none of them empty"
            )
        return texts

    def _prompt(self, row: dict[str, Any], where: str) -> tuple[str, Spans]:
        text, given = filled(self.prompt, row, where)
        return text + self.separator, given

    def ask(self, text: str) -> Example:
        """A chat with one question; or a prompt, in the template if it has a single column."""
        if self.messages is not None:
            return Example("prompt", text, turns=(Turn("user", text),))
        first, *others = columns_of(self.prompt)
        if is_column(self.prompt) or others:
            return Example("prompt", text + self.separator, eos=self.eos)
        prompt, given = self._prompt({first: text}, "prompt")
        return Example("prompt", prompt, eos=self.eos, given=given)


PLUGIN = Text
