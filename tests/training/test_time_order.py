"""The order of rows: dates, gaps, several series, and the windows that follow from them."""

import numpy as np
import pandas as pd
import pytest
import torch

from ganlstm_fast.training.data import load_series
from ganlstm_fast.training.errors import InputError
from ganlstm_fast.training.splits import time_folds
from ganlstm_fast.training.tables.dates import read_dates
from ganlstm_fast.training.tables.gaps import find_gaps
from ganlstm_fast.training.windows import Stretches, windows


def read(tmp_path, table, **options):
    file = tmp_path / "t.csv"
    if isinstance(table, str):
        file.write_text(table)
    else:
        table.to_csv(file, index=False)
    return load_series(file, **options)


def dated(times, **columns):
    values = np.arange(len(times)) * 7 % 11 + 0.5
    return pd.DataFrame({"date": [str(t) for t in times], "x": values, **columns})


def stretches_of(series):
    return list(zip(series.stretches.starts.tolist(), series.stretches.stops.tolist(), strict=True))


DAYS = pd.date_range("2020-01-20", periods=40)


@pytest.mark.parametrize(
    "form",
    [
        *("%Y-%m-%d", "%Y/%m/%d", "%Y.%m.%d", "%d.%m.%Y", "%d/%m/%Y", "%m/%d/%Y", "%d-%m-%y"),
        *("%b %d, %Y", "%d %B %Y", "%d-%b-%y", "%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%MZ"),
        *("%m/%d/%Y %I:%M %p", "%Y%m%d %H:%M", "%d.%m.%Y, %H:%M", "%a, %d %b %Y"),
    ],
)
def test_dates_in_the_usual_forms(form):
    text = pd.Series(DAYS.strftime(form))
    assert (read_dates(text).times == DAYS.to_numpy()).all()
    assert len(read_dates(text).orders) == 1


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("1949-07", "1949-07-01"),
        ("07/1949", "1949-07-01"),
        ("July 1949", "1949-07-01"),
        ("2020Q3", "2020-07-01"),
        ("2020-03-29T02:00:00.5+02:00", "2020-03-29T00:00:00.5"),
        ("3/4/2020 12:05 am", None),
        ("13/4/2020 12:05 am", "2020-04-13T00:05"),
        ("2020-02-30", "NaT"),
        ("12:30", "NaT"),
        ("Sep-20", "NaT"),
    ],
)
def test_single_dates(text, time):
    dates = read_dates(pd.Series([text]))
    if time is None:
        assert len(dates.orders) == 2
    else:
        assert np.array_equal(dates.times, np.array([time], "datetime64[ns]"), equal_nan=True)


def test_day_and_month_that_could_be_either_are_refused(tmp_path):
    table = dated(["01/02/2020", "02/02/2020", "03/02/2020"])
    with pytest.raises(InputError, match=r"'01/02/2020' \(line 2\), may have the day first or the"):
        read(tmp_path, table)
    assert read(tmp_path, table, date_column="none").times is None
    table.loc[3] = ["13/02/2020", 1]
    assert read(tmp_path, table).times[0] == np.datetime64("2020-02-01")


@pytest.mark.parametrize(
    ("form", "freq"), [("%y-%m-%d", "MS"), ("%d-%m-%y", "D"), ("%d/%m/%Y", "7D")]
)
@pytest.mark.parametrize("newest_first", [False, True])
def test_of_several_readings_the_one_in_order_is_taken(form, freq, newest_first):
    times = pd.date_range("2012-02-01", periods=20, freq=freq)
    if freq == "D":
        times = times + pd.Timedelta(days=25)
    text = pd.Series(times.strftime(form))[:: -1 if newest_first else 1]
    dates = read_dates(text)
    assert len(dates.orders) == 1
    assert (dates.times == times.to_numpy()[:: -1 if newest_first else 1]).all()


def test_rows_are_sorted_by_time_and_it_is_said(tmp_path):
    table = dated(DAYS)
    in_order = read(tmp_path, table)
    newest_first = read(tmp_path, table[::-1])
    mixed = read(tmp_path, table.sample(frac=1, random_state=0))
    for series in (newest_first, mixed):
        assert torch.equal(series.values, in_order.values)
        assert series.fingerprint == in_order.fingerprint
    assert "newest first" in newest_first.notes[0]
    assert newest_first.file_rows.tolist() == list(range(39, -1, -1))
    assert "sorted by date" in mixed.notes[0]
    assert not any("sorted" in note for note in in_order.notes)


