"""What users would pick instead of pscr-engine, each a program that scores the same images from files to Parquet."""
