"""Training as it happens: one live line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections import deque
from typing import Any

from rich.live import Live
from rich.table import Table

from lorakit.cli.output import console, warn
from lorakit.cli.screen import line as line_of
from lorakit.cli.screen import styled


class Progress:
    """Takes the events of a run (`lorakit.verbs.train`) and shows them."""

    def __init__(self) -> None:
        self.total = 0
        self.finished_before: str | None = None
        """When the run ended, where it was trained before and was not trained now."""
        self.live: Live | None = None
        self.last_line = time.monotonic()
        self.recent: deque[tuple[int, float]] = deque(maxlen=50)
        """(step, seconds) of the last steps, by which the rest is estimated."""

    def __call__(self, event: dict[str, Any]) -> None:
        handler = getattr(self, f"on_{event['event']}", None)
        if handler is not None:
            handler(event)

    def close(self) -> None:
        if self.live is not None:
            self.live.stop()
            self.live = None

    def on_seed(self, event: dict[str, Any]) -> None:
        of = f" (of {', '.join(map(str, event['of']))})" if len(event["of"]) > 1 else ""
        console().print(line_of((f"seed {event['seed']}", "bold"), f"{of} -> {event['folder']}"))

    def on_seed_finished_before(self, event: dict[str, Any]) -> None:
        console().print(
            f"{event['folder']} is trained already; --restart trains it again", markup=False
        )

    def on_finished_before(self, event: dict[str, Any]) -> None:
        self.finished_before = event["finished"]
        console().print(
            f"{event['folder']} holds this run already: recipe, data, base model and the files of its seeds are what "
            "they were; --restart trains it again",
            markup=False,
        )
        for what in event["not_compared"]:
            warn(f"not compared: {what}")

    def on_started_from(self, event: dict[str, Any]) -> None:
        newly_initialised = (
            f"; newly initialised: {', '.join(event['fresh'])}" if event["fresh"] else ""
        )
        console().print(f"started from {event['folder']}{newly_initialised}")

    def on_model(self, event: dict[str, Any]) -> None:
        console().print(sites_table(event["attachment"]))
        console().print(counts_line(event["counts"], event["attachment"], event["head"]))
        show_head(event["head"])

    def on_base(self, event: dict[str, Any]) -> None:
        for split, scores in event["scores"].items():
            part = f" ({event['slices'][split]})" if split in event["slices"] else ""
            console().print(f"untrained, {split}{part}: {scores_text(scores)}")

    def on_start(self, event: dict[str, Any]) -> None:
        self.total, self.last_line = event["steps"], time.monotonic()
        self.recent.clear()
        if event["accumulation"] > 1:
            console().print(f"gradients of {event['accumulation']} micro batches add up to a step")
        if console().is_terminal:
            self.live = Live(console=console(), refresh_per_second=8, transient=True)
            self.live.start()

    def on_resumed(self, event: dict[str, Any]) -> None:
        console().print(
            f"goes on from step {event['step']} of {event['steps']}; --restart starts over"
        )
        self.on_start(event)

    def on_another_unfinished(self, event: dict[str, Any]) -> None:
        said = "; ".join(event["changes"][:4]) + ("; ..." if len(event["changes"]) > 4 else "")
        console().print(
            f"note: {event['folder']} was stopped, and is of another recipe ({said}); this run has a folder of its own",
            markup=False,
            soft_wrap=True,
        )

    def on_step(self, event: dict[str, Any]) -> None:
        self.recent.append((event["step"], event["seconds"]))
        (begin, before), (step, now) = self.recent[0], self.recent[-1]
        each = (now - before) / (step - begin) if step > begin else now / step
        left = each * (self.total - step)
        line = (
            f"step {event['step']}/{self.total}  epoch {event['epoch']:.2f}  loss {event['loss']:.4f}  "
            f"lr {event['learning_rate']:.2e}  {event['tokens_per_second']:,.0f} tok/s  ETA {clock(left)}  "
            f"{event['memory_mib']:,.0f} MiB"
        )
        if self.live is not None:
            self.live.update(styled(line))
        elif time.monotonic() - self.last_line > 10 or event["step"] in (1, self.total):
            self.last_line = time.monotonic()
            console().print(line)
        if event["step"] == self.total:
            self.close()

    def on_generated(self, event: dict[str, Any]) -> None:
        done, total, seconds = event["done"], event["total"], event["seconds"]
        line = f"{event['split']}: {done} of {total} texts written  ETA {clock(seconds / done * (total - done))}"
        if self.live is not None:
            self.live.update(styled(line))
        elif time.monotonic() - self.last_line > 10 and done < total:
            self.last_line = time.monotonic()
            console().print(line, markup=False)

    def on_stopped_early(self, event: dict[str, Any]) -> None:
        self.close()
        console().print(
            f"stopped early: {event['metric']} on {event['split']} did not get better in {event['patience']} "
            f"evaluation(s) (evaluate.patience); {event['not_trained']} of {event['steps']} steps are not trained"
        )

    def on_eval(self, event: dict[str, Any]) -> None:
        console().print(
            f"epoch {event['epoch']:.2f}, {event['split']}: {scores_text(event['scores'])}"
        )


def sites_table(attachment: Any) -> Any:
    """What is adapted, layers of the same kind on one line: pattern, module, shape, rank, count, parameters."""
    import re

    kinds: dict[tuple[Any, ...], list[int]] = {}
    for site in attachment.sites:
        delta = site.module.delta[site.part]
        place = re.sub(r"\.\d+(?=\.|$)", ".*", site.name)
        size, r, scale = "", "", ""
        if hasattr(delta, "A"):
            (out, in_), r = site.shape, str(delta.A.shape[0])
            size, scale = f"{out} x {in_}", f"{delta.scale:g}"
        kinds.setdefault((site.target, place, size, r, scale), []).append(
            sum(p.numel() for p in delta.parameters())
        )
    if not kinds:
        return f"method {attachment.method.name}: no new weights, it trains what is there"
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("target", "weight", "out x in", "r", "alpha/r", "sites", "parameters"):
        table.add_column(
            name, justify="left" if name in ("target", "weight") else "right", overflow="fold"
        )
    for (target, place, size, r, scale), sizes in kinds.items():
        table.add_row(target, place, size, r, scale, str(len(sizes)), f"{sum(sizes):,}")
    return table


def counts_line(counts: Any, attachment: Any, head: Any = None) -> str:
    share = 100 * counts.trainable / counts.total
    heads = sorted({name.rsplit(".", 1)[0] for name in attachment.newly_initialised})
    held = head is not None and any(part.starts == "the checkpoint's" for part in head.parts)
    whose = "of the head" if held else "that the checkpoint does not hold"
    newly_initialised = f"; and {counts.fresh:,} {whose} ({', '.join(heads)})" if heads else ""
    return f"trains {counts.trainable:,} of {counts.total:,} parameters ({share:.3f} %){newly_initialised}"


def show_head(head: Any) -> None:
    """What the head starts as, and its labels beside the checkpoint's own (`lorakit.verbs.heads`)."""
    if head is None or not head.parts:
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("head", "starts as", "parameters"):
        table.add_column(name, justify="right" if name == "parameters" else "left")
    for part in head.parts:
        table.add_row(part.name, part.starts, f"{part.parameters:,}")
    console().print(table)
    labels = "labels: " + ", ".join(head.labels) if head.labels else "one value"
    stored = f"; the checkpoint's own head has: {', '.join(head.stored)}" if head.stored else ""
    problem = f" ({head.problem})" if head.problem else ""
    console().print(f"{labels}{stored}{problem}")


def scores_text(scores: dict[str, float]) -> str:
    return ", ".join(f"{metric} {value:.2f}" for metric, value in scores.items())


def clock(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
