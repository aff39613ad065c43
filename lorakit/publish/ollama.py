"""Ollama's Modelfile for a GGUF: the chat template in Ollama's language, and the stop mark."""

from __future__ import annotations

from dataclasses import dataclass

from lorakit.batches.render import TemplateError, render_chat
from lorakit.tokenizer import Tokenizer

ROLES = ("system", "user", "assistant")
MODELFILE = "Modelfile"


@dataclass(frozen=True)
class ChatMarks:
    """A chat template that writes each turn by itself."""

    before: dict[str, str]
    """Role -> what comes before its text."""
    after: dict[str, str]
    start: str
    """Before the first turn."""
    asks: str
    """What asks for an answer."""
    system: str | None
    """The system prompt that the template writes where none is given."""


def modelfile(gguf: str, tokenizer: Tokenizer, stop: str | None) -> tuple[str, str | None]:
    """The text of the Modelfile, and what is missing in it. stop: the mark that ends an answer."""
    lines = [f"FROM ./{gguf}"]
    missing = None
    if not tokenizer.chat_template:
        # otherwise Ollama would put the prompt into a template of its own
        lines.append('TEMPLATE """{{ .Prompt }}"""')
    elif marks := marks_of(tokenizer):
        lines.append(f'TEMPLATE """{_template(marks)}"""')
        if marks.system is not None:
            lines.append(f'SYSTEM """{marks.system}"""')
    else:
        missing = (
            "the chat template does not write turn by turn, so the Modelfile has no TEMPLATE; "
            "Ollama guesses one: compare `ollama show --modelfile` with the template"
        )
    if stop:
        lines.append(f'PARAMETER stop "{stop}"')
    return "\n".join(lines) + "\n", missing


def marks_of(tokenizer: Tokenizer) -> ChatMarks | None:
    """None: the template writes a turn in another way where others come before or after it."""
    try:
        marks = _marks(tokenizer)
    except TemplateError:
        return None
    if marks is None:
        return None
    texts = (*marks.before.values(), *marks.after.values(), marks.asks, marks.system or "")
    # these would be code in the Modelfile
    return None if any("{{" in text or '"""' in text for text in texts) else marks


def _marks(tokenizer: Tokenizer) -> ChatMarks | None:
    words = {role: f"@{role}@" for role in ROLES}
    turns = [{"role": role, "content": words[role]} for role in ROLES]
    text = render_chat(tokenizer, turns, False)
    if any(text.count(word) != 1 for word in words.values()):
        return None
    start, rest = "", text
    if tokenizer.bos_token and text.startswith(tokenizer.bos_token):
        # the tokenizer of the GGUF writes it
        rest = text.removeprefix(tokenizer.bos_token) if _adds_bos(tokenizer) else text
    gaps = []
    for role in ROLES:
        gap, _, rest = rest.partition(words[role])
        gaps.append(gap)
    end = rest
    if not end or not gaps[1].startswith(end) or not gaps[2].startswith(end):
        return None
    before = {"system": gaps[0]}
    before |= {role: gap.removeprefix(end) for role, gap in zip(ROLES[1:], gaps[1:], strict=True)}
    asked = render_chat(tokenizer, turns[:2], True)
    asks = asked.partition(words["user"])[2].removeprefix(end)
    alone = render_chat(tokenizer, turns[1:2], False).partition(words["user"])[0]
    system = _default_system(alone, before, end)
    marks = ChatMarks(before, dict.fromkeys(ROLES, end), start, asks, system)
    return marks if _is_faithful(tokenizer, marks) else None


def _default_system(alone: str, before: dict[str, str], end: str) -> str | None:
    head = alone.removesuffix(before["user"])
    if head.startswith(before["system"]) and head.endswith(end):
        return head.removeprefix(before["system"]).removesuffix(end)
    return None


def _is_faithful(tokenizer: Tokenizer, marks: ChatMarks) -> bool:
    """Whether the marks write a longer chat as the template does."""
    roles = ("system", "user", "assistant", "user")
    turns = [{"role": role, "content": f"text {n}"} for n, role in enumerate(roles)]
    written = [marks.before[t["role"]] + t["content"] + marks.after[t["role"]] for t in turns]
    wanted = render_chat(tokenizer, turns, True)
    if tokenizer.bos_token and _adds_bos(tokenizer):
        wanted = wanted.removeprefix(tokenizer.bos_token)
    return "".join(written) + marks.asks == wanted


def _adds_bos(tokenizer: Tokenizer) -> bool:
    return tokenizer("a")["input_ids"][:1] == [tokenizer.bos_token_id]


def _template(marks: ChatMarks) -> str:
    """In the language of Go's text/template."""
    parts = [
        "{{ if .System }}",
        marks.before["system"] + "{{ .System }}" + marks.after["system"] + "{{ end }}",
        "{{ range .Messages }}",
    ]
    text = "".join(parts)
    for role in ("user", "assistant"):
        turn = marks.before[role] + "{{ .Content }}" + marks.after[role]
        text += f'{{{{ if eq .Role "{role}" }}}}{turn}{{{{ end }}}}'
    return text + "{{ end }}" + marks.asks
