"""From a PSCR checkpoint to a bundle. This side needs PyTorch; scoring does not.

Start at `pscr_export.export.export_bundle`.
"""
