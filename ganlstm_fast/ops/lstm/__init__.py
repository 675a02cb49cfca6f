"""The LSTM: one layer over a sequence, in one or two directions."""
