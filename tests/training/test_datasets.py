"""Data sets: what is in them, that their splits share nothing, and what is said of bad input."""

import re
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from ganlstm_fast.training.data import MinMaxScaler, load_dates, load_series
from ganlstm_fast.training.datasets import (
    Vocabulary,
    digit_columns,
    digit_images,
    digit_rows,
    forecast_pairs,
    labelled_windows,
    load_image,
    load_image_folder,
    load_months,
    load_text,
    plant_anomalies,
    sines,
    text_windows,
)
from ganlstm_fast.training.errors import InputError
from ganlstm_fast.training.splits import series_folds, split_by_time
from ganlstm_fast.training.windows import windows


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_sines():
    series = sines(500, 24, 5, generator())
    assert series.shape == (500, 24, 5)
    assert series.dtype == torch.float32
    assert torch.equal(series, sines(500, 24, 5, generator()))
    assert not torch.equal(series, sines(500, 24, 5, generator(1)))
    # The angles recovered: steps alike within a channel, phase and frequency uniform on [0, 0.1].
    angle = torch.asin(2 * series.double() - 1)[:, :12]
    phase, frequency = angle[:, 0], angle[:, 1] - angle[:, 0]
    torch.testing.assert_close(
        angle, phase[:, None] + frequency[:, None] * torch.arange(12.0)[:, None], atol=1e-5, rtol=0
    )
    for drawn in (phase, frequency):
        assert -1e-6 <= drawn.min() < 0.002
        assert 0.098 < drawn.max() <= 0.1 + 1e-6
        assert abs(drawn.mean() - 0.05) < 0.002
    assert abs(torch.corrcoef(torch.stack((phase.flatten(), frequency.flatten())))[0, 1]) < 0.1


def test_digits_of_both_parts():
    train, test = digit_rows()
    assert (len(train), len(test)) == (1442, 355)
    assert train.inputs.shape[1:] == (8, 8)
    assert train.inputs.dtype == torch.float32
    assert train.inputs.amin() == 0
    assert train.inputs.amax() == 1
    share = test.labels.bincount() / (test.labels.bincount() + train.labels.bincount())
    assert ((share - 0.2).abs() < 0.01).all()
    # The set starts with a 0 to 9, and its fifth 0 is number 36.
    from sklearn.datasets import load_digits

    raw = load_digits()
    assert train.labels[:10].tolist() == list(range(10))
    assert raw.target[36] == 0
    assert torch.equal(test.inputs[test.labels == 0][0] * 16, torch.tensor(raw.images[36]).float())
    assert train.classes[7] == "7"


