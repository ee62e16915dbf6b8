"""`everymode policy VERB`: one verb a file, as in the folder above."""

__all__ = ["SUMMARY"]

SUMMARY = "Robot policies: look at demonstrations, train, judge and run."
