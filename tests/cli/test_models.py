import json

import pytest

from pscr_engine.models import DEFAULT_MODEL


def test_the_list_says_what_users_choose_by(cli_with_model):
    outcome = cli_with_model("models")
    assert outcome.returncode == 0, outcome.stderr
    text = outcome.stdout
    assert text.startswith(f"{DEFAULT_MODEL} (the default): A made-up model for tests.\n")
    for expected in (
        "averages of colours",
        "no images at all",
        "fp32        SRCC 0.810 (95% 0.700 to 0.900), PLCC 0.830 (95% 0.750 to 0.910), 60 test images",
        "MB: fp32\n",
        "Apache-2.0; images: made up",
        "make nothing",
    ):
        assert expected in text


def test_one_model_shows_its_card(cli_with_model):
    assert cli_with_model("models", DEFAULT_MODEL).stdout == f"# {DEFAULT_MODEL}\n\nA made-up model.\n"


@pytest.mark.parametrize("arguments", [[], [DEFAULT_MODEL]])
def test_for_programs(cli_with_model, package_with_model, arguments):
    (found,) = json.loads(cli_with_model("models", *arguments, "--json").stdout)["models"]
    assert (found["name"], found["default"], found["precisions"]) == (DEFAULT_MODEL, True, ["fp32"])
    assert found["path"] == str(package_with_model / "pscr_engine" / "models" / f"{DEFAULT_MODEL}.pscr")
    assert found["figures"]["fp32"]["srcc"] == [0.81, 0.7, 0.9]
    assert found["bytes"] > 0


def test_a_copy_is_what_the_commands_then_take(cli_with_model):
    copied = cli_with_model("models", DEFAULT_MODEL, "--copy", "model.pscr")
    assert copied.stdout == f"model.pscr: a copy of {DEFAULT_MODEL}\n"
    assert cli_with_model("inspect").stdout.startswith("bundle      model.pscr (all digests match)\n")
    assert "is there already" in cli_with_model("models", DEFAULT_MODEL, "--copy", "model.pscr").stderr


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["agiqa3k"], 1, f"ships no model of that name (shipped: {DEFAULT_MODEL}; did you mean {DEFAULT_MODEL}?)"),
        (["--copy", "x"], 2, "--copy is for one model and by itself"),
        ([DEFAULT_MODEL, "--copy", "x", "--json"], 2, "--copy is for one model and by itself"),
    ],
)
def test_bad_usage_is_one_line(cli_with_model, arguments, code, message):
    outcome = cli_with_model("models", *arguments)
    assert (outcome.returncode, outcome.stdout, outcome.stderr.count("\n")) == (code, "", 1)
    assert message in outcome.stderr


def test_without_any_model(cli_without_model):
    assert cli_without_model("models").stdout == "no model is shipped with this pscr-engine\n"
    assert json.loads(cli_without_model("models", "--json").stdout) == {"models": []}
