"""What users would pick instead, each a program of its own that scores the same images from files to Parquet."""
