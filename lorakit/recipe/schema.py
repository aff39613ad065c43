"""Recipe: the schema of a recipe file, as small frozen models.

A method, a task and a model define their own sections.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import (
    BaseModel,
    BeforeValidator,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    SerializeAsAny,
    field_serializer,
    field_validator,
    model_validator,
)

from lorakit.config import Config
from lorakit.errors import RecipeError
from lorakit.methods import Method, methods
from lorakit.metrics import LIKELIHOOD_KEYS
from lorakit.models import Model
from lorakit.optimizers import Optimizer, optimizers
from lorakit.registry import Registry
from lorakit.tasks import LABELLED, Data, Head, Task, tasks
from lorakit.trackers import trackers

Seed = Annotated[int, Field(ge=0, lt=2**32)]
BALANCED: Literal["balanced"] = "balanced"
BelowOne = Annotated[float, Field(ge=0, lt=1)]


class Checkpoint(Config):
    """When a checkpoint is written, from which the same command resumes. It does not change the run
    folder."""

    every_steps: PositiveInt | None = None
    """Optimizer steps between two checkpoints, whatever `minutes` says."""
    minutes: float | None = Field(default=10.0, ge=0, le=1e6)
    """Age in minutes of the last checkpoint at which the next is written. null: only at
    `every_steps`, a stop, an evaluation and the end."""
    keep_last: PositiveInt = 2
    """Number of checkpoints to keep. All are removed when the seed is finished."""


# an instance, so that it equals a value of `optimizer`, and a recipe without it has the same hash
_ADAMW = optimizers.get("adamw").model_validate({"name": "adamw"})


def _optimizer_schema(schema: dict[str, Any]) -> None:
    """A name, or a mapping with one of the registered classes' fields."""
    about = {key: schema[key] for key in ("description", "default") if key in schema}
    kinds = [optimizers.get(name).model_json_schema() for name in optimizers.names()]
    schema.clear()
    schema |= {**about, "anyOf": [{"enum": optimizers.names()}, *kinds]}