@pytest.mark.parametrize("size", [8, 28, 32, 64, 128])
def test_digit_images(size):
    (train, _), (rows, _) = digit_images(size), digit_rows()
    assert train.inputs.shape == (1442, 1, size, size)
    assert train.inputs.amin() == -1
    assert train.inputs.amax() <= 1
    assert torch.equal(train.labels, rows.labels)
    if size % 8 == 0:
        small = torch.nn.functional.avg_pool2d(train.inputs, size // 8)[:, 0]
        # Averaged down again, an image is its digit, slightly blurred.
        assert (small - (2 * rows.inputs - 1)).abs().mean() < 0.2
    with pytest.raises(ValueError, match="size: expected 8 or more, got 7"):
        digit_images(7)


def test_digit_columns():
    (columns, test), (rows, _) = digit_columns(), digit_rows()
    assert columns.lengths.dtype == torch.int64
    assert set(columns.lengths.tolist()) == {3, 4, 5, 6, 7, 8}
    assert len(test.lengths) == len(test)
    for n in range(len(columns)):
        sequence, length = columns.inputs[n], int(columns.lengths[n])
        image = rows.inputs[n]
        filled = (image.sum(0) > 0).nonzero()[:, 0]
        assert length == filled[-1] - filled[0] + 1
        assert torch.equal(sequence[:length].T, image[:, filled[0] : filled[-1] + 1])
        assert not sequence[length:].any()


def test_dates(tmp_path):
    dates = load_dates()
    assert len(dates) == len(load_series().values)
    assert str(dates[0].date()) == "2012-01-01"
    months = load_months()
    assert months.dtype == torch.int64
    assert months.bincount().tolist() == [
        124,
        113,
        124,
        120,
        124,
        120,
        124,
        124,
        120,
        124,
        120,
        124,
    ]
    assert [months[k].item() for k in (0, 31, 60, 1460)] == [0, 1, 2, 11]
    file = tmp_path / "t.csv"
    file.write_text("date,a\n2012-01-01,1\nsoon,2\n,3\n\n\n")
    with pytest.raises(InputError, match=r"dates such as 2012-01-31: 'soon' \(lines 3-4\)"):
        load_dates(file)
    with pytest.raises(InputError, match="no column day; it has date, a"):
        load_dates(file, "day")


@pytest.mark.parametrize(("seq_len", "context"), [(24, 0), (107, 100), (1, 0)])
def test_split_by_time(seq_len, context):
    train, test = split_by_time(1461, seq_len, 365, context)
    rows = windows(torch.arange(1461)[:, None], seq_len)[..., 0]
    seen, held = set(rows[train].flatten().tolist()), set(rows[test].flatten().tolist())
    assert not seen & held
    # The two parts cover all rows, and all of the last 365 are held out.
    assert seen | held == set(range(1461))
    assert rows[test][:, context:].unique().tolist() == list(range(1461 - 365, 1461))


@pytest.mark.parametrize("arguments", [(10, 5, 6), (10, 5, 0), (10, 5, 4), (10, 5, 2, 4)])
def test_split_by_time_of_too_little(arguments):
    with pytest.raises(InputError, match="10 steps cannot be split into windows of 5"):
        split_by_time(*arguments)


def test_series_folds():
    split = series_folds(23, 5, generator())
    assert sorted(torch.cat([held for _, held in split]).tolist()) == list(range(23))
    for train, held in split:
        assert sorted(torch.cat((train, held)).tolist()) == list(range(23))
    assert split[0][1].tolist() != series_folds(23, 5, generator(1))[0][1].tolist()
    with pytest.raises(InputError, match="9 series are too few to hold some out; at least 10"):
        series_folds(9, 5)


@pytest.mark.parametrize("seq_len", [23, 24])
def test_labelled_windows(seq_len):
    rows = torch.arange(1461.0)[:, None]
    train, test = labelled_windows(rows, load_months(), seq_len)
    assert len(train) + len(test) == 1461 - 2 * (seq_len - 1)
    for part in (train, test):
        middle = part.inputs[:, seq_len // 2, 0].long()
        assert torch.equal(part.labels, load_months()[middle])
    assert train.inputs.max() < 1461 - 365 <= test.inputs.min()
    assert train.classes[:2] == ("January", "February")
    with pytest.raises(ValueError, match=r"labels: expected shape \(1461,\), got \(5,\)"):
        labelled_windows(rows, torch.zeros(5, dtype=torch.int64), seq_len)
    with pytest.raises(ValueError, match="labels: expected 0 to 1, got 0 to 11"):
        labelled_windows(rows, load_months(), seq_len, classes=("a", "b"))


def test_forecast_pairs():
    rows = torch.arange(1461.0)[:, None]
    train, test = forecast_pairs(rows, 100, 7)
    for part in (train, test):
        assert part.history.shape == (len(part), 100, 1)
        assert torch.equal(part.future[:, :, 0], part.starts[:, None] + torch.arange(7.0))
        assert torch.equal(part.history[:, -1, 0], part.starts - 1.0)
    assert test.starts.tolist() == list(range(1096, 1455))
    assert train.future.max() == 995
    assert test.history.min() == 996


def test_planted_anomalies():
    values = load_series().values
    rows = MinMaxScaler.fit(values).scale(values)
    before = rows.clone()
    planted = plant_anomalies(rows, 4, generator=generator())
    assert torch.equal(rows, before)
    assert [e.kind for e in planted.events].count("flat") == 4
    assert len(planted.events) == 16
    assert torch.equal(planted.rows[~planted.labels], rows[~planted.labels])
    spread = rows.std(0)
    ends = -24
    sides = set()
    for event in planted.events:
        assert event.start >= ends + 24
        ends = event.stop
        place, channels = slice(event.start, event.stop), list(event.channels)
        old, new = rows[place][:, channels], planted.rows[place][:, channels]
        others = [c for c in range(4) if c not in channels]
        assert torch.equal(rows[place][:, others], planted.rows[place][:, others])
        assert planted.labels[place].all()
        assert ((new - old).abs().amax(0) > 0.5 * spread[channels]).all()
        if event.kind == "swapped":
            assert torch.equal(new, old.flip(1))
        elif event.kind == "flat":
            assert (new == old[0]).all()
            assert len(new) >= 10
        else:
            by = (new - old) / spread[channels]
            sides.add((event.kind, by[0].sign().item()))
            size = 4.0 if event.kind == "spike" else 2.0
            torch.testing.assert_close(by.abs(), torch.full_like(by, size), atol=1e-4, rtol=0)
            assert len(new) <= 2 if event.kind == "spike" else len(new) >= 10
    assert sides == {(k, s) for k in ("spike", "level-shift") for s in (-1, 1)}
    assert planted.labels.sum() == sum(e.stop - e.start for e in planted.events)
    again = plant_anomalies(rows, 4, generator=generator())
    assert torch.equal(planted.rows, again.rows)
    assert planted.events == again.events
    assert planted.events != plant_anomalies(rows, 4, generator=generator(1)).events


def test_labels_of_windows():
    rows = torch.rand(400, 2, generator=generator())
    planted = plant_anomalies(rows, 1, ("spike", "flat"), generator=generator())
    for kind in (None, "spike", "flat"):
        expected = [
            any(
                e.start < first + 6 and first < e.stop and kind in (None, e.kind)
                for e in planted.events
            )
            for first in range(395)
        ]
        assert planted.window_labels(6, kind).tolist() == expected


def test_anomalies_that_have_no_place():
    still = torch.zeros(300, 2)
    for kind in ("spike", "flat", "swapped"):
        with pytest.raises(InputError, match=f"no place for 1 anomalies of the kind {kind}"):
            plant_anomalies(still, 1, (kind,))
    with pytest.raises(InputError, match="no place"):
        plant_anomalies(torch.rand(300, 1), 1, ("swapped",))
    with pytest.raises(InputError, match="no place"):
        plant_anomalies(torch.rand(60, 2), 5)
    with pytest.raises(ValueError, match=r"kinds: expected some of spike, .*, got 'jump'"):
        plant_anomalies(still, 1, ("jump",))


ALL = {"spike", "level-shift", "flat", "swapped"}


@pytest.mark.parametrize(
    ("rows", "kinds", "reason"),
    [
        (torch.ones(300, 2), ALL, "no column changes its value in the 300 rows"),
        (torch.ones(1, 2), ALL, "no column changes|takes 10 rows, and there are only 1"),
        (torch.rand(600, 1), {"swapped"}, "takes 2 columns, and there is only 1"),
        (torch.rand(9, 2), ALL - {"spike"}, "takes 10 rows, and there are only 9"),
        (torch.rand(40, 2), ALL - {"spike"}, "none of 1 found a place in the 40 rows"),
    ],
    ids=["constant", "one row", "one column", "short", "crowded"],
)
def test_what_cannot_be_planted_is_told_and_the_rest_is_planted(rows, kinds, reason):
    planted = plant_anomalies(rows, 1, gap=40, strict=False, generator=generator())
    assert set(planted.missing) == kinds
    for line in planted.missing.values():
        assert re.search(reason, line)
    assert {e.kind for e in planted.events} == ALL - kinds
    assert torch.equal(planted.rows[~planted.labels], rows[~planted.labels])


def test_fewer_than_asked_for_are_planted_where_there_is_no_more_room():
    planted = plant_anomalies(torch.rand(100, 1), 9, ("flat",), strict=False, generator=generator())
    count = len(planted.events)
    assert 1 <= count < 9
    assert planted.missing["flat"].startswith(f"{count} of 9 found a place in the 100 rows")


def test_where_room_is_short_each_kind_has_its_share():
    rows = torch.rand(260, 2, generator=generator())
    planted = plant_anomalies(rows, 20, gap=20, strict=False, generator=generator())
    counts = [[e.kind for e in planted.events].count(kind) for kind in ALL]
    assert len(set(counts)) == 1
    assert 1 <= counts[0] < 20
    assert set(planted.missing) == ALL
    assert planted.missing["flat"].startswith(f"{counts[0]} of 20 have room in the 260 rows")
    # A kind without any place takes none from the others.
    still = torch.zeros(400, 1)
    still[::40] = 1.0
    planted = plant_anomalies(still, 4, ("spike", "swapped"), strict=False, generator=generator())
    assert len(planted.events) == 4
    assert set(planted.missing) == {"swapped"}


def test_a_constant_channel_gets_no_shift_of_its_own():
    rows = torch.rand(900, 2, generator=generator())
    rows[:, 1] = 0.5
    planted = plant_anomalies(rows, 3, ("spike", "level-shift", "flat"), generator=generator())
    assert not planted.missing
    assert {e.channels for e in planted.events} == {(0,)}


def test_bundled_text():
    text = load_text()
    poems = text.strip().split("\n\n")
    assert len(poems) == 40
    assert {poem.count("\n") for poem in poems} == {13}
    assert text.isascii()
    assert "Shall I compare thee to a summer's day?" in text
    assert len(Vocabulary.of(text)) == 59


def test_text_windows():
    text = load_text()
    vocabulary = Vocabulary.of(text)
    numbers = vocabulary.encode(text)
    assert numbers.dtype == torch.int64
    assert (numbers.min(), numbers.max()) == (0, 58)
    assert vocabulary.decode(numbers) == text
    train, test = text_windows(text, vocabulary, 32, held_out=0.2)
    assert vocabulary.decode(train[5]) == text[5:37]
    cut = len(text) - int(0.2 * len(text))
    assert vocabulary.decode(train[-1]) == text[cut - 32 : cut]
    assert vocabulary.decode(test[0]) == text[cut : cut + 32]
    assert vocabulary.decode(test[-1]) == text[-32:]
    with pytest.raises(InputError, match=r"not in the vocabulary: \['z'\]"):
        Vocabulary.of("abc").encode("abz")
    with pytest.raises(InputError, match=r"100 symbols, .* give seq_len=10 or less"):
        text_windows(text[:100], vocabulary, 32)


def test_text_files(tmp_path):
    file = tmp_path / "t.txt"
    file.write_bytes(b"\xef\xbb\xbfa\r\nb")
    assert load_text(file) == "a\nb"
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=r"t\.txt is not text in UTF-8"):
        load_text(file)
    file.write_bytes(b"")
    with pytest.raises(InputError, match=r"t\.txt is empty"):
        load_text(file)
    file.write_bytes(b" \r\n\t\n")
    with pytest.raises(InputError, match=r"t\.txt has no text, only spaces and line ends"):
        load_text(file)
    for path in (tmp_path / "no.txt", tmp_path):
        with pytest.raises(InputError, match="cannot be read: "):
            load_text(path)


def picture(path, colour, size=(6, 4), mode="RGB", **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, colour).save(path, **options)
    return path


def test_image(tmp_path):
    # The middle 4 columns of 6 are kept.
    pixels = np.zeros((4, 6, 3), np.uint8)
    pixels[:, 1:3, 0] = 255
    file = tmp_path / "i.png"
    Image.fromarray(pixels).save(file)
    image = load_image(file, 4)
    assert image.dtype == torch.float32
    assert image.shape == (3, 4, 4)
    assert image[0, :, :2].eq(1).all()
    assert image[0, :, 2:].eq(-1).all()
    assert image[1:].eq(-1).all()
    grey = load_image(file, 4, channels=1)
    assert grey.shape == (1, 4, 4)
    assert abs(grey[0, 0, 0] + 1 - 2 * 0.299) < 0.01
    with pytest.raises(ValueError, match="channels: expected 1 or 3, got 4"):
        load_image(file, 4, channels=4)


def test_image_modes(tmp_path):
    clear = picture(tmp_path / "a.png", (255, 0, 0, 0), mode="RGBA")
    assert load_image(clear, 4).eq(1).all()
    palette = Image.new("P", (4, 4))
    palette.putpalette([10, 20, 30] * 256)
    palette.save(tmp_path / "p.gif", transparency=0)
    assert load_image(tmp_path / "p.gif", 4).eq(1).all()
    deep = Image.fromarray(np.full((4, 4), 32768, np.uint16))
    deep.save(tmp_path / "d.png")
    assert (load_image(tmp_path / "d.png", 4, 1) - (128 / 127.5 - 1)).abs().max() < 1e-6
    picture(tmp_path / "f.tif", 0.5, mode="F")
    with pytest.raises(InputError, match=r"f\.tif: its pixels are numbers of mode F"):
        load_image(tmp_path / "f.tif", 4)
    # The image is rotated by a quarter: its stored top belongs on the right.
    turned = np.zeros((4, 4, 3), np.uint8)
    turned[0] = 255
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(turned).save(tmp_path / "t.png", exif=exif)
    assert load_image(tmp_path / "t.png", 4)[0, :, 3].eq(1).all()


def spoilt(folder):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "text.png").write_text("no image")
    whole = picture(folder / "cut.png", "red", size=(64, 64)).read_bytes()
    (folder / "cut.png").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.jpg").write_bytes(b"")
    return ["cut.png", "empty.jpg", "text.png"]


