"""The operators of the three families, on torch alone: nothing else of the package is imported."""