class Train(Config):
    """How the parameters are updated."""

    epochs: float = Field(default=3, gt=0, le=1e9)
    """Passes over the training split; a fraction is allowed."""
    max_steps: PositiveInt | None = None
    """Stop after this many optimizer steps, whatever `epochs` says."""
    global_batch_size: PositiveInt = 32
    """Examples per optimizer step, over all processes and accumulation steps together."""
    micro_batch_size: PositiveInt | None = None
    """Examples per forward pass and process. null: all examples that a process has of the global
    batch."""
    learning_rate: NonNegativeFloat = 5e-4
    weight_decay: NonNegativeFloat = 0.0
    """Not applied to biases and layer norms."""
    warmup: NonNegativeFloat = 0.06
    """Below 1: share of all steps; 1 or more: number of steps. Linear, from zero."""
    schedule: Literal["linear", "cosine", "constant", "wsd", "polynomial"] = "linear"
    """What follows the warm-up. wsd: the full rate, then a decay by half a cosine (warm-up, stable,
    decay). All but constant end at `min_rate`."""
    min_rate: float = Field(default=0.0, ge=0, lt=1)
    """The last learning rate, as a share of `learning_rate`."""
    restarts: PositiveInt = 1
    """With cosine: how many times the rate falls from its peak; after each fall but the last it
    starts again at the peak."""
    decay: float = Field(default=0.1, gt=0, le=1)
    """With wsd: share of all steps in which the rate falls, the last ones."""
    power: float = Field(default=1.0, gt=0, le=100)
    """With polynomial: the rate falls as (1 - share done) ^ power."""
    optimizer: SerializeAsAny[Optimizer] = Field(
        default=_ADAMW, json_schema_extra=_optimizer_schema
    )
    """The rule that moves parameters: a name, or a mapping with the name and its options (see docs:
    training)."""
    adam_betas: tuple[BelowOne, BelowOne] = Field(default=(0.9, 0.999), strict=False)
    """Of AdamW and of the optimizers that are made from it; so is `adam_eps`."""
    adam_eps: PositiveFloat = 1e-8
    max_grad_norm: NonNegativeFloat = 1.0
    """Gradients are clipped to this norm; 0: they are not clipped."""
    label_smoothing: BelowOne = 0.0
    class_weights: Literal["balanced"] | dict[str, PositiveFloat] | None = None
    """How much an example of each label counts in the loss. balanced: inversely to how often the
    label occurs, with a mean of 1 (scikit-learn's rule); or {label: weight}, where labels that are
    not named have 1. null: all count the same."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "fp32"
    """bf16, fp16: autocast; trained parameters stay fp32. auto: where the hardware has bf16 (GPUs,
    and CPUs with AMX or AVX-512-bf16), frozen weights are stored and computed in bf16, and methods
    that train the base use autocast; fp32 elsewhere."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time."""
    compile: Literal["layers"] | None = None
    """layers: torch.compile for every layer of the model, in training. It helps GPUs that wait for
    small kernels; on a CPU it gains nothing."""
    fast: Literal["auto", "off"] = "auto"
    """auto: train with the speed tricks of `lorakit.fast`, each where it is faster. off: without
    any of them; the losses are the same within rounding, and dropout draws other numbers."""
    group_by_length: bool = True
    """Batches of examples of similar length. Every epoch has all examples, in an order that the
    seed decides."""
    deterministic: bool = False
    """Only operations that give the same bits every time. Slower on a GPU."""
    neftune_alpha: PositiveFloat | None = None
    """Noise on the embeddings in training, uniform in +-alpha / sqrt(tokens * width) (NEFTune, Jain
    et al. 2023, arXiv 2310.05914, who take 5 to 15). null: none."""
    ema: BelowOne | None = None
    """What is scored and saved is a moving average of what trains: after each step it is ema *
    average + (1 - ema) * parameters. null: the parameters themselves."""
    save_every: PositiveInt | None = None
    """Optimizer steps between two adapters that stay, in seedN/adapters/step-NNNNNN. It does not
    change the run folder. null: only the final one is written."""
    skip_bad_steps: NonNegativeInt = 0
    """Number of consecutive steps whose loss or gradient may be NaN or infinite; they are skipped.
    It does not change the run folder."""
    checkpoint: Checkpoint = Checkpoint()
    """What a stopped run resumes from."""

    @field_validator("optimizer", mode="before")
    @classmethod
    def _by_name(cls, value: Any) -> Any:
        section = named(value)
        if isinstance(section, dict):
            return plugin_class(optimizers, section).model_validate(section)
        return value

    @field_serializer("optimizer")
    def _short_optimizer(self, value: Optimizer) -> Any:
        options = value.model_dump(mode="json", exclude_defaults=True)
        return {"name": value.name, **options} if options else value.name

    @property
    def average(self) -> Literal["ema", "optimizer"] | None:
        """What is scored and saved, where it is an average of the parameters."""
        if self.ema is not None:
            return "ema"
        return "optimizer" if self.optimizer.averages else None

    @model_validator(mode="after")
    def _has_effect(self) -> Train:
        for key, schedule in (("restarts", "cosine"), ("decay", "wsd"), ("power", "polynomial")):
            is_set = getattr(self, key) != type(self).model_fields[key].default
            if is_set and self.schedule != schedule:
                raise ValueError(
                    f"{key} has no effect with schedule: {self.schedule}, only with {schedule}"
                )
        if self.min_rate and self.schedule == "constant":
            raise ValueError("min_rate has no effect with schedule: constant")
        if self.optimizer.averages and self.schedule != "constant":
            raise ValueError(
                f"optimizer {self.optimizer.name} averages the steps instead of lowering the rate; "
                "set schedule: constant"
            )
        if self.optimizer.averages and self.ema is not None:
            raise ValueError(
                f"optimizer {self.optimizer.name} is an average already; leave ema out"
            )
        return self


class Evaluate(Config):
    """When the model is scored, and which state is kept."""

    every: PositiveFloat = 1.0
    """Epochs between two evaluations."""
    every_steps: PositiveInt | None = None
    """Optimizer steps between two evaluations; replaces `every`."""
    batch_size: PositiveInt = 64
    """Examples per forward pass and process."""
    keep: Literal["best", "last"] = "best"
    """best: the state with the best value of `metric` on the first evaluation split (the paper's
    protocol for GLUE); the latest of equal ones. last: the state after the last step."""
    metric: str | None = None
    """The score that `keep` and `patience` go by, such as `loss` or `perplexity` of a causal task;
    for some a lower value is better, as each metric says. null: the task's primary metric. With a
    loss, or where no score decides, all texts are generated only once, for the kept state."""
    patience: PositiveInt | None = None
    """Stop after this many evaluations without a better score; an equal score is not better. The
    log and the result have the number of steps that were not trained."""


