"""What tests of the export share."""

import pytest
import torch


@pytest.fixture
def save(tmp_path):
    """Save with torch.save, and return the file."""

    def save(content, **options):
        torch.save(content, tmp_path / "c.pt", **options)
        return tmp_path / "c.pt"

    return save
