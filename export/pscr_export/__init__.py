"""Makes bundles from PSCR checkpoints. This package needs PyTorch; scoring a bundle does not.

Start at `pscr_export.export.export_bundle`.
"""
