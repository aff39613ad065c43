"""The quick digest of a base's files."""

import numpy as np
from transformers import AutoConfig

from lorakit.models import Model
from lorakit.runs.inputs import BLOCK, WEIGHTS, base_files, quick_digest


def test_an_exchange_of_two_parts_changes_it(tmp_path):
    """Such as two tokens of a vocabulary, or two labels, that stand a multiple of eight bytes
    apart."""
    file = tmp_path / "vocab.txt"
    file.write_bytes(b"." * 1600 + b"cold 12\nwarm 34\n")
    before = quick_digest(file)
    file.write_bytes(b"." * 1600 + b"warm 12\ncold 34\n")
    assert quick_digest(file) != before


def test_a_changed_bit_changes_it(tmp_path):
    file = tmp_path / "weights"
    data = bytearray(2 * BLOCK + 5)
    file.write_bytes(data)
    whole = quick_digest(file)
    for place in (0, 9, BLOCK, 2 * BLOCK + 4):
        data[place] ^= 0x80
        file.write_bytes(data)
        assert quick_digest(file) != whole
        data[place] ^= 0x80


def test_two_changes_that_cancel_in_the_sums_change_it(tmp_path):
    """A word grows by the weight of another one, and that one shrinks by the first's weight."""
    words = np.full(2 * BLOCK // 8, 2**40, dtype="<u8")
    file = tmp_path / "weights"
    file.write_bytes(words.tobytes())
    before = quick_digest(file)
    words[:1] += WEIGHTS[1]
    words[1:2] -= WEIGHTS[0]
    file.write_bytes(words.tobytes())
    assert quick_digest(file) != before


def test_the_template_and_the_adapter_to_start_from_are_inputs(tmp_path):
    base, start = tmp_path / "base", tmp_path / "start"
    start.mkdir()
    AutoConfig.for_model("gpt2").save_pretrained(base)
    (base / "chat_template.jinja").write_text("{{ messages }}")
    (start / "adapter_model.safetensors").write_bytes(b"1")
    before = base_files(Model(name=str(base)), start)
    assert {"config.json", "chat_template.jinja"} < set(before)
    (start / "adapter_model.safetensors").write_bytes(b"2")
    after = base_files(Model(name=str(base)), start)
    changed = {name for name in after if after[name] != before[name]}
    assert changed == {"start_from: adapter_model.safetensors"}


def test_each_template_that_a_chat_may_use_is_an_input(tokenizer, tmp_path):
    AutoConfig.for_model("gpt2").save_pretrained(tmp_path)
    made = tokenizer()
    made.chat_template = dict.fromkeys(("default", "tool_use"), "{{ messages }}")
    made.save_pretrained(tmp_path)
    spec = Model(name=str(tmp_path))
    before = base_files(spec)
    template = tmp_path / "additional_chat_templates" / "tool_use.jinja"
    template.write_text("{{ messages[0] }}")
    after = base_files(spec)
    assert {name for name in after if after[name] != before[name]} == {
        "additional_chat_templates/tool_use.jinja"
    }
