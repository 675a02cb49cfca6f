"""Reading of tables, scaling, and splits by time."""

import dataclasses

import pytest
import torch

from ganlstm_fast.training.data import MinMaxScaler, load_series
from ganlstm_fast.training.errors import InputError
from ganlstm_fast.training.splits import time_folds
from ganlstm_fast.training.windows import windows


def test_bundled_weather():
    series = load_series()
    assert series.columns == ("precipitation", "temp_max", "temp_min", "wind")
    assert series.values.shape == (1461, 4)
    assert series.values.dtype == torch.float64
    assert series.values[1].tolist() == [10.9, 10.6, 2.8, 4.5]
    assert set(series.units) == set(series.columns)


def test_columns_are_chosen_and_ordered(tmp_path):
    file = tmp_path / "t.csv"
    file.write_text("name,a,flag,b\nx,1,True,4\ny,2,False,5\n\n\n")
    assert load_series(file).columns == ("a", "b")
    assert load_series(file, ["b", "a"]).values.tolist() == [[4, 1], [5, 2]]


@pytest.mark.parametrize(
    ("text", "columns", "message"),
    [
        ("", None, "is empty"),
        ("a,b\n", None, "no rows"),
        ("a,b\n\n\n", None, "no rows"),
        ("a,b\nx,y\n", None, "no column of numbers"),
        ("1,2\n3,4\n", None, "first line holds numbers"),
        ("a,b\n1,2\n", ["c"], "no column c; it has a, b"),
        ("a,b\n1,2\n", ["a", "a"], "twice"),
        ("a,b\n1,2\n", [], "at least one"),
        ("a,b\n1,2\n1,oops\n", ["b"], r"other than numbers, such as 'oops' \(line 3\)"),
        ("a,b\n1,2\n1,\n,3\n5,6\n7,inf\n", None, "in a, b, lines 3-4, 6;"),
        ("a,b\n1,2\n\n3,4\n", None, "line 3;"),
    ],
)
def test_bad_files(tmp_path, text, columns, message):
    file = tmp_path / "t.csv"
    file.write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        load_series(file, columns)
    assert "\n" not in str(caught.value)


def test_files_that_are_none(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        load_series(tmp_path / "t.csv")
    with pytest.raises(InputError, match="is a folder"):
        load_series(tmp_path)
    binary = tmp_path / "b.csv"
    binary.write_bytes(bytes(range(256)) * 4)
    with pytest.raises(InputError, match="b\\.csv"):
        load_series(binary)


def test_scaling_round_trip():
    values = torch.randn(50, 3, dtype=torch.float64) * 100
    values[:, 1] = 7.0
    scaler = MinMaxScaler.fit(values)
    scaled = scaler.scale(values)
    assert scaled.dtype == torch.float32
    assert scaled.amin(0).tolist() == [0, 0]
    assert scaled.amax(0).tolist() == [1, 1]
    torch.testing.assert_close(scaler.unscale(scaled), values, rtol=1e-6, atol=1e-4)


def test_a_constant_column_is_not_scaled_and_comes_back_as_itself():
    values = torch.tensor([[5.0, 0.0, 0.1], [5.0, 4.0, 0.1]], dtype=torch.float64)
    scaler = MinMaxScaler.fit(values)
    assert scaler.unscale(torch.tensor([[0.5], [0.25]])).tolist() == [[5, 2, 0.1], [5, 1, 0.1]]
    later = values + torch.tensor([2.0, 4.0, 0.0])
    assert scaler.scale(later).tolist() == [[1], [2]]
    assert scaler.changed(later).tolist() == [[True, False, False]] * 2
    # As in the checkpoint of a run that learnt all columns.
    every = dataclasses.replace(scaler, learnt=torch.ones(3, dtype=torch.bool))
    assert every.scale(later).tolist() == [[2, 1, 0], [2, 2, 0]]
    made = torch.tensor([[0.45, 0.5, torch.nan]])
    assert every.unscale(made).tolist() == [[5, 2, 0.1]]


def test_windows():
    rows = torch.arange(10.0)[:, None].expand(-1, 2)
    got = windows(rows, 4)
    assert got.shape == (7, 4, 2)
    assert got[3, :, 1].tolist() == [3, 4, 5, 6]
    with pytest.raises(InputError, match="3 rows, fewer than one window of 4"):
        windows(rows[:3], 4)


@pytest.mark.parametrize(("rows", "seq_len"), [(1461, 24), (125, 24), (60, 5)])
def test_folds_share_no_row(rows, seq_len):
    everything = windows(torch.arange(rows)[:, None], seq_len)[..., 0]
    held_rows = set()
    for train, held in time_folds(rows, seq_len):
        assert len(train) > 0
        assert len(held) > 0
        seen = set(everything[held].flatten().tolist())
        assert not seen & set(everything[train].flatten().tolist())
        assert not seen & held_rows
        held_rows |= seen
    with pytest.raises(InputError, match="too few"):
        time_folds(5 * seq_len, seq_len)
