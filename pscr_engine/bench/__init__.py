"""`pscr-engine bench`: how fast a bundle is on this host, stage by stage, and what limits it."""
