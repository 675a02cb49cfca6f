"""Missing values: what takes their place, and what the user is told."""

import pandas as pd
import pytest

from ganlstm_fast.training import InputError, classify, forecast, train
from ganlstm_fast.training.configs import ClassifierConfig, ForecasterConfig, TrainConfig
from ganlstm_fast.training.data import load_series
from ganlstm_fast.training.recipes.forecaster import ForecasterRecipe
from ganlstm_fast.training.recipes.series import LSTMGANRecipe
from ganlstm_fast.training.windows import windows

DATED = "date,a,b\n2020-01-01,1,5\n2020-01-02,,6\n2020-01-05,5,\n2020-01-06,,8\n"
PLAIN = "a,b\n,1\n2,\n,3\n4,4\n7,\n"
SEVERAL = "s,a,b\nx,1,1\ny,10,1\nx,,2\ny,,5\nx,3,3\ny,40,3\nx,4,\ny,,9\n"
RUN = {"steps": 2, "batch_size": 8, "metrics": "none", "device": "cpu", "hidden": 4}


def read(tmp_path, text, **options):
    file = tmp_path / "t.csv"
    file.write_text(text)
    return load_series(file, **options)


@pytest.mark.parametrize(
    ("text", "options", "a", "b"),
    [
        # Three days lie between the second row and the third, which is a gap.
        (DATED, {"fill": "interpolate", "gaps": "cross"}, [1, 2, 5, 5], [5, 6, 7.5, 8]),
        (DATED, {"fill": "interpolate"}, [1, 1, 5, 5], [5, 6, 8, 8]),
        (DATED, {"fill": "previous"}, [1, 1, 5, 5], [5, 6, 6, 8]),
        (PLAIN, {"fill": "interpolate"}, [2, 2, 3, 4, 7], [1, 2, 3, 4, 4]),
        (PLAIN, {"fill": "previous"}, [2, 2, 2, 4, 7], [1, 1, 3, 4, 4]),
        (
            SEVERAL,
            {"fill": "interpolate", "series_column": "s"},
            [1, 2, 3, 4, 10, 25, 40, 40],
            [1, 2, 3, 3, 1, 5, 3, 9],
        ),
        (
            SEVERAL,
            {"fill": "previous", "series_column": "s"},
            [1, 1, 3, 4, 10, 10, 40, 40],
            [1, 2, 3, 3, 1, 5, 3, 9],
        ),
        # Nothing in the second stretch has a value of b: the nearest of the series is taken.
        (
            DATED.replace("06,,8", "06,,"),
            {"fill": "interpolate"},
            [1, 1, 5, 5],
            [5, 6, 6, 6],
        ),
    ],
)
def test_missing_values_are_filled_within_their_series(tmp_path, text, options, a, b):
    series = read(tmp_path, text, **options)
    assert series.values.T.tolist() == [a, b]


def test_numbers_with_decimal_commas_and_counters_may_have_holes(tmp_path):
    cells = [("1", "1,5"), ("2", ""), ("", "3,5"), ("4", "4,5"), ("5", "1"), ("6", "2"), ("7", "0")]
    text = "n;a\n" + "".join(f"{n};{a}\n" for n, a in cells)
    series = read(tmp_path, text, fill="interpolate")
    assert series.columns == ("a",)
    assert series.values[:, 0].tolist() == [1.5, 2.5, 3.5, 4.5, 1, 2, 0]
    assert "left out: n (counts up by 1)" in series.notes


def test_an_hour_that_comes_twice_is_interpolated_in_the_order_of_time(tmp_path):
    times = ["00:00", "01:00", "01:30", "01:00", "01:30", "02:00"]
    rows = [f"2021-10-31 {time},{v}\n" for time, v in zip(times, [0, 1, "", 2, "", 3], strict=True)]
    series = read(tmp_path, "date,a\n" + "".join(rows), fill="interpolate")
    assert series.values[:, 0].tolist() == [0, 1, 1.5, 2, 2.5, 3]


