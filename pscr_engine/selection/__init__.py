"""Which images to keep: exact order statistics in bounded memory, rules, and the table of what is kept."""
