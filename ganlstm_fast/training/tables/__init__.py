"""Tables in text files: how a file is read, which columns are numbers, and when its rows were.

``text`` makes bytes into text, ``records`` finds the delimiter and checks every line's fields,
``read`` makes a :class:`~ganlstm_fast.training.tables.read.Table`, ``numbers`` finds the decimal
sign, ``dates`` reads dates, ``order`` sorts rows by time, ``long`` tells several series apart,
``columns`` finds the channels, ``gaps`` the breaks in time, and ``fill`` what takes the place of
missing values.
"""