@pytest.mark.parametrize("dates", [True, False])
def test_no_window_crosses_rows_that_were_dropped(tmp_path, dates):
    days = pd.date_range("2020-01-01", periods=9).astype(str)
    values = [k if k not in (0, 4) else "" for k in range(9)]
    table = pd.DataFrame({"date": days, "a": values, "b": [k % 2 for k in range(9)]})
    text = (table if dates else table.drop(columns="date")).to_csv(index=False)
    series = read(tmp_path, text, columns=["a", "b"], fill="drop", gaps="cross")
    assert series.file_rows.tolist() == [1, 2, 3, 5, 6, 7, 8]
    assert dates == (series.times is not None)
    assert not dates or len(series.times) == 7
    firsts = windows(series.values, 3, series.stretches)[:, 0, 0]
    assert firsts.tolist() == [1, 5, 6]
    assert "left out 2 rows with missing values in a (lines 2, 6)" in series.notes


def test_rows_in_no_window_are_said(tmp_path):
    file = tmp_path / "t.csv"
    values = [k % 7 if k not in (4, 8) else "" for k in range(60)]
    pd.DataFrame({"a": values}).to_csv(file, index=False)
    options = {**RUN, "data": str(file), "fill": "drop"}
    found = [
        LSTMGANRecipe(TrainConfig(**options, seq_len=5)).found,
        ForecasterRecipe(ForecasterConfig(**options, history=4)).found,
    ]
    said = "7 rows in 2 stretches of fewer than 5 are in no window"
    assert [notes[-1] for notes in found] == [said, said]
    assert said not in LSTMGANRecipe(TrainConfig(**options, seq_len=3)).found


def test_what_was_filled_is_said(tmp_path):
    for fill, words in (("interpolate", "by interpolation"), ("previous", "with the previous")):
        note = read(tmp_path, PLAIN, fill=fill).notes[-1]
        assert note.startswith(f"filled 4 missing values {words}")
        assert note.endswith(": a (2), b (2)")


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        (PLAIN, {}, r"in a, b, lines 2-4, 6; give fill .interpolate, previous or drop.,"),
        ("a,b\n1,inf\n,2\n", {"fill": "drop"}, "infinite values in b, line 2; cut them"),
        ("a,b\n1,\n2,\n", {"fill": "previous", "columns": ["a", "b"]}, "no row has a value of b,"),
        (
            "s,a\nx,1\nx,2\ny,\ny,\n",
            {"fill": "interpolate", "series_column": "s"},
            "no row of y has a value of a, so that fill='interpolate' has none",
        ),
        ("a,b\n1,\n,2\n", {"fill": "drop"}, "each row has a missing value"),
    ],
)
def test_what_cannot_be_filled_is_refused(tmp_path, text, options, message):
    with pytest.raises(InputError, match=message):
        read(tmp_path, text, **options)


@pytest.mark.usefixtures("undrawn")
def test_forecasts_of_a_new_file_are_filled_as_the_run_was(tmp_path):
    days = pd.date_range("2020-01-01", periods=120)
    table = pd.DataFrame({"date": days, "x": [float(k * k % 7) for k in range(120)]})
    table.loc[117:, "x"] = [3.0, 3.5, 4.0]
    full, holes = tmp_path / "full.csv", tmp_path / "holes.csv"
    table.to_csv(full, index=False)
    table.loc[118, "x"] = None
    table.to_csv(holes, index=False)
    config = ForecasterConfig(**RUN, data=str(holes), history=8, fill="interpolate")
    lines = []
    folder = train(config, out=tmp_path / "r", announce=lines.append).folder
    assert "filled 1 missing value by interpolation: x (1)" in lines[0]
    assert forecast(folder, str(holes)).equals(forecast(folder, str(full)))
    # The dropped rows leave a gap before the last row.
    found = ForecasterRecipe(ForecasterConfig(**RUN, data=str(holes), history=8, fill="drop"))
    assert "last" not in found.data


@pytest.mark.usefixtures("undrawn")
def test_sequences_of_a_classifier_are_filled(tmp_path):
    rows = [(f"s{k}", "ab"[k % 2], t * (k % 2) + 0.1 * t) for k in range(10) for t in range(1, 6)]
    table = pd.DataFrame(rows, columns=["series", "label", "x"]).assign(c=7)
    table.loc[[1, 12], "x"] = None
    file = tmp_path / "s.csv"
    table.to_csv(file, index=False)
    with pytest.raises(InputError, match="lines 3, 14; give fill"):
        train(ClassifierConfig(**RUN, data=str(file)), out=tmp_path / "none")
    for fill in ("previous", "drop"):
        config = ClassifierConfig(**RUN, data=str(file), fill=fill)
        result = train(config, out=tmp_path / fill)
        assert len(classify(result.folder)) == 10
        assert result.metrics["data"][-1] == "column c is 7 in every row: left out of training"
