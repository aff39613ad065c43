"""Where a task's examples meet a tokenizer: token ids, what is trained of them, and padded or packed tensors.

Training and evaluation both stand on this, so an example is read the same way in both.
"""

from lorakit.batches.chat import end_of_turn
from lorakit.batches.encode import IGNORE, Encoded, encode, encode_prompts
from lorakit.batches.marks import refuse_no_padding
from lorakit.batches.once import encode_once
from lorakit.batches.positions import refuse_too_long
from lorakit.batches.tensors import collate, pack, sent

__all__ = [
    "IGNORE",
    "Encoded",
    "collate",
    "encode",
    "encode_once",
    "encode_prompts",
    "end_of_turn",
    "pack",
    "refuse_no_padding",
    "refuse_too_long",
    "sent",
]
