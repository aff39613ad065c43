"""Code that comes with a base: no file has it run, and no verb without the flag."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml

from lorakit.bases.files import location
from lorakit.bases.load import load
from lorakit.errors import ModelError, RecipeError
from lorakit.models import Model, is_trusted, trust_remote_code
from lorakit.recipe.load import load_recipe

SMALL = [
    "data.limit={train: 8, validation: 4}",
    "train.epochs=1",
    "train.global_batch_size=4",
    "train.warmup=0",
    "decode.max_new_tokens=2",
    "method.targets=[c_attn]",
]
TOUCH = "from pathlib import Path\nPath({canary!r}).touch()\n"
CODE = {
    "configuration_own": """
from transformers import GPT2Config
class OwnConfig(GPT2Config):
    model_type = 'own'
""",
    "modeling_own": """
from transformers import GPT2ForSequenceClassification, GPT2LMHeadModel
from .configuration_own import OwnConfig
class OwnForCausalLM(GPT2LMHeadModel):
    config_class = OwnConfig
class OwnForSequenceClassification(GPT2ForSequenceClassification):
    config_class = OwnConfig
""",
    "tokenization_own": """
from transformers import PreTrainedTokenizerFast
class OwnTokenizer(PreTrainedTokenizerFast):
    pass
""",
    "custom_generate/generate": "def generate(*args, **kwargs):\n    raise RuntimeError\n",
}
MAP = {
    "AutoConfig": "configuration_own.OwnConfig",
    "AutoModelForCausalLM": "modeling_own.OwnForCausalLM",
    "AutoModelForSequenceClassification": "modeling_own.OwnForSequenceClassification",
}


def _change(file: Path, **values: object) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


@pytest.fixture(scope="module")
def modules(tmp_path_factory) -> str:
    """Where transformers copies such code: one place per process, for it becomes a package."""
    return str(tmp_path_factory.mktemp("modules"))


@pytest.fixture
def canary(tmp_path, monkeypatch, modules) -> Path:
    """Is there as soon as code of the base has run."""
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", modules)
    return tmp_path / "canary"


@pytest.fixture
def base(canary, tmp_path):
    """`base(model_type)`: GPT-2 with code in its folder; with type gpt2 it can be had without
    that."""

    def base(model_type: str = "own") -> Path:
        folder = Path(
            shutil.copytree(location("lorakit:tiny_gpt2"), tmp_path / f"base-{model_type}")
        )
        for name, code in CODE.items():
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / f"{name}.py").write_text(TOUCH.format(canary=str(canary)) + code)
        _change(folder / "config.json", model_type=model_type, auto_map=MAP)
        tokenizer = {"AutoTokenizer": [None, "tokenization_own.OwnTokenizer"]}
        _change(folder / "tokenizer_config.json", auto_map=tokenizer)
        return folder

    return base


def _renew(folder: Path, text: str) -> None:
    """Code that has changed is run again in the same process."""
    for file in folder.rglob("*.py"):
        file.write_text(f"{file.read_text()}# {text}\n")


@pytest.fixture
def trained(base, canary, lorakit_cli, tmp_path):
    """A run on a base that needs its code, with the flag given; the canary is gone again."""
    folder = base()
    command = (
        "train",
        "quickstart_generate",
        f"model.name={folder}",
        *SMALL,
        "--runs",
        tmp_path / "runs",
    )
    done = lorakit_cli(*command, "--trust-remote-code", "--json")
    assert done.code == 0, done.err
    canary.unlink()
    return Path(done.json["run"])


@pytest.mark.parametrize("verb", ["check", "train", "prepare"])
def test_a_recipe_does_not_run_code(base, canary, lorakit_cli, tmp_path, verb):
    where = ("--runs", tmp_path / "runs") if verb == "train" else ()
    done = lorakit_cli(verb, "quickstart_generate", f"model.name={base()}", *SMALL, *where)
    assert done.code == 2
    assert "--trust-remote-code" in done.err
    assert not canary.exists()
    assert not is_trusted()


def test_code_that_is_not_needed_is_left_alone(base, canary, lorakit_cli):
    folder = base("gpt2")
    done = lorakit_cli("check", "quickstart_generate", f"model.name={folder}", *SMALL)
    assert done.code == 0, done.err
    assert load(Model(name=str(folder)), "causal")
    assert not canary.exists()


@pytest.mark.parametrize("value", [True, "yes", 1, None])
def test_a_file_that_grants_it_is_refused(base, canary, lorakit_cli, tmp_path, value):
    recipe = load_recipe("quickstart_generate").recipe.plain()
    recipe["model"] = {"name": str(base()), "trust_remote_code": value}
    file = tmp_path / "own.yaml"
    file.write_text(yaml.safe_dump(recipe))
    done = lorakit_cli("check", file)
    assert done.code == 2
    assert "own.yaml" in done.err
    assert "--trust-remote-code" in done.err
    assert not canary.exists()


def test_an_override_does_not_grant_it():
    with pytest.raises(RecipeError, match="--trust-remote-code"):
        load_recipe("quickstart", ["model.trust_remote_code=true"])
    assert load_recipe("quickstart", ["model.trust_remote_code=false"])  # as runs of before have it


def test_every_verb_that_loads_a_base_asks_for_the_flag(trained, canary, lorakit_cli, tmp_path):
    verbs = {
        "eval": (),
        "merge": ("--to", tmp_path / "merged"),
        "generate": ("--prompt", "name: x"),
    }
    base = Path(yaml.safe_load((trained / "recipe.yaml").read_text())["model"]["name"])
    for verb, more in verbs.items():
        _renew(base, f"without, {verb}")
        done = lorakit_cli(verb, trained, *more)
        assert done.code == 2, verb
        assert "--trust-remote-code" in done.err, verb
        assert not canary.exists(), verb
    assert not (tmp_path / "merged").exists()
    for verb, more in verbs.items():
        _renew(base, f"with, {verb}")
        done = lorakit_cli(verb, trained, *more, "--trust-remote-code")
        assert done.code == 0, done.err
        assert canary.exists(), verb
        canary.unlink()
    assert not is_trusted()


def test_a_run_that_grants_it_to_itself_is_refused(trained, canary, lorakit_cli):
    file = trained / "recipe.yaml"
    recipe = yaml.safe_load(file.read_text())
    recipe["model"]["trust_remote_code"] = True
    file.write_text(yaml.safe_dump(recipe))
    done = lorakit_cli("eval", trained)
    assert done.code == 2
    assert "--trust-remote-code" in done.err
    assert not canary.exists()


def test_for_one_call(base, canary):
    spec = Model(name=str(base()))
    with trust_remote_code():
        assert type(load(spec, "causal").model).__name__ == "OwnForCausalLM"
    canary.unlink()
    with pytest.raises(ModelError, match="--trust-remote-code"):
        load(spec, "causal")
    assert not canary.exists()


@pytest.mark.parametrize("setting", ["attn_implementation", "experts_implementation"])
def test_code_of_the_hub_is_not_fetched(base, setting):
    folder = base("gpt2")
    _change(folder / "config.json", **{setting: "someone/kernel"})
    with pytest.raises(ModelError, match="someone/kernel"):
        load(Model(name=str(folder)), "causal")
