"""Logs of publications: appended and published in one act, ordered per channel."""
