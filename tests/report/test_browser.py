"""The pages in a real browser: none is wider than a phone, nothing is fetched or complained of, and
they print.

Chromium is driven over a pipe by its own protocol:
https://chromedevtools.github.io/devtools-protocol
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import re
import select
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from lorakit.report.changes import mean_norms
from lorakit.report.page import write_page
from lorakit.runs.result import Check
from lorakit.studies.page import RunView, render_study
from lorakit.studies.result import CellResult, StudyResult

NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)
pytestmark = [
    pytest.mark.browser,
    pytest.mark.nightly,
    pytest.mark.skipif(
        CHROMIUM is None, reason=f"a browser: none of {', '.join(NAMES)} is installed"
    ),
]
WIDTHS = (360, 1200)
LONG = "a_name_without_any_place_to_break_" * 6


class Browser:
    """A headless Chromium: commands go in by one pipe, answers and events come out of the other."""

    def __init__(self, profile: Path):
        (child_reads, self.writes), (self.reads, child_writes) = os.pipe(), os.pipe()
        ends = [fcntl.fcntl(end, fcntl.F_DUPFD, 20) for end in (child_reads, child_writes)]

        def as_3_and_4() -> None:
            os.dup2(ends[0], 3)
            os.dup2(ends[1], 4)

        self.process = subprocess.Popen(
            [
                str(CHROMIUM),
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-quic",
                "--no-first-run",
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
                f"--user-data-dir={profile}",
                "--remote-debugging-pipe",
                "about:blank",
            ],
            pass_fds=(3, 4),
            preexec_fn=as_3_and_4,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for end in (child_reads, child_writes, *ends):
            os.close(end)
        self.last, self.rest, self.events = 0, b"", []
        self.session: str | None = None
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.ask(f"{domain}.enable")

    def ask(self, method: str, **values: Any) -> dict[str, Any]:
        self.last += 1
        of = {"sessionId": self.session} if self.session else {}
        os.write(
            self.writes,
            json.dumps({"id": self.last, "method": method, "params": values, **of}).encode()
            + b"\0",
        )
        answer = self.until(lambda said: said.get("id") == self.last)
        assert "error" not in answer, (method, answer)
        return answer["result"]

    def until(self, wanted: Any, seconds: float = 60) -> dict[str, Any]:
        """The first message that is `wanted`; the others are kept in `events`."""
        end = time.monotonic() + seconds
        while True:
            while b"\0" in self.rest:
                one, _, self.rest = self.rest.partition(b"\0")
                said = json.loads(one)
                if wanted(said):
                    return said
                self.events.append(said)
            ready, _, _ = select.select([self.reads], [], [], max(0.0, end - time.monotonic()))
            assert ready, f"Chromium said nothing for {seconds} s; its latest: {self.events[-3:]}"
            found = os.read(self.reads, 1 << 16)
            assert found, "Chromium is gone"
            self.rest += found

    def open(
        self, file: Path, width: int, scheme: str = "light", media: str = ""
    ) -> list[dict[str, Any]]:
        """The file in a window of that width; all that happened until it stood there."""
        self.ask(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=800,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.ask("Emulation.setEmulatedMedia", media=media, features=features)
        self.events.clear()
        self.ask("Page.navigate", url=file.as_uri())
        if not any(said.get("method") == "Page.loadEventFired" for said in self.events):
            self.until(lambda said: said.get("method") == "Page.loadEventFired")
        self.value("new Promise(done => requestAnimationFrame(() => setTimeout(done, 50)))")
        return list(self.events)

    def value(self, script: str) -> Any:
        found = self.ask(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def close(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        os.close(self.reads)
        os.close(self.writes)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    opened = Browser(tmp_path_factory.mktemp("profile"))
    yield opened
    opened.close()


def a_study(
    result: Any, logs: Any, names: tuple[str, ...] = ("r=1", "r=8", "r=64")
) -> tuple[StudyResult, dict]:
    cells = [
        CellResult(
            label=name,
            recipe="glue_mrpc",
            overrides=(),
            point={"r": 8**i},
            run=f"runs/{name}",
            log=None,
            state="done" if i else "failed",
            metric=("validation", "accuracy"),
            seeds=(0, 1, 2),
            seconds=90.0,
            note="" if i else f"it cannot be done {LONG}",
            scores={seed.seed: seed.scores for seed in result.seeds} if i else {},
        )
        for i, name in enumerate(names)
    ]
    norms = mean_norms(result.seeds)
    seen = {name: RunView(logs, norms, result, f"../{name}/report.html") for name in names[1:]}
    about = "Rank on MRPC"
    return StudyResult(
        name="mine", file="mine.yaml", about=about, axes=("r",), cells=tuple(cells)
    ), seen


@pytest.fixture(scope="module")
def pages(make_result, logs, tmp_path_factory) -> dict[str, Path]:
    """A run and a study as they are, and both with names that no line can hold."""
    folders = {
        name: tmp_path_factory.mktemp(name) for name in ("run", "study", "long_run", "long_study")
    }
    samples = [
        {"input": "a b c", "reference": "yes", "prediction": "yes"},
        {"input": LONG, "reference": LONG, "prediction": LONG[1:]},
    ]
    check = Check(name=LONG, passed=False, value=1e-9, tolerance=1e-5, note=LONG)
    seeds = tuple(
        seed.model_copy(
            update={
                "checks": (check,),
                "scores": {"validation": {"accuracy": 1.0, LONG: 2.0}},
                "delta_norms": {
                    f"layer.{i}.{LONG}{j}": 0.1 + i + j for i in range(48) for j in range(12)
                },
            }
        )
        for seed in make_result().seeds
    )
    long = make_result(
        recipe=LONG,
        task=LONG,
        model=LONG,
        seeds=seeds,
        notes=(LONG,),
        published_source=LONG,
        recipe_values={"about": LONG, LONG: LONG},
        environment={"command": f"lorakit train {LONG}", LONG: LONG},
    )
    study, seen = a_study(make_result(), logs)
    long_study, long_seen = a_study(long, logs, tuple(f"{i}{LONG}" for i in range(9)))
    return {
        "run": write_page(folders["run"], make_result(), logs, samples),
        "study": written(folders["study"], render_study(study, seen, "recipes: glue_mrpc\n")),
        "long_run": write_page(folders["long_run"], long, logs, samples),
        "long_study": written(
            folders["long_study"], render_study(long_study, long_seen, f"about: {LONG}\n")
        ),
    }


def written(folder: Path, page: str) -> Path:
    path = folder / "report.html"
    path.write_text(page, encoding="utf-8")
    return path


PAGES = ("run", "study", "long_run", "long_study")


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("width", WIDTHS)
def test_the_page_is_no_wider_than_its_window(browser, pages, name, width):
    browser.open(pages[name], width)
    inner, whole = browser.value("[innerWidth, document.documentElement.scrollWidth]")
    assert (inner, whole <= width) == (width, True)
    over = """[...document.querySelectorAll('body *')]
        .filter(e => !e.closest('.scroll, pre, .unscaled, svg'))
        .filter(e => e.getBoundingClientRect().right > innerWidth + 0.5)
        .map(e => e.outerHTML.slice(0, 80))"""
    assert browser.value(over) == []


@pytest.mark.parametrize("name", PAGES)
def test_a_wide_table_is_scrolled_in_its_own_box(browser, pages, name):
    browser.open(pages[name], 360)
    boxes = browser.value(
        "[...document.querySelectorAll('.scroll')].map(b => [b.clientWidth, b.scrollWidth])"
    )
    assert any(whole > seen for seen, whole in boxes)
    assert all(seen <= 360 for seen, _ in boxes)


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_is_fetched_and_nothing_complained_of(browser, pages, name, scheme):
    events = browser.open(pages[name], 1200, scheme)
    asked = [
        said["params"]["request"]["url"]
        for said in events
        if said["method"] == "Network.requestWillBeSent"
    ]
    assert asked == [pages[name].as_uri()]
    bad = (
        "Log.entryAdded",
        "Runtime.consoleAPICalled",
        "Runtime.exceptionThrown",
        "Network.loadingFailed",
    )
    assert [said for said in events if said["method"] in bad] == []
    paper = {"light": "rgb(255, 255, 255)", "dark": "rgb(20, 24, 28)"}[scheme]
    assert browser.value("getComputedStyle(document.body).backgroundColor") == paper


@pytest.mark.parametrize(
    ("name", "least"), [("run", 5), ("study", 3), ("long_run", 5), ("long_study", 3)]
)
@pytest.mark.parametrize("width", WIDTHS)
def test_every_picture_is_seen(browser, pages, name, least, width):
    """Drawn, at a size that can be read: its letters are 8 px high at least, or it is scrolled."""
    browser.open(pages[name], width)
    script = """[...document.querySelectorAll('figure svg')].map(s => {
        const box = s.getBoundingClientRect(), shown = s.getBBox();
        const scale = box.width / s.viewBox.baseVal.width;
        return [box.width, box.height, shown.width, shown.height, 10 * scale];
    })"""
    sizes = browser.value(script)
    assert len(sizes) >= least
    for wide, high, drawn, tall, letters in sizes:
        assert min(wide, high) > 60
        assert min(drawn, tall) > 60
        assert letters > 7


@pytest.mark.parametrize("name", PAGES)
def test_it_prints(browser, pages, name):
    browser.open(pages[name], 1200)
    printed = base64.b64decode(browser.ask("Page.printToPDF", printBackground=True)["data"])
    assert printed.startswith(b"%PDF-")
    count = len(re.findall(rb"/Type\s*/Page\b", printed))
    assert 1 <= count <= 12
    browser.open(pages[name], 794, media="print")  # A4
    opened = (
        "[...document.querySelectorAll('details pre')].map(p => p.getBoundingClientRect().height)"
    )
    assert all(height > 20 for height in browser.value(opened)), "what is folded in is printed"


def test_a_page_that_is_too_wide_is_found(browser, tmp_path):
    """The other way round: a page that breaks the rules."""
    file = tmp_path / "bad.html"
    file.write_text(
        "<!doctype html><p style='width: 900px'>x</p><img "
        "src=http://127.0.0.1:9/x><script>undefined.x</script>"
    )
    events = browser.open(file, 360)
    assert browser.value("document.documentElement.scrollWidth") > 360
    assert {"Network.loadingFailed", "Runtime.exceptionThrown"} <= {
        said["method"] for said in events
    }
