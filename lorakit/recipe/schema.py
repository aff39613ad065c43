"""What a recipe may say. Small frozen models; a method's, a task's and a model's own part is theirs to define."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, SerializeAsAny, field_validator, model_validator

from lorakit.config import Config
from lorakit.methods import Method
from lorakit.models import Model
from lorakit.tasks import Data, Head, Task

Seed = Annotated[int, Field(ge=0, lt=2**32)]
Beta = Annotated[float, Field(ge=0, lt=1)]


class Checkpoint(Config):
    """When training is saved, so that the same command goes on after a stop. It does not change the run's folder."""

    every_steps: int | None = Field(default=None, gt=0)
    """Optimizer steps between two checkpoints, whatever `minutes` says."""
    minutes: float | None = Field(default=10.0, ge=0, le=1e6)
    """Write one as soon as the last is this old; null: only at `every_steps`, a stop, an evaluation and the end."""
    keep_last: int = Field(default=2, gt=0)
    """Older ones are removed, and all of them when the seed is whole."""


class Train(Config):
    """How the parameters are updated."""

    epochs: float = Field(default=3, gt=0, le=1e9)
    """Passes over the training split; a fraction is allowed."""
    max_steps: int | None = Field(default=None, gt=0)
    """Stop after this many optimizer steps, whatever `epochs` says."""
    global_batch_size: int = Field(default=32, gt=0)
    """Examples per optimizer step, over all processes and accumulation steps together."""
    micro_batch_size: int | None = Field(default=None, gt=0)
    """Examples per forward pass and process; None: all that a process has of the global batch."""
    learning_rate: float = Field(default=5e-4, ge=0)
    weight_decay: float = Field(default=0.0, ge=0)
    """Not applied to biases and layer norms."""
    warmup: float = Field(default=0.06, ge=0)
    """Below 1: share of all steps; 1 or more: number of steps. Linear, from zero."""
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    """What follows the warm-up; linear and cosine end at zero."""
    adam_betas: tuple[Beta, Beta] = Field(default=(0.9, 0.999), strict=False)
    adam_eps: float = Field(default=1e-8, gt=0)
    max_grad_norm: float = Field(default=1.0, ge=0)
    """Gradients are clipped to this norm; 0: not at all."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "fp32"
    """bf16, fp16: autocast; what is trained stays fp32. auto: where the hardware has bf16 (GPUs; CPUs with AMX or
    AVX-512-bf16), frozen weights are kept and computed in bf16, and autocast serves what trains its base; else fp32."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time."""
    compile: Literal["layers"] | None = None
    """layers: torch.compile for every layer of the model, in training. For GPUs that wait for small kernels; on a CPU
    it gains nothing."""
    fast: Literal["auto", "off"] = "auto"
    """auto: the tricks of `lorakit.fast`, each where it is faster; the results differ from off by
    rounding, and dropout draws other numbers. off: transformers' own model, without any of them."""
    group_by_length: bool = True
    """Batches of examples of similar length; the same examples per epoch, in an order that the seed gives."""
    deterministic: bool = False
    """Only operations that give the same bits every time; slower on a GPU."""
    skip_bad_steps: int = Field(default=0, ge=0)
    """Steps in a row whose loss or gradient may be NaN or infinite: they are left out. It does not change the run's
    folder."""
    checkpoint: Checkpoint = Checkpoint()
    """What a stopped run goes on from."""


class Evaluate(Config):
    """When the model is scored, and which of its states is kept."""

    every: float = Field(default=1.0, gt=0)
    """Epochs between two evaluations."""
    every_steps: int | None = Field(default=None, gt=0)
    """Optimizer steps between two evaluations; replaces `every`."""
    batch_size: int = Field(default=64, gt=0)
    """Examples per forward pass and process."""
    keep: Literal["best", "last"] = "best"
    """best: the state with the highest primary metric on the first evaluation split (the paper's protocol for GLUE); of
    equal ones the latest."""
    patience: int | None = Field(default=None, gt=0)
    """Stop after this many evaluations without a better score; an equal one is not better. The log and the result say
    how many steps were not trained."""


