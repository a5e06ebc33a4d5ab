"""Train PSCR on labelled images. So far: the made-up labelled images that the demo runs on."""