class Decode(Config):
    """How a causal model generates its answer."""

    max_new_tokens: PositiveInt = 64
    """Maximum number of tokens, the end of text included. An answer that reaches it is reported as
    cut."""
    beams: PositiveInt = 1
    """Width of the beam search; 1: greedy."""
    length_penalty: float = 1.0
    """The score of a finished beam is sum(log p) / n ** length_penalty, with n generated tokens,
    the end of text included."""
    no_repeat_ngram: NonNegativeInt = 0
    """Length of n-grams that are not generated twice; the prompt does not count. 0: no limit."""
    sample: bool = False
    """Sample each token, with the run's seed, instead of taking the likeliest one."""
    temperature: PositiveFloat = 1.0
    top_k: PositiveInt | None = None
    top_p: float | None = Field(default=None, gt=0, le=1)

    @model_validator(mode="after")
    def _one_way(self) -> Decode:
        if self.sample and self.beams > 1:
            raise ValueError(
                f"sample: true samples one text, and beams: {self.beams} searches for the best; "
                "leave one out"
            )
        for name in ("temperature", "top_k", "top_p"):
            is_set = getattr(self, name) != type(self).model_fields[name].default
            if is_set and not self.sample:
                raise ValueError(f"{name} has no effect without sample: true")
        return self


SpreadKind = Literal["standard deviation", "confidence interval", "variance", "not stated"]
"""What a printed ± is. not stated: the source does not say it."""


class Published(Config):
    """A published number, with its spread as printed."""

    value: float
    spread: float | None = None
    kind: SpreadKind | None = None
    """What the spread is. null: `expect.kind`."""


class Expect(Config):
    """What this recipe should give. Counts are checked before the first step; scores are reported
    next to the measured ones."""

    sites: int | None = None
    """Number of weights that get a delta."""
    trainable: int | None = None
    """Number of parameters that the method trains. A newly initialised head is not counted."""
    scores: dict[str, Published] = Field(default_factory=dict)
    """Metric -> published value; `split/metric` where a task has several evaluation splits."""
    kind: SpreadKind | None = None
    """What the spread of each score is, where the source says it."""
    source: str | None = None
    """Where the numbers were published."""

    def with_kinds(self) -> dict[str, Published]:
        """The scores, each with what its spread is."""
        return {
            key: score.model_copy(update={"kind": score.kind or self.kind})
            for key, score in self.scores.items()
        }


class BaseSpec(NamedTuple):
    """A base model with the head that a task needs."""

    model: Model
    head: str
    """`classification`, `regression` or `causal`."""
    labels: Sequence[str]
    """One for each output of a classification head, in their order."""


def named(section: Any) -> Any:
    """A section that may be given by its name alone: `method: full` is `{name: full}`."""
    return {"name": section} if isinstance(section, str) else section


def plugin_class(registry: Registry[Any], section: dict[str, Any]) -> type[BaseModel]:
    """The class that a section names; that of `glue/mrpc` is `glue`'s.

    RecipeError: the section does not give a name, or nothing has it.
    """
    name = section.get("name")
    if not isinstance(name, str):
        raise RecipeError(f"give its name, one of {', '.join(registry.names())}")
    return registry.get(name.split("/")[0])


def _plugin_of(registry: Registry[Any]) -> BeforeValidator:
    """Plain values become the class that their name names."""

    def plugin(section: Any) -> Any:
        section = named(section)
        if isinstance(section, dict):
            return plugin_class(registry, section).model_validate(section)
        return section

    return BeforeValidator(plugin)


