"""Data sets of the Hugging Face Hub: 'hub:owner/name', or 'hub:owner/name@revision', is fetched once and kept there."""

from __future__ import annotations

from pathlib import Path

from everymode.errors import FileError, require

__all__ = ["PREFIX", "fetch"]

PREFIX = "hub:"


def fetch(address: str) -> Path:
    """Return the folder of a data set, fetched if it is not in the Hub's own cache yet.

    Raises:
        FileError: there is no such data set, or no connection.
    """
    hub = require("huggingface_hub", "policies", "data sets of the Hub")
    name, _, revision = address.removeprefix(PREFIX).partition("@")
    if name.count("/") != 1:
        raise FileError(f"{address!r}: write it as {PREFIX}owner/name.")
    try:
        return Path(hub.snapshot_download(name, repo_type="dataset", revision=revision or None))
    except (OSError, ValueError) as error:  # those of the Hub are of these kinds
        reason = " ".join(str(error).split()).rstrip(".")
        raise FileError(
            f"cannot fetch {address}: {reason}. Check the name, or download it and give the folder."
        ) from error
