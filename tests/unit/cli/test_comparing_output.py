"""What was measured is printed first: a plot that cannot be written takes no figures along."""

import json

import pytest
import typer
from study_records import DATASET, MACHINE, failed_record, measured_record

from autotune.cli.comparing import checked_plot, show
from autotune.errors import SpecError
from autotune.loaders.comparison_rows import Contender
from autotune.loaders.comparisons import Comparison, _measure
from autotune.spec import LoaderConfig


class Runs:
    expected = 0

    def __init__(self, answer):
        self.answer = answer

    def __call__(self, config):
        return self.answer(config)


def comparison(answer):
    rows = _measure([Contender(name="Plain", config=LoaderConfig())], Runs(answer), 2)
    return Comparison(
        kind="configs", study="s", machine=MACHINE, dataset=DATASET, batch_size=32, blocks=2, rows=tuple(rows)
    )


def shown(table, plot, *, as_json):
    show(table, headings=("samples/s",), cells=lambda row: [f"{row.samples_per_s:.0f}"], plot=plot, as_json=as_json)


@pytest.mark.parametrize("as_json", [True, False])
def test_figures_are_printed_before_a_plot_that_fails(tmp_path, capsys, as_json):
    with pytest.raises(typer.Exit) as left:
        shown(comparison(lambda config: measured_record(config, 123.0)), tmp_path / "gone" / "x.png", as_json=as_json)
    out, err = capsys.readouterr()
    assert left.value.exit_code == 1
    assert "the plot was not written" in err
    if as_json:
        assert json.loads(out)["rows"][0]["samples_per_s"] == pytest.approx(123)
    else:
        assert "123" in out
        assert "plot:" not in out


def test_a_plot_that_is_written_is_named_under_the_table_and_not_in_the_document(tmp_path, capsys):
    table = comparison(lambda config: measured_record(config, 123.0))
    shown(table, tmp_path / "x.png", as_json=False)
    assert "x.png" in capsys.readouterr().out
    shown(table, tmp_path / "y.png", as_json=True)
    json.loads(capsys.readouterr().out)
    assert (tmp_path / "y.png").exists()


def test_nothing_measured_exits_with_3_and_the_plot_is_still_tried(tmp_path, capsys):
    with pytest.raises(typer.Exit) as left:
        shown(comparison(lambda config: failed_record(config, "host_memory")), tmp_path / "x.png", as_json=True)
    assert left.value.exit_code == 3
    assert json.loads(capsys.readouterr().out)["rows"][0]["failure"]["kind"] == "host_memory"
    assert (tmp_path / "x.png").exists()


def test_a_plot_is_checked_by_one_rule_before_anything_is_measured(tmp_path):
    assert checked_plot(None) is None
    assert checked_plot(tmp_path / "x.PNG") == tmp_path / "x.PNG"
    with pytest.raises(SpecError, match=r"end in \.png, as x\.png"):
        checked_plot(tmp_path / "x.jpg")
    with pytest.raises(SpecError, match="folder that is there"):
        checked_plot(tmp_path / "gone" / "x.png")
