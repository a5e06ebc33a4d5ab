"""The output folder of a run, on a file system or in an object store: parts, records, locks, and their readers."""
