"""The progress of a run on the terminal: one live line there, plain lines elsewhere."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from functools import singledispatchmethod

from rich.live import Live
from rich.table import Table

from lorakit.cli.output import console, warn
from lorakit.cli.screen import line as line_of
from lorakit.cli.screen import styled
from lorakit.events import (
    AnotherUnfinished,
    BaselineScored,
    Event,
    FinishedBefore,
    HeadView,
    ModelPrepared,
    SeedFinishedBefore,
    SeedStarted,
    SiteGroup,
    SplitEvaluated,
    StartedFrom,
    StepSkipped,
    StepTaken,
    StoppedEarly,
    TextsGenerated,
    TrainingResumed,
    TrainingStarted,
)

PLAIN_LINE_INTERVAL_S = 10
"""Where there is no live line."""
RECENT_STEPS = 50
"""The time that is left is estimated from these."""
MOST_CHANGES = 4
"""Differences between two recipes that are shown."""

NOT_SHOWN = (StepSkipped,)
"""Events without a line here: a step that is left out is a warning in the log."""


class Progress:
    """Shows the events of a run. An event type that it does not know is not shown."""

    def __init__(self) -> None:
        self.total = 0
        self.finished_before: str | None = None
        """When the run was trained, if it was trained before and not now."""
        self.live: Live | None = None
        self.last_line = time.monotonic()
        self.recent: deque[tuple[int, float]] = deque(maxlen=RECENT_STEPS)
        """(step, seconds)"""

    def __call__(self, event: Event) -> None:
        self.show(event)

    def close(self) -> None:
        """End the live line."""
        if self.live is not None:
            self.live.stop()
            self.live = None

    @singledispatchmethod
    def show(self, event: Event) -> None:
        """One handler for each event type."""

    @show.register
    def _(self, event: SeedStarted) -> None:
        of = f" (of {', '.join(map(str, event.of))})" if len(event.of) > 1 else ""
        console().print(line_of((f"seed {event.seed}", "bold"), f"{of} -> {event.folder}"))

    @show.register
    def _(self, event: SeedFinishedBefore) -> None:
        console().print(
            f"{event.folder} is trained already; --restart trains it again", markup=False
        )

    @show.register
    def _(self, event: FinishedBefore) -> None:
        self.finished_before = event.finished
        console().print(
            f"{event.folder} holds this run already: recipe, data, base model and the files of its "
            "seeds are what they were; --restart trains it again",
            markup=False,
        )
        for what in event.not_compared:
            warn(f"not compared: {what}")

    @show.register
    def _(self, event: AnotherUnfinished) -> None:
        said = "; ".join(event.changes[:MOST_CHANGES])
        if len(event.changes) > MOST_CHANGES:
            said += "; ..."
        console().print(
            f"note: {event.folder} was stopped, and is of another recipe ({said}); this run has a "
            "folder of its own",
            markup=False,
            soft_wrap=True,
        )

    @show.register
    def _(self, event: StartedFrom) -> None:
        said = f"started from {event.folder}"
        if event.fresh:
            said += f"; newly initialised: {', '.join(event.fresh)}"
        console().print(said)

    @show.register
    def _(self, event: ModelPrepared) -> None:
        show_model(event)

    @show.register
    def _(self, event: BaselineScored) -> None:
        for split, scores in event.scores.items():
            part = f" ({event.slices[split]})" if split in event.slices else ""
            console().print(f"untrained, {split}{part}: {scores_text(scores)}")

    @show.register
    def _(self, event: TrainingStarted) -> None:
        self._start(event)

    @show.register
    def _(self, event: TrainingResumed) -> None:
        console().print(f"resumes from step {event.step} of {event.steps}; --restart starts over")
        self._start(event)

    def _start(self, event: TrainingStarted | TrainingResumed) -> None:
        self.total = event.steps
        self.last_line = time.monotonic()
        self.recent.clear()
        if event.accumulation > 1:
            console().print(f"gradients of {event.accumulation} micro batches add up to a step")
        if console().is_terminal:
            self.live = Live(console=console(), refresh_per_second=8, transient=True)
            self.live.start()

    @show.register
    def _(self, event: StepTaken) -> None:
        self.recent.append((event.step, event.seconds))
        line = (
            f"step {event.step}/{self.total}  epoch {event.epoch:.2f}  loss {event.loss:.4f}  "
            f"lr {event.learning_rate:.2e}  {event.tokens_per_second:,.0f} tok/s  "
            f"ETA {clock(self._seconds_left())}  {event.memory_mib:,.0f} MiB"
        )
        if self.live is not None:
            self.live.update(styled(line))
        elif self._is_due() or event.step in (1, self.total):
            self.last_line = time.monotonic()
            console().print(line)
        if event.step == self.total:
            self.close()

    def _seconds_left(self) -> float:
        """By the last steps; by all of them after the first one."""
        begin, before = self.recent[0]
        step, now = self.recent[-1]
        each = (now - before) / (step - begin) if step > begin else now / step
        return each * (self.total - step)

    @show.register
    def _(self, event: SplitEvaluated) -> None:
        console().print(f"epoch {event.epoch:.2f}, {event.split}: {scores_text(event.scores)}")

    @show.register
    def _(self, event: StoppedEarly) -> None:
        self.close()
        console().print(
            f"stopped early: {event.metric} on {event.split} did not get better in "
            f"{event.patience} evaluation(s) (evaluate.patience); {event.not_trained} of "
            f"{event.steps} steps are not trained"
        )

    @show.register
    def _(self, event: TextsGenerated) -> None:
        left = event.seconds / event.done * (event.total - event.done)
        line = f"{event.split}: {event.done} of {event.total} texts written  ETA {clock(left)}"
        if self.live is not None:
            self.live.update(styled(line))
        elif self._is_due() and event.done < event.total:
            self.last_line = time.monotonic()
            console().print(line, markup=False)

    def _is_due(self) -> bool:
        return time.monotonic() - self.last_line > PLAIN_LINE_INTERVAL_S


def show_model(model: ModelPrepared) -> None:
    """The sites, the counts, and the head with its labels."""
    if model.sites:
        console().print(sites_table(model.sites))
    else:
        console().print(f"method {model.method}: no new weights, it trains what is there")
    console().print(counts_line(model), markup=False)
    if model.head is not None and model.head.parts:
        show_head(model.head)


def sites_table(sites: tuple[SiteGroup, ...]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("target", "weight", "out x in", "r", "alpha/r", "sites", "parameters"):
        justify = "left" if name in ("target", "weight") else "right"
        table.add_column(name, justify=justify, overflow="fold")
    for group in sites:
        table.add_row(
            group.target,
            group.weight,
            "" if group.size is None else "{} x {}".format(*group.size),
            "" if group.r is None else str(group.r),
            "" if group.scale is None else f"{group.scale:g}",
            str(group.sites),
            f"{group.parameters:,}",
        )
    return table


def counts_line(model: ModelPrepared) -> str:
    trainable = model.counts["trainable"]
    total = model.counts["total"]
    line = f"trains {trainable:,} of {total:,} parameters ({100 * trainable / total:.3f} %)"
    if model.newly_initialised:
        head = model.head
        is_held = head is not None and any(p.starts == "the checkpoint's" for p in head.parts)
        whose = "of the head" if is_held else "that the checkpoint does not hold"
        modules = ", ".join(model.newly_initialised)
        line += f"; and {model.counts['fresh']:,} {whose} ({modules})"
    return line


def show_head(head: HeadView) -> None:
    """Where the head's numbers come from, and its labels next to the checkpoint's own."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("head", "starts as", "parameters"):
        table.add_column(name, justify="right" if name == "parameters" else "left")
    for part in head.parts:
        table.add_row(part.name, part.starts, f"{part.parameters:,}")
    console().print(table)
    line = "labels: " + ", ".join(head.labels) if head.labels else "one value"
    if head.stored:
        line += f"; the checkpoint's own head has: {', '.join(head.stored)}"
    if head.problem:
        line += f" ({head.problem})"
    console().print(line)


def scores_text(scores: Mapping[str, float]) -> str:
    return ", ".join(f"{metric} {value:.2f}" for metric, value in scores.items())


def clock(seconds: float) -> str:
    """`1:02:03`, or `2:03` below an hour."""
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
