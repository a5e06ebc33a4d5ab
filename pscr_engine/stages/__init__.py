"""The stages of a run: source → fetch → decode → sample → infer → sink."""