def test_a_column_of_plain_numbers_is_no_date(tmp_path):
    table = pd.DataFrame({"year": [2012, 2010, 2011, 2015, 2013], "x": [1, 5, 2, 8, 3]})
    series = read(tmp_path, table)
    assert series.times is None
    assert series.columns == ("year", "x")
    assert read(tmp_path, "day,x\n20200102,5\n20200101,6\n", date_column="day").values.tolist() == [
        [6],
        [5],
    ]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("2020-01-01,1\n2020-01-02,2\nTotal,3\n", r"'Total' \(line 4\).*date_column='none'"),
        ("2020-01-01,1\n,2\n2020-01-03,3\n", r"dates such as 2012-01-31: .* \(line 3\)"),
        ("2020-01-01,1\n2020-01-01,2\n2020-01-02,3\n", r"says 2020-01-01 twice \(lines 2-3\)"),
    ],
)
def test_times_that_are_missing_or_stand_twice(tmp_path, rows, message):
    with pytest.raises(InputError, match=message):
        read(tmp_path, "date,x\n" + rows)


def test_date_and_time_of_day_in_two_columns(tmp_path):
    hours = pd.date_range("2020-01-30 05:00", periods=60, freq="h")
    x = np.arange(60) % 7
    columns = {"Date": hours.strftime("%d/%m/%Y"), "Time": hours.strftime("%H.%M.%S")}
    series = read(tmp_path, pd.DataFrame({**columns, "x": x}))
    assert (series.times == hours.to_numpy()).all()
    columns = {"day": hours.strftime("%Y-%m-%d"), "hr": hours.hour}
    series = read(tmp_path, pd.DataFrame({**columns, "x": x}))
    assert (series.times == hours.to_numpy()).all()
    assert series.columns == ("x",)


def test_windows_do_not_cross_a_gap(tmp_path):
    times = DAYS.append(pd.date_range("2020-05-01", periods=30))
    series = read(tmp_path, dated(times))
    assert stretches_of(series) == [(0, 40), (40, 70)]
    assert "a gap in time (63 days before line 42), which windows do not cross" in series.notes
    found = windows(series.values, 10, series.stretches)
    every = windows(series.values, 10)
    assert torch.equal(found, torch.cat((every[:31], every[40:])))
    crossing = read(tmp_path, dated(times), gaps="cross")
    assert torch.equal(windows(crossing.values, 10, crossing.stretches), every)
    assert crossing.fingerprint != series.fingerprint


def without(times, *rows):
    return times.delete(list(rows))


BUSINESS = pd.bdate_range("2020-01-01", periods=300)
HOURS = pd.date_range("2020-01-01", periods=24 * 200, freq="h")
SESSIONS = pd.DatetimeIndex(
    [
        t
        for t in pd.date_range("2020-01-06", periods=24 * 60, freq="h")
        if t.weekday() < 5 and 9 <= t.hour < 16
    ]
)


@pytest.mark.parametrize(
    ("times", "gaps"),
    [
        (DAYS, []),
        (without(DAYS, 20), [20]),
        (BUSINESS, []),
        (BUSINESS[2:12], []),
        (without(BUSINESS, 90, 123, *range(200, 205)), []),
        (without(BUSINESS, *range(200, 215)), [200]),
        (pd.date_range("2020-01-01", periods=40, freq="MS"), []),
        (pd.date_range("2020-01-31", periods=40, freq=pd.offsets.MonthEnd()), []),
        (pd.date_range("2020-01-31", periods=40, freq=pd.offsets.BMonthEnd()), []),
        (without(pd.date_range("2020-01-01", periods=40, freq="MS"), 5), [5]),
        (pd.date_range("1990-01-01", periods=30, freq="YS"), []),
        (pd.date_range("2020-01-01", periods=50, freq="7D"), []),
        (without(HOURS, 500, 700, 701), [500, 699]),
        (SESSIONS, []),
        (without(SESSIONS, 100), [100]),
        (without(SESSIONS, *range(70, 77)), []),
        (DAYS[:2], []),
    ],
)
def test_a_gap_is_where_rows_are_missing_that_other_weeks_have(times, gaps):
    assert find_gaps(times.to_numpy())[0].tolist() == gaps


def test_uneven_steps_have_gaps_where_they_are_far_longer():
    seconds = np.random.default_rng(0).exponential(100, 300).cumsum()
    seconds[200:] += 100_000
    times = np.datetime64("2020-01-01", "ns") + (seconds * 1e9).astype("timedelta64[ns]")
    gaps, words = find_gaps(times)
    assert gaps.tolist() == [200]
    assert words == "uneven steps"


@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/New_York", "Australia/Sydney"])
@pytest.mark.parametrize("freq", ["h", "15min"])
@pytest.mark.parametrize("newest_first", [False, True])
def test_hours_of_daylight_saving_are_no_gaps_and_keep_their_order(
    tmp_path, zone, freq, newest_first
):
    there = pd.date_range("2020-03-01", "2020-12-01", freq=freq, tz="UTC").tz_convert(zone)
    table = dated(there.tz_localize(None))
    series = read(tmp_path, table[::-1] if newest_first else table)
    assert series.values[:, 0].tolist() == table["x"].tolist()
    assert len(series.stretches.starts) == 1


