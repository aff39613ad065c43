"""A family says where the roles live; a `Model` says which checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, field_validator

from lorakit.config import Config
from lorakit.errors import ModelError
from lorakit.models._trust import FLAG

if TYPE_CHECKING:
    from lorakit.nn.select import Roles

Paths = str | tuple[str, ...]
NEW = ("pooler",)
"""What checkpoints that were trained as a masked language model often do not hold, of any architecture."""


@dataclass(frozen=True)
class Fused:
    """One weight that holds W_q, W_k and W_v: blocks of rows in `order`, repeated for every one of `groups`."""

    path: str
    order: str = "qkv"
    groups: Literal["one", "heads", "kv_heads"] = "one"


@dataclass(frozen=True)
class Family:
    """roles: role -> end of module path, or a pattern as in `lorakit.nn.select`; `fused` brings query, key and value.

    settings: what the model reads from its configuration although the configuration class does not declare it.
    block_norm: where a block ends in a norm (after the residual sum), the end of that norm's path, or a pattern.
    reads_first: of an encoder whose head reads the first token alone, the ends of two module paths in a layer: its
    attention, and what takes the attention's result.
    may_be_new: modules of the body that a checkpoint may be without; they are then initialised, and trained.
    """

    model_types: tuple[str, ...]
    roles: Mapping[str, Paths] = field(default_factory=dict)
    fused: Fused | None = None
    settings: tuple[str, ...] = ()
    block_norm: str | None = None
    reads_first: tuple[str, str] | None = None
    may_be_new: tuple[str, ...] = NEW

    def places(self, config: Any) -> Roles:
        """The roles for one model; `config` is its transformers configuration, which gives head counts and sizes."""
        from lorakit.nn.select import BLOCK_NORM, Place, fused_rows
        from lorakit.nn.settings import setting

        found = {
            role: [Place(path) for path in ((paths,) if isinstance(paths, str) else paths)]
            for role, paths in self.roles.items()
        }
        if self.fused is not None:
            heads = setting(config, "num_attention_heads")
            kv_heads = setting(config, "num_key_value_heads") or heads
            size = setting(config, "head_dim") or setting(config, "hidden_size") // heads
            groups = {"one": 1, "heads": heads, "kv_heads": kv_heads}[self.fused.groups]
            sizes = {
                "q": heads * size // groups,
                "k": kv_heads * size // groups,
                "v": kv_heads * size // groups,
            }
            for role in ("query", "key", "value"):
                rows = fused_rows(role[0], self.fused.order, sizes, groups)
                found[role] = [Place(self.fused.path, rows)]
        if self.block_norm is not None:
            found[BLOCK_NORM] = [Place(self.block_norm)]
        return found


class Model(Config):
    """The base model of a recipe."""

    name: str
    """Hub id, or a folder; `lorakit:NAME` is a tiny one that ships in the package."""
    id: str | None = Field(default=None, pattern=r"^[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?$")
    """What a folder's weights are called on the hub: the adapter then names that as its base, and not a path of this
    machine. It decides nothing else."""
    revision: str | None = None
    """Branch, tag or commit on the hub; what it resolved to is recorded in the run."""
    dtype: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Of the frozen weights in memory; what is trained is fp32 in any case."""
    quantize: Literal["int8", "nf4"] | None = None
    """Store the frozen linear layers in 8 or 4 bits (bitsandbytes: the extra `quantized`); `dtype` is then what they
    are computed in."""
    config: dict[str, Any] = Field(default_factory=dict)
    """Values of the model's configuration to set, such as `hidden_dropout_prob: 0.0`."""
    shape: dict[str, Any] = Field(default_factory=dict)
    """The checkpoint's configuration as far as it decides shapes. `lorakit check` works from it where the weights are
    not at hand, and a checkpoint that differs from it is refused."""
    new_tokens: tuple[str, ...] = Field(default=(), strict=False)
    """Texts that become a token each. Their rows of the embeddings are trained, and saved with the adapter."""
    chat_template: str | None = None
    """A Jinja file with the template for chats, where the tokenizer has none, or not the one that is wanted. It is
    saved with the adapter."""
    trust_remote_code: bool = False
    """Only `false`: whether Python code that comes with the checkpoint may run is not for a file to say. Give
    `--trust-remote-code` to the command."""

    @field_validator("trust_remote_code", mode="before")
    @classmethod
    def _never_from_a_file(cls, value: Any) -> Any:
        if value is not False:
            raise ModelError(
                "code that comes with a checkpoint is not run because a file or an override says so; leave it out, and "
                f"give {FLAG} to the command if you trust where the checkpoint is from"
            )
        return value
