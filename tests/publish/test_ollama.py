"""The Modelfile of a chat: it writes what the chat template writes, or says that it cannot."""

from __future__ import annotations

from typing import Any

import pytest
from tokenizers.processors import TemplateProcessing

from lorakit.publish.ollama import marks_of, modelfile

TURNS = "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}</>{% endfor %}"
ASK = "{% if add_generation_prompt %}<assistant>{% endif %}"
NO_SYSTEM = "{% if messages[0]['role'] != 'system' %}"
KIND = f"{NO_SYSTEM}<system>Be kind.</>{{% endif %}}"


@pytest.fixture
def chat(tokenizer):
    """`chat(template, adds_bos)`: a tokenizer with a chat template."""

    def chat(template: str, adds_bos: bool = False) -> Any:
        made = tokenizer()
        made.chat_template = template
        if adds_bos:
            first = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 2)])
            made.backend_tokenizer.post_processor = first
        return made

    return chat


@pytest.mark.parametrize("start", ["", "<s>"])
@pytest.mark.parametrize("adds_bos", [False, True])
def test_the_default_system_prompt(chat, start, adds_bos):
    found = chat(start + KIND + TURNS + ASK, adds_bos)
    marks = marks_of(found)
    assert marks is not None
    assert marks.system == "Be kind."
    assert marks.start == ("" if adds_bos else start)
    text, lacks = modelfile("m.gguf", found, None)
    assert 'SYSTEM """Be kind."""' in text
    assert lacks is None


def test_a_bos_is_written_without_a_system_prompt_too(chat):
    text, lacks = modelfile("m.gguf", chat("<s>" + TURNS + ASK), None)
    assert 'TEMPLATE """<s>{{ if .System }}<system>{{ .System }}</>{{ end }}' in text
    assert lacks is None


@pytest.mark.parametrize(
    "template",
    [
        f"{NO_SYSTEM}NOSYS {{% endif %}}{TURNS}",
        f"{{% if messages[0]['role'] == 'system' %}}<s>{{% endif %}}{TURNS}",
    ],
)
def test_what_is_written_where_there_is_no_system_prompt_counts(chat, template):
    found = chat(template + ASK)
    assert marks_of(found) is None
    _, lacks = modelfile("m.gguf", found, None)
    assert lacks
