"""Models trained on AGIQA-3K: how they were trained, how well they follow people's ratings, and the one that ships."""
