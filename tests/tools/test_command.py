import pytest
from forked_tools import call


@pytest.mark.parametrize(
    ("tool", "arguments", "sentence"),
    [
        ("report", ["runs/digits"], "--run is missing: write --run=runs/digits, if that is it."),
        ("report", [], "--run is missing: give --run=..."),
        ("run", ["--seed=1"], "--dataset, --output_dir are missing: give --dataset=..."),
        ("run", ["--dataset=digits", "--output_dir=x", "more"], "Nothing is known of 'more': settings are given as --name=value."),
        ("run", ["--dataset=digits", "--seed=1", "--output_dir=x", "--seed", "2"], "--seed is given twice: leave one out."),
        ("run", ["--dataset=digits", "--output_dri=x"], "Unknown command line flag 'output_dri'. Did you mean: output_dir ?"),
        ("run", ["--dataset=digits", "--output_dir=x", "--seed=one"], "flag --seed=one: invalid literal for int"),
    ],
)
def test_a_command_line_that_is_wrong_is_told_in_one_sentence(tool, arguments, sentence):
    done = call(tool, *arguments)
    assert done.returncode == 1 and done.stderr.startswith(f"Error: {sentence}") and done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.endswith("(--help shows all flags.)\n") and not done.stdout


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help(flag):
    done = call("report", flag)
    assert "daqu-report --run=runs/digits" in done.stdout and "--run: The output folder of daqu-run." in done.stdout


def test_a_flag_that_is_a_list_may_be_given_twice(tmp_path):
    limits = ["--constraint=macs>=0", "--constraint=macs<=1"]
    done = call("run", "--dataset=digits", "--space=digits", f"--output_dir={tmp_path / 'run'}", "--dry_run", *limits)
    assert "macs<=1 is met by no network of digits" in done.stderr and "twice" not in done.stderr
