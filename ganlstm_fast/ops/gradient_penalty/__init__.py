"""The two operators of a gradient penalty. A critic's penalty is in ``ganlstm_fast.losses``."""
