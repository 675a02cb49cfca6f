"""Data sets to train on, beside the tables of :mod:`ganlstm_fast.training.data`."""

from ganlstm_fast.training.datasets.anomalies import Event, Planted, plant_anomalies
from ganlstm_fast.training.datasets.captions import (
    Captioned,
    Words,
    captioned_digits,
    load_captions,
    weight_and_slant,
)
from ganlstm_fast.training.datasets.date_words import date_pairs, dates_in_words
from ganlstm_fast.training.datasets.digits import digit_columns, digit_images, digit_rows
from ganlstm_fast.training.datasets.image_folder import ImageFolder, load_image, load_image_folder
from ganlstm_fast.training.datasets.labelled import Labelled, split_by_class
from ganlstm_fast.training.datasets.moving_digits import moving_digits
from ganlstm_fast.training.datasets.plucked_strings import Plucked, plucked_strings
from ganlstm_fast.training.datasets.sequences import Sequences, load_sequences
from ganlstm_fast.training.datasets.series import (
    Pairs,
    forecast_pairs,
    labelled_windows,
    load_months,
)
from ganlstm_fast.training.datasets.sines import sines
from ganlstm_fast.training.datasets.sound_folder import (
    SoundFolder,
    load_sound,
    load_sound_folder,
)
from ganlstm_fast.training.datasets.text import Vocabulary, load_text, text_windows
from ganlstm_fast.training.datasets.texts import load_texts, one_line, pad_texts, text_pieces
from ganlstm_fast.training.datasets.unpaired import (
    hold_out,
    slanted_outlines,
    solid,
    styled_digits,
)
from ganlstm_fast.training.datasets.video_folder import VideoFolder, load_video_folder

__all__ = [
    "Captioned",
    "Event",
    "ImageFolder",
    "Labelled",
    "Pairs",
    "Planted",
    "Plucked",
    "Sequences",
    "SoundFolder",
    "VideoFolder",
    "Vocabulary",
    "Words",
    "captioned_digits",
    "date_pairs",
    "dates_in_words",
    "digit_columns",
    "digit_images",
    "digit_rows",
    "forecast_pairs",
    "hold_out",
    "labelled_windows",
    "load_captions",
    "load_image",
    "load_image_folder",
    "load_months",
    "load_sequences",
    "load_sound",
    "load_sound_folder",
    "load_text",
    "load_texts",
    "load_video_folder",
    "moving_digits",
    "one_line",
    "pad_texts",
    "plant_anomalies",
    "plucked_strings",
    "sines",
    "slanted_outlines",
    "solid",
    "split_by_class",
    "styled_digits",
    "text_pieces",
    "text_windows",
    "weight_and_slant",
]
