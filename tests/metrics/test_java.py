"""Programs that are missing, die, hang, or are given texts that look like their own signs."""

from __future__ import annotations

import logging
import sys
from contextlib import contextmanager

import pytest

from lorakit.errors import MetricError
from lorakit.metrics import _java, meteor, metrics
from lorakit.metrics._java import dialogue, find, run
from lorakit.metrics._ptb import official

NASTY = "a ||| b\nc |||| d\r\u2028e"


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_both_programs_are_found(fake_java, caplog):
    java = find("x")
    assert java is not None
    assert java.meteor[0] == str(fake_java)
    assert java.meteor[-1].endswith("meteor-1.5.jar")
    assert {"-Duser.language=en", "-Dfile.encoding=UTF-8"} <= set(java.tokenizer)
    assert not caplog.messages


def test_no_java(no_java, caplog):
    assert find("METEOR is left out") is None
    assert caplog.record_tuples == [
        (
            "lorakit.metrics._java", logging.WARNING,
            "no `java` on the PATH: METEOR is left out; install Java 8 or later and `pip install \"lorakit[nlg]\"`",
        )
    ]  # fmt: skip


def test_a_java_that_only_says_that_there_is_none(fake_java, caplog):
    fake_java.write_text(f"#!{sys.executable}\nimport sys\nsys.exit('Unable to locate a Java Runtime')\n")
    assert find("x") is None
    assert "ended with exit code 1; it said: Unable to locate a Java Runtime" in caplog.messages[0]


def test_no_package(fake_java, monkeypatch, caplog):
    monkeypatch.setattr(_java, "find_spec", lambda name: None)
    assert find("x") is None
    assert caplog.messages[0].startswith("the package pycocoevalcap is not installed: x; install")


def test_a_package_without_jars(fake_java, monkeypatch, caplog):
    folder = fake_java.parent / "pycocoevalcap"
    monkeypatch.setattr(_java, "find_spec", lambda name: type("Spec", (), {"submodule_search_locations": [folder]}))
    (folder / "meteor/meteor-1.5.jar").unlink()
    assert find("x") is None
    assert f"has no meteor/meteor-1.5.jar (looked for {folder / 'meteor/meteor-1.5.jar'})" in caplog.messages[0]


def test_one_warning_for_a_suite(no_java, caplog):
    assert list(metrics.get("e2e_metrics")(["a"], ["a"])) == ["bleu", "nist", "rouge_l_approx", "cider_approx"]
    (message,) = caplog.messages
    assert "METEOR is left out, ROUGE-L and CIDEr are computed on approximate tokens" in message
    assert metrics.get("meteor")(["a"], ["a"]) == {}


@pytest.mark.parametrize(
    ("name", "clean"),
    [
        ("meteor", "a b c | d e"),
        ("e2e_metrics", "a b c | d e"),
        ("generation_eval", "a | | | b c | | | | d e"),
    ],
)
def test_signs_of_the_protocol_in_texts(name, clean, fake_java):
    """A text that held them would be read as several, and shift all that follow."""
    found, expected = (
        metrics.get(name)([text, "f g", ""], [["x", text], ["f g", "i"], ["h"]])["meteor"] for text in (NASTY, clean)
    )
    assert found == expected
    assert found > 0


def test_what_meteor_is_asked(monkeypatch):
    asked = []

    @contextmanager
    def recorder(name, command):
        def ask(line, n=1):
            asked.append(line)
            return ["1.0 2.0"] * (n - 1) + ["0.5"]

        yield ask

    monkeypatch.setattr(meteor, "dialogue", recorder)
    java = _java.Java(["java"], ["java"])
    assert meteor.corpus_meteor(java, [["a", "|||", "b"], []], [[["c||||"], ["d"]], [["e"]]]) == 0.5
    assert asked == ["SCORE ||| c| ||| d ||| a b", "SCORE ||| e ||| ", "EVAL ||| 0.5 ||| 0.5"]


def test_a_complaint_is_no_number(fake_java):
    fake_java.write_text(
        fake_java.read_text().replace("print(*max(found, key=lambda pair: value(*pair))", "print('Error: specify'")
    )
    with pytest.raises(MetricError, match="METEOR answers 'Error: specify' where numbers should be"):
        metrics.get("meteor")(["a"], ["a"])


@pytest.mark.parametrize("code", ["import sys; sys.exit('boom: x')", "input(); raise SystemExit('boom: x')"])
def test_a_program_that_dies(code):
    with pytest.raises(MetricError, match=r"METEOR ended with exit code 1; it said: boom: x"):
        ask_once(code)
    with pytest.raises(MetricError, match=r"PTB ended with exit code 1; it said: boom: x"):
        run("PTB", python(code), ["x"])


def test_a_program_that_hangs(monkeypatch):
    monkeypatch.setattr(_java, "LIMIT", 0.3)
    sleep = "import time; time.sleep(60)"
    with pytest.raises(MetricError, match=r"METEOR has not answered in 0\.3 seconds, and was ended"):
        ask_once(sleep)
    with pytest.raises(MetricError, match=r"PTB has not answered in 0\.3 seconds"):
        run("PTB", python(sleep), ["x"])


def ask_once(code: str) -> list[str]:
    with dialogue("METEOR", python(code)) as ask:
        return ask("x")


def test_a_tokeniser_that_loses_a_line(fake_java):
    fake_java.write_text(f"#!{sys.executable}\nprint('one line')\n")
    java = find("x")
    assert java
    with pytest.raises(MetricError, match="gave 1 lines for 2 texts"):
        official(java, ["a", "b"])
