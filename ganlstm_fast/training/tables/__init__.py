"""Tables in files and in memory: how one is read, its columns of numbers, when its rows were.

``text`` makes bytes into text, ``records`` finds the delimiter and checks every line's fields,
``given`` takes a DataFrame, an array or a tensor, and ``read`` makes a
:class:`~ganlstm_fast.training.tables.read.Table` of either. ``numbers`` finds the decimal sign,
``dates`` reads dates, ``order`` sorts rows by time, ``long`` tells several series apart,
``columns`` finds the channels, ``gaps`` the breaks in time, and ``fill`` what takes the place of
missing values.
"""
