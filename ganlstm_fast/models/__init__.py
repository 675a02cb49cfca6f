"""Models built on the layers of :mod:`ganlstm_fast.nn`."""

from ganlstm_fast.models.anomaly import AnomalyScores, anomaly_scores
from ganlstm_fast.models.beam_search import Written, beam_search
from ganlstm_fast.models.classifier import LSTMClassifier
from ganlstm_fast.models.conditional_critic import ConditionalCritic
from ganlstm_fast.models.conditional_gan import ConditionalLSTMGAN, ConditionalLSTMGenerator
from ganlstm_fast.models.conv_critic import ConvCritic
from ganlstm_fast.models.critics import LSTMCritic
from ganlstm_fast.models.cyclegan import (
    CycleGAN,
    PairCritic,
    PatchCritic,
    ResidualBlock,
    Translator,
    Translators,
)
from ganlstm_fast.models.dcgan import DCGAN, DCCritic, DCGenerator
from ganlstm_fast.models.forecaster import LSTMForecaster, quantile_loss
from ganlstm_fast.models.gumbel import gumbel_softmax
from ganlstm_fast.models.inversion import Inversion, invert
from ganlstm_fast.models.lstm_gan import LSTMGAN
from ganlstm_fast.models.lstm_generator import LSTMGenerator
from ganlstm_fast.models.mlp_gan import MLPGAN, MLPCritic, MLPGenerator
from ganlstm_fast.models.seq2seq import SequenceToSequence
from ganlstm_fast.models.text_gan import TextGAN, TextGenerator
from ganlstm_fast.models.text_to_image import (
    TextEncoder,
    TextToImageCritic,
    TextToImageGAN,
    TextToImageGenerator,
)
from ganlstm_fast.models.video_gan import VideoCritic, VideoGAN, VideoGenerator

__all__ = [
    "DCGAN",
    "LSTMGAN",
    "MLPGAN",
    "AnomalyScores",
    "ConditionalCritic",
    "ConditionalLSTMGAN",
    "ConditionalLSTMGenerator",
    "ConvCritic",
    "CycleGAN",
    "DCCritic",
    "DCGenerator",
    "Inversion",
    "LSTMClassifier",
    "LSTMCritic",
    "LSTMForecaster",
    "LSTMGenerator",
    "MLPCritic",
    "MLPGenerator",
    "PairCritic",
    "PatchCritic",
    "ResidualBlock",
    "SequenceToSequence",
    "TextEncoder",
    "TextGAN",
    "TextGenerator",
    "TextToImageCritic",
    "TextToImageGAN",
    "TextToImageGenerator",
    "Translator",
    "Translators",
    "VideoCritic",
    "VideoGAN",
    "VideoGenerator",
    "Written",
    "anomaly_scores",
    "beam_search",
    "gumbel_softmax",
    "invert",
    "quantile_loss",
]