def test_spoilt_images_are_named(tmp_path):
    for name in [*spoilt(tmp_path), "missing.png"]:
        with pytest.raises(InputError, match=f"{name} cannot be read as an image: .") as caught:
            load_image(tmp_path / name, 8)
        assert "\n" not in str(caught.value)


def test_huge_images_are_refused(tmp_path, monkeypatch):
    file = picture(tmp_path / "huge.png", "red", size=(100, 100))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(InputError, match=r"huge\.png cannot be read as an image: .*exceeds"):
        load_image(file, 8)


def test_image_folder(tmp_path):
    names = spoilt(tmp_path)
    picture(tmp_path / "b.png", "red")
    picture(tmp_path / "a.JPG", "blue", format="JPEG")
    picture(tmp_path / ".hidden.png", "red")
    (tmp_path / "notes.txt").write_text("no image, and no matter")
    found = load_image_folder(tmp_path, 8)
    assert found.images.shape == (2, 3, 8, 8)
    assert found.images[0, 2].mean() > 0.9
    assert found.images[1, 0].eq(1).all()
    assert found.labels is None
    assert found.classes == ()
    assert [line.split("/")[-1].split(" ")[0] for line in found.skipped] == names


def test_images_come_in_the_order_of_their_names(tmp_path):
    for n in (7, 2, 9, 4, 0, 5, 1, 8, 3, 6):
        picture(tmp_path / f"{n}.png", 25 * n, mode="L")
    levels = load_image_folder(tmp_path, 8, channels=1).images.mean((1, 2, 3))
    assert levels.tolist() == sorted(levels.tolist())


