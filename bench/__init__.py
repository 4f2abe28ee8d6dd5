"""The numbers that the documents quote, each measured by `make bench`. bench/cases/ holds one file per subject."""