class Decode(Config):
    """How a causal model writes its answer."""

    max_new_tokens: int = Field(default=64, gt=0)
    """Tokens at most, the end of text included; an answer that reaches them is counted and reported as cut."""
    beams: int = Field(default=1, gt=0)
    """Width of the beam search; 1: greedy."""
    length_penalty: float = 1.0
    """A finished beam counts sum(log p) / n ** length_penalty, n: generated tokens, the end of text included."""
    no_repeat_ngram: int = Field(default=0, ge=0)
    """No n-gram of this length twice among the generated tokens; the prompt does not count. 0: free."""
    sample: bool = False
    """Draw each token instead of taking the likeliest; the run's seed decides."""
    temperature: float = Field(default=1.0, gt=0)
    top_k: int | None = Field(default=None, gt=0)
    top_p: float | None = Field(default=None, gt=0, le=1)

    @model_validator(mode="after")
    def _one_way(self) -> Decode:
        if self.sample and self.beams > 1:
            raise ValueError(
                f"sample: true draws one text, and beams: {self.beams} searches for the best; leave one out"
            )
        drawn = [
            n
            for n in ("temperature", "top_k", "top_p")
            if getattr(self, n) != type(self).model_fields[n].default
        ]
        if drawn and not self.sample:
            raise ValueError(f"{drawn[0]} has no effect without sample: true")
        return self


class Published(Config):
    """A number that was printed, with its spread as printed."""

    value: float
    spread: float | None = None


class Expect(Config):
    """What this recipe should show. Counts are checked before the first step; scores are reported beside ours."""

    sites: int | None = None
    """Number of weights that get a delta."""
    trainable: int | None = None
    """Parameters that the method trains; the head, which the checkpoint does not hold, is not counted."""
    scores: dict[str, Published] = Field(default_factory=dict)
    """metric -> published value; `split/metric` where a task has several evaluation splits."""
    source: str | None = None
    """Where the published numbers stand."""


class Recipe(Config):
    """A point in methods x tasks x models, with numbers."""

    about: str = ""
    """One line for `lorakit recipes list`."""
    task: SerializeAsAny[Task]
    model: Model
    method: SerializeAsAny[Method]
    data: Data = Data()
    train: Train = Train()
    evaluate: Evaluate = Evaluate()
    decode: Decode = Decode()
    seeds: tuple[Seed, ...] = Field(default=(0,), min_length=1, strict=False)
    """One run each."""
    start_from: str | None = None
    """An adapter to start from: a run, an adapter folder, or the name of a recipe that was run before."""
    expect: Expect = Expect()

    @field_validator("seeds")
    @classmethod
    def _each_once(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if twice := sorted({seed for seed in seeds if seeds.count(seed) > 1}):
            raise ValueError(f"{twice[0]} is given twice, and would be the same run")
        return seeds

    @model_validator(mode="after")
    def _smoothing_has_classes(self) -> Recipe:
        if self.train.label_smoothing and self.task.head is Head.REGRESSION:
            raise ValueError(
                f"train.label_smoothing {self.train.label_smoothing:g}: {self.task.name} is a regression and has no "
                "classes to smooth over; leave it out"
            )
        return self

    @model_validator(mode="after")
    def _packing_is_for_texts(self) -> Recipe:
        if self.data.packing and self.task.head is not Head.CAUSAL:
            raise ValueError(
                f"data.packing is for causal models, and {self.task.name} is a {self.task.head.value}"
            )
        return self

    def plain(self) -> dict[str, Any]:
        """As plain data: what `recipe.yaml` in a run folder holds, and what loads to an equal recipe."""
        return _plain(self)


def _plain(config: BaseModel) -> dict[str, Any]:
    """Without the values that are null, but for those that are not null by default: left out, they would not be."""
    said: dict[str, Any] = {}
    dumped = config.model_dump(mode="json", exclude_none=True)
    for key, field in type(config).model_fields.items():
        value = getattr(config, key)
        if isinstance(value, BaseModel):
            said[key] = _plain(value)
        elif value is not None:
            said[key] = dumped[key]
        elif field.get_default(call_default_factory=True) is not None and not field.is_required():
            said[key] = None
    return said


def json_schema() -> dict[str, Any]:
    """The JSON schema of a recipe file: every method and task that there is, one alternative each."""
    from lorakit.methods import methods
    from lorakit.tasks import tasks

    schema = Recipe.model_json_schema()
    definitions = schema["$defs"]
    for key, registry in (("method", methods), ("task", tasks)):
        alternatives: list[dict[str, Any]] = [{"type": "string"}]
        for name in registry.names():
            part = registry.get(name).model_json_schema()
            definitions.update(part.pop("$defs", {}))
            definitions[f"{key}_{name}"] = part
            alternatives.append({"$ref": f"#/$defs/{key}_{name}"})
        schema["properties"][key] = {
            "anyOf": alternatives,
            "description": f"A {key}, by name, with its own values.",
        }
    schema["properties"]["model"] = {"anyOf": [{"type": "string"}, {"$ref": "#/$defs/Model"}]}
    schema["properties"]["extends"] = {
        "description": "Fragments under configs/ that this recipe stands on; later ones win, the recipe wins over all.",
        "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}],
    }
    schema["required"] = []  # a fragment may bring any of them
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
        "title": "lorakit recipe",
    }