def _one_or_many(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


class Recipe(Config):
    """A point in methods x tasks x models, with numbers."""

    about: str = ""
    """One line for `lorakit recipes list`."""
    task: Annotated[SerializeAsAny[Task], _plugin_of(tasks)]
    model: Annotated[Model, BeforeValidator(named)]
    method: Annotated[SerializeAsAny[Method], _plugin_of(methods)]
    data: Data = Data()
    train: Train = Train()
    evaluate: Evaluate = Evaluate()
    decode: Decode = Decode()
    seeds: tuple[Seed, ...] = Field(default=(0,), min_length=1, strict=False)
    """Seeds to train, one after the other."""
    start_from: str | None = None
    """An adapter to start from: a run, an adapter folder, or the name of a recipe with a run."""
    expect: Expect = Expect()
    track: Annotated[tuple[str, ...], BeforeValidator(_one_or_many)] = Field(
        default=(), strict=False
    )
    """Trackers that are told the losses and scores while a run trains: tensorboard, wandb, mlflow,
    trackio; one, or a list. It does not change the run folder (see docs: trackers)."""

    @field_validator("track")
    @classmethod
    def _trackers_exist(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            trackers.get(name)
        return tuple(dict.fromkeys(names))

    @field_validator("seeds")
    @classmethod
    def _each_once(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        repeated = [seed for seed in seeds if seeds.count(seed) > 1]
        if repeated:
            raise ValueError(f"{min(repeated)} is given twice, and would be the same run")
        return seeds

    @model_validator(mode="after")
    def _fits_the_head(self) -> Recipe:
        if self.train.label_smoothing and self.task.head is Head.REGRESSION:
            raise ValueError(
                f"train.label_smoothing {self.train.label_smoothing:g}: {self.task.name} is a "
                "regression and does not have classes to smooth over; leave it out"
            )
        if self.evaluate.metric in LIKELIHOOD_KEYS and self.task.head is not Head.CAUSAL:
            raise ValueError(
                f"evaluate.metric {self.evaluate.metric} is of causal tasks, and {self.task.name} "
                f"is a {self.task.head.value}; name one of its own scores"
            )
        if self.evaluate.metric is not None and not self.task.eval_splits:
            raise ValueError(
                f"evaluate.metric {self.evaluate.metric} needs scores, and the task has "
                "validation: none; leave one out"
            )
        selects = self.data.too_long != "truncate" or self.data.empty is not None
        if selects and self.task.head in (Head.TOKENS, Head.SPANS):
            raise ValueError(
                f"data.too_long and data.empty are not available for {self.task.name}; leave them "
                "out"
            )
        if self.train.label_smoothing and self.task.head in (Head.MULTILABEL, Head.SPANS):
            raise ValueError(
                f"train.label_smoothing {self.train.label_smoothing:g} is not available for "
                f"{self.task.name}; leave it out"
            )
        if self.train.class_weights and self.task.head not in LABELLED:
            raise ValueError(
                f"train.class_weights: {self.task.name} does not learn labels; leave it out"
            )
        if self.data.packing and self.task.head is not Head.CAUSAL:
            raise ValueError(
                f"data.packing is for causal models, and {self.task.name} is a "
                f"{self.task.head.value}"
            )
        if self.evaluate.patience is not None and not self.task.eval_splits:
            raise ValueError(
                "evaluate.patience needs scores, and the task has validation: none; leave one out"
            )
        return self

    @property
    def watched(self) -> tuple[str, str] | None:
        """(split, metric) that selects the best state; None: nothing is scored during training."""
        metric = self.evaluate.metric or self.task.primary
        return next(((split, metric) for split in self.task.eval_splits), None)

    def writes_at(self, last: bool) -> bool:
        """Whether an evaluation needs the texts of all examples, and not only their loss.

        It does if their metrics decide what is kept or when to stop, or were asked for by name, or
        if its state is the one that is kept. last: the evaluation after the last step.
        """
        if last and self.evaluate.keep == "last":
            return True
        if self.evaluate.metric is not None:
            return self.evaluate.metric not in LIKELIHOOD_KEYS
        return self.evaluate.keep == "best" or self.evaluate.patience is not None

    @model_validator(mode="after")
    def _fits_the_base(self) -> Recipe:
        if self.model.quantize is not None and not self.method.on_quantized:
            raise ValueError(
                f"model.quantize {self.model.quantize}: the method {self.method.name} needs the "
                "base's exact weights; leave model.quantize out, or take another method (lora)"
            )
        return self

    def base(self) -> BaseSpec:
        """The arguments of `models.load` and `models.outline` for this recipe's base model."""
        return BaseSpec(self.model, self.task.head.value, self.task.labels)

    def plain(self) -> dict[str, Any]:
        """Plain data that loads to an equal recipe: the content of a run's `recipe.yaml`."""
        return _plain(self)


def _plain(config: BaseModel) -> dict[str, Any]:
    """The values of a configuration that are not null, and each null that replaces a default."""
    found: dict[str, Any] = {}
    dumped = config.model_dump(mode="json", exclude_none=True)
    for key, field in type(config).model_fields.items():
        value = getattr(config, key)
        if isinstance(value, BaseModel):
            found[key] = _plain(value)
        elif value is not None:
            found[key] = dumped[key]
        elif field.get_default(call_default_factory=True) is not None and not field.is_required():
            found[key] = None
    return found


def json_schema() -> dict[str, Any]:
    """The JSON schema of a recipe file, with an alternative for each method and task."""
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
        "description": "Fragments in configs/ that this recipe extends; later ones win, "
        "and the recipe wins over all.",
        "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}],
    }
    schema["required"] = []  # a fragment may have any of them
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
        "title": "lorakit recipe",
    }