def test_image_folder_with_classes(tmp_path):
    spoilt(tmp_path / "empty")
    for n in range(2):
        picture(tmp_path / "dogs" / f"{n}.png", "red")
    picture(tmp_path / "cats" / "deep" / "x.png", "blue")
    found = load_image_folder(tmp_path, 8, channels=1)
    assert found.images.shape == (3, 1, 8, 8)
    assert found.classes == ("cats", "dogs")
    assert found.labels.tolist() == [0, 1, 1]
    assert len(found.skipped) == 3
    picture(tmp_path / "x.png", "red")
    with pytest.raises(InputError, match=r"both in it \(x\.png\) and in sub-folders"):
        load_image_folder(tmp_path, 8)


def test_image_folders_that_are_none(tmp_path):
    with pytest.raises(InputError, match="is not a folder"):
        load_image_folder(tmp_path / "no", 8)
    with pytest.raises(InputError, match=r"has no image \(\.png"):
        load_image_folder(tmp_path, 8)
    spoilt(tmp_path)
    with pytest.raises(InputError, match=r"of 3 files none can be read: .*cut\.png"):
        load_image_folder(tmp_path, 8)


def test_without_pillow(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ModuleNotFoundError, match=r'pip install "ganlstm_fast\[images\]"'):
        load_image(tmp_path / "a.png", 8)
