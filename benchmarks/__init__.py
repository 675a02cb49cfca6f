"""What measures: ``bench_*.py``, ``cases.py``, ``measure``. What reports: ``report``."""