def machines(lengths=(60, 50, 45), **columns):
    parts = [
        dated(pd.date_range("2020-01-01", periods=n), machine=f"m{k}")
        for k, n in enumerate(lengths)
    ]
    table = pd.concat(parts, ignore_index=True).assign(**columns)
    table["x"] += 100 * table["machine"].str[1:].astype(int)
    return table.sort_values(["date", "machine"])


def test_windows_lie_in_one_series(tmp_path):
    series = read(tmp_path, machines(), series_column="machine")
    assert series.series == ("m0", "m1", "m2")
    assert stretches_of(series) == [(0, 60), (60, 110), (110, 155)]
    found = windows(series.values, 24, series.stretches)
    assert len(found) == 37 + 27 + 22
    assert ((found // 100).amax(1) == (found // 100).amin(1)).all()
    assert series.notes[0] == "3 series by machine"
    assert series.names_of(torch.tensor([0, 60, 154])) == ["m0", "m1", "m2"]


@pytest.mark.parametrize("column", ["machine", "shop"])
def test_a_long_table_is_refused_with_the_column_to_give(tmp_path, column):
    table = machines().rename(columns={"machine": column})
    with pytest.raises(InputError, match=f"holds several series: .*give series_column='{column}',"):
        read(tmp_path, table)


def test_a_counter_that_starts_again_tells_several_series(tmp_path):
    rows = [(e, c, c * e % 5) for e in (3, 1, 2) for c in range(1, 9)]
    table = pd.DataFrame(rows, columns=["eng", "cycle", "s"])
    with pytest.raises(InputError, match=r"cycle starts again in lines 10, 18, .*column='eng',"):
        read(tmp_path, table)
    series = read(tmp_path, table, series_column="eng")
    assert series.columns == ("s",)
    assert "left out: cycle (counts up by 1)" in series.notes
    assert len(read(tmp_path, table, series_column="none").stretches.starts) == 1


def test_hours_of_a_day_are_no_series(tmp_path):
    hours = pd.date_range("2020-01-01", periods=100, freq="h")
    table = pd.DataFrame({"day": hours.day, "hour": hours.hour, "x": np.arange(100) % 7})
    assert len(read(tmp_path, table).stretches.starts) == 1


def test_a_time_stands_twice_in_a_series(tmp_path):
    table = pd.concat((machines(), machines().iloc[:1]))
    with pytest.raises(InputError, match="says 2020-01-01 twice in a series"):
        read(tmp_path, table, series_column="machine")


def pieces(*lengths, of=None):
    ends = np.cumsum((0, *lengths)).tolist()
    of = range(len(lengths)) if of is None else of
    return Stretches.of(zip(ends, ends[1:], of, strict=False))


@pytest.mark.parametrize("context", [0, 5])
def test_the_last_rows_of_each_series_are_held_out(context):
    # The first series has a gap after 70 rows.
    known = pieces(70, 30, 80, 20, of=(0, 0, 1, 2))
    train, held = known.split(6 + context, 15, context)
    rows = windows(torch.arange(200)[:, None], 6 + context)[..., 0]
    seen, later = set(rows[train].flatten().tolist()), set(rows[held].flatten().tolist())
    assert not seen & later
    assert set(rows[held][:, context:].flatten().tolist()) == {
        *range(85, 100),
        *range(165, 180),
        *range(185, 200),
    }
    for first in (*train.tolist(), *held.tolist()):
        assert known.of_row[first] == known.of_row[first + 5 + context]
    left = known.left(15)
    assert known.part(left).lengths.tolist() == [85, 65, 5]
    assert known.part(~left).starts.tolist() == [0, 15, 30]
    # The last series has no rows left, and still counts.
    assert known.part(known.left(25)).lengths.tolist() == [75, 55, 0]
    assert known.part(known.left(100)).lengths.tolist() == [0, 0, 0]
    assert len(known.part(known.left(25)).split(6, torch.tensor([9, 9, 9]))[1]) == 4


@pytest.mark.parametrize(
    ("lengths", "seq_len"), [((300, 150, 90, 40), 24), ((30,) * 7 + (3,), 12), ((400, 5, 400), 10)]
)
def test_folds_of_several_stretches_share_no_row(lengths, seq_len):
    known = pieces(*lengths)
    rows = windows(torch.arange(known.rows)[:, None], seq_len, known)[..., 0]
    held_rows = set()
    for train, held in time_folds(known, seq_len):
        assert len(train)
        assert len(held)
        seen = set(rows[held].flatten().tolist())
        assert not seen & set(rows[train].flatten().tolist())
        assert not seen & held_rows
        held_rows |= seen
    with pytest.raises(InputError, match="too few"):
        time_folds(pieces(30, 30, 30), 24)
